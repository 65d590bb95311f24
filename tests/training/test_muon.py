import keras
import numpy as np
import pytest
import tensorflow as tf
import torch

from keras_convnext import ConvNeXt
from keras_convnext.training.muon import Muon, orthogonal
from keras_convnext.training.optimizer import AdamW
from keras_convnext.training.schedule import WarmupCosine

SCHEDULE = WarmupCosine(2e-2, 20, 3, 1e-3)


def toy():
    keras.utils.set_random_seed(0)
    return ConvNeXt((1, 2), (8, 12), patch_size=2, classes=5, input_shape=(16, 16, 3))


def gradients(variables, step):
    generator = np.random.default_rng([step, 7])
    return [generator.normal(0, 0.1, variable.shape).astype("f") for variable in variables]


def apply(optimizer, variables, given):
    optimizer.apply([tf.constant(gradient) for gradient in given], variables)


def is_matrix(variable):
    layer = variable.path.split("/")[-2]
    return variable.name == "kernel" and ("pwconv" in layer or "downsample" in layer)


def test_each_step_is_that_of_pytorch(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.float)  # what it rounds to
    ours, like_adamw = toy().trainable_variables, toy().trainable_variables
    chosen = [variable for variable in ours if is_matrix(variable)]
    assert len(chosen) == 7  # 3 blocks of 2, and 1 downsampling
    rows = [torch.nn.Parameter(torch.tensor(v.numpy().reshape(-1, v.shape[-1]).T)) for v in chosen]
    reference = torch.optim.Muon(rows, weight_decay=0.05, adjust_lr_fn="match_rms_adamw")
    muon, adamw = Muon(SCHEDULE), AdamW(SCHEDULE)
    for step in range(20):
        given = gradients(ours, step)
        for row, gradient in zip(
            rows, [g for g, variable in zip(given, ours) if is_matrix(variable)]
        ):
            row.grad = torch.tensor(gradient.reshape(-1, gradient.shape[-1]).T)
        for group in reference.param_groups:
            group["lr"] = float(SCHEDULE(step))
        reference.step()
        apply(muon, ours, given)
        apply(adamw, like_adamw, given)
    for variable, row in zip(chosen, rows):
        expected = row.detach().numpy().T.reshape(variable.shape)
        assert np.abs(variable.numpy() - expected).max() <= 1e-5 * np.abs(expected).max()
    for variable, other in zip(ours, like_adamw):
        if not is_matrix(variable):
            np.testing.assert_array_equal(variable, other)


@pytest.mark.parametrize("shape", [(6, 40), (40, 6), (24, 24)])
def test_singular_values_come_near_one_and_directions_stay(shape):
    generator = np.random.default_rng(0)
    left, _, right = np.linalg.svd(generator.normal(size=shape), full_matrices=False)
    before = left @ np.diag(np.geomspace(1, 0.02, min(shape))) @ right
    after = orthogonal(tf.constant(before, tf.float32)).numpy()
    found = left.T @ after @ right.T  # diagonal, if it has the same singular vectors
    assert np.diag(found).min() > 0.65
    assert np.diag(found).max() < 1.25
    np.testing.assert_allclose(found, np.diag(np.diag(found)), atol=1e-4)


def test_layer_decay_accumulation_and_averages_are_those_of_adamw():
    whole, parts = toy().trainable_variables, toy().trainable_variables
    options = {"layer_decay": 0.8, "use_ema": True, "ema_momentum": 0.9}
    once = Muon(SCHEDULE, **options)
    twice = Muon(SCHEDULE, gradient_accumulation_steps=2, **options)
    for update in range(3):
        given = [gradients(whole, 2 * update + part) for part in range(2)]
        apply(once, whole, [np.mean(batch, axis=0) for batch in zip(*given)])
        for batch in given:
            apply(twice, parts, batch)
    for found, expected in zip([*parts, *twice.averages], [*whole, *once.averages]):
        np.testing.assert_allclose(found, expected, 1e-4, 1e-6)


def test_it_is_saved_and_loaded():
    config = keras.saving.serialize_keras_object(Muon(SCHEDULE, momentum=0.9, layer_decay=0.7))
    loaded = keras.saving.deserialize_keras_object(config)
    assert isinstance(loaded, Muon)
    assert (loaded.momentum, loaded.layer_decay) == (0.9, 0.7)
