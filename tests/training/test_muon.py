from contextlib import ExitStack
from functools import cache

import keras
import numpy as np
import pytest
import torch
from updates import apply, values

from keras_convnext import ConvNeXt
from keras_convnext.training.muon import Muon, orthogonal
from keras_convnext.training.optimizer import AdamW
from keras_convnext.training.schedule import WarmupCosine

SCHEDULE = WarmupCosine(2e-2, 20, 3, 1e-3)


@cache
def model():
    return ConvNeXt((1, 2), (8, 8), patch_size=2, classes=5, input_shape=(16, 16, 3))


def toy():
    """The variables of one network, with the same values at each call."""
    generator = np.random.default_rng(0)
    model().set_weights([generator.normal(0, 0.3, value.shape) for value in model().get_weights()])
    return model().trainable_variables


def gradients(variables, step):
    generator = np.random.default_rng([step, 7])
    return [generator.normal(0, 0.1, variable.shape).astype("f") for variable in variables]


def is_matrix(variable):
    layer = variable.path.split("/")[-2]
    return variable.name == "kernel" and ("pwconv" in layer or "downsample" in layer)


def test_each_step_is_that_of_pytorch(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.float)  # what it rounds to
    variables = toy()
    chosen = [variable for variable in variables if is_matrix(variable)]
    assert len(chosen) == 7  # 3 blocks of 2, and 1 downsampling
    rows = [
        torch.nn.Parameter(torch.tensor(value.reshape(-1, value.shape[-1]).T))
        for value in values(chosen)
    ]
    reference = torch.optim.Muon(rows, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    muon = Muon(SCHEDULE)
    for step in range(20):
        given = gradients(variables, step)
        for row, gradient in zip(
            rows, [g for g, variable in zip(given, variables) if is_matrix(variable)]
        ):
            row.grad = torch.tensor(gradient.reshape(-1, gradient.shape[-1]).T)
        for group in reference.param_groups:
            group["lr"] = float(SCHEDULE(step))
        reference.step()
        apply(muon, variables, given)
    for value, row in zip(values(chosen), rows):
        expected = row.detach().numpy().T.reshape(value.shape)
        assert np.abs(value - expected).max() <= 1e-5 * np.abs(expected).max()


def test_what_is_no_matrix_moves_as_by_adamw():
    moved = []
    for optimizer in (Muon(SCHEDULE), AdamW(SCHEDULE)):
        variables = toy()
        for step in range(3):
            apply(optimizer, variables, gradients(variables, step))
        moved.append(values(variable for variable in variables if not is_matrix(variable)))
    for found, expected in zip(*moved):
        # JAX compiles each optimizer on its own, and may round differently.
        np.testing.assert_allclose(found, expected, rtol=2e-6 * (keras.config.backend() == "jax"))


@pytest.mark.parametrize(
    ("layers", "is_chosen"),
    [
        (("stages_0_blocks_1", "pwconv2"), True),
        (("left_stages_0_blocks_1", "pwconv1"), True),
        (("left_downsample_1_conv",), True),
        (("blocks_1", "dwconv"), False),
        (("left_stem_conv",), False),
        (("head",), False),
    ],
)
def test_matrices_are_known_by_their_path(layers, is_chosen):
    with ExitStack() as scopes:
        for layer in layers:
            scopes.enter_context(keras.name_scope(layer))
        kernel = keras.Variable(np.eye(3, 5, dtype="f"), name="kernel")
    assert kernel.path == "/".join((*layers, "kernel"))
    muon = Muon()
    muon.build([kernel])
    assert muon._has_adam_step(0) != is_chosen


@pytest.mark.parametrize("shape", [(6, 40), (40, 6), (24, 24)])
def test_singular_values_come_near_one_and_directions_stay(shape):
    generator = np.random.default_rng(0)
    left, _, right = np.linalg.svd(generator.normal(size=shape), full_matrices=False)
    before = left @ np.diag(np.geomspace(1, 0.02, min(shape))) @ right
    after = keras.ops.convert_to_numpy(orthogonal(keras.ops.convert_to_tensor(before, "float32")))
    found = left.T @ after @ right.T  # diagonal, if it has the same singular vectors
    assert np.diag(found).min() > 0.65
    assert np.diag(found).max() < 1.25
    np.testing.assert_allclose(found, np.diag(np.diag(found)), atol=1e-4)


def test_layer_decay_accumulation_and_averages_are_those_of_adamw():
    options = {"layer_decay": 0.8, "use_ema": True, "ema_momentum": 0.9}
    once = Muon(SCHEDULE, **options)
    twice = Muon(SCHEDULE, gradient_accumulation_steps=2, **options)
    variables = toy()
    given = [gradients(variables, part) for part in range(6)]
    for pair in zip(given[::2], given[1::2]):
        apply(once, variables, [np.mean(both, axis=0) for both in zip(*pair)])
    whole = values([*variables, *once.averages])
    variables = toy()
    for batch in given:
        apply(twice, variables, batch)
    for found, expected in zip(values([*variables, *twice.averages]), whole):
        np.testing.assert_allclose(found, expected, 1e-4, 1e-6)


def test_it_is_saved_and_loaded():
    config = keras.saving.serialize_keras_object(Muon(SCHEDULE, momentum=0.9, layer_decay=0.7))
    loaded = keras.saving.deserialize_keras_object(config)
    assert isinstance(loaded, Muon)
    assert (loaded.momentum, loaded.layer_decay) == (0.9, 0.7)
