import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import keras
import numpy as np
import pytest
import torch
from updates import apply, values

from keras_convnext import ConvNeXt
from keras_convnext.training.layer_decay import layer_groups
from keras_convnext.training.loss_scale import LossScaleOptimizer
from keras_convnext.training.muon import Muon
from keras_convnext.training.optimizer import AdamW
from keras_convnext.training.schedule import WarmupCosine

PATHS = ("stem_conv/kernel", "stages_1_blocks_0/norm/gamma", "head/kernel", "head/bias")
SHAPES = ((2, 2, 3, 4), (4,), (4, 5), (5,))


def variables(seed=0):
    generator = np.random.default_rng(seed)
    made = []
    for path, shape in zip(PATHS, SHAPES):
        *layers, name = path.split("/")
        with ExitStack() as scopes:
            for layer in layers:
                scopes.enter_context(keras.name_scope(layer))
            made.append(keras.Variable(generator.normal(0, 0.3, shape).astype("f"), name=name))
    assert [variable.path for variable in made] == list(PATHS)
    return made


def gradients(step, scale=1.0):
    generator = np.random.default_rng([step, 7])
    return [scale * generator.normal(0, 0.1, shape).astype("f") for shape in SHAPES]


def in_torch(held, schedule, layer_decay, weight_decay=0.05, scaler=None):
    """PyTorch's AdamW with a group for each variable, and its learning rate as set by hand."""
    parameters = [torch.nn.Parameter(torch.tensor(value)) for value in values(held)]
    optimizer = torch.optim.AdamW(
        [
            {
                "params": [parameter],
                "weight_decay": weight_decay if parameter.ndim > 1 else 0.0,
                "share": layer_decay ** (13 - group),
            }
            for parameter, group in zip(parameters, layer_groups(PATHS))
        ],
        eps=1e-8,
    )

    def step(number, given):
        for group, gradient in zip(optimizer.param_groups, given):
            group["lr"] = schedule(number) * group["share"]
            group["params"][0].grad = torch.tensor(gradient)
        if scaler:
            scaler.step(optimizer)
            scaler.update()
        else:
            optimizer.step()
        return [parameter.detach().numpy().copy() for parameter in parameters]

    return step


@pytest.mark.parametrize("layer_decay", [1.0, 0.7])
def test_each_step_is_that_of_pytorch(layer_decay):
    schedule = WarmupCosine(4e-2, 20, 3, 1e-3)
    held = variables()
    reference = in_torch(held, lambda step: float(schedule(step)), layer_decay)
    optimizer = AdamW(schedule, layer_decay=layer_decay)
    for step in range(20):
        apply(optimizer, held, gradients(step))
        for found, expected in zip(values(held), reference(step, gradients(step))):
            assert np.abs(found - expected).max() <= 1e-6 * np.abs(expected).max()


def test_frozen_weights_and_those_without_decay_are_pytorchs():
    """Frozen ones do not count for the norm of the gradients either."""
    held, clip = variables(), 0.1
    parameters = [torch.nn.Parameter(torch.tensor(value)) for value in values(held)]
    _, norm, kernel, bias = parameters
    groups = [
        {"params": [norm, bias], "weight_decay": 0.0},
        {"params": [kernel], "weight_decay": 0.0},
    ]
    reference = torch.optim.AdamW(groups, lr=1e-2, eps=1e-8)
    optimizer = AdamW(1e-2, 0.3, frozen="^stem", no_decay="^head/kernel$", global_clipnorm=clip)
    for step in range(6):
        apply(optimizer, held, gradients(step))
        for parameter, gradient in zip(parameters, gradients(step)):
            parameter.grad = torch.tensor(gradient)
        torch.nn.utils.clip_grad_norm_([norm, kernel, bias], clip)
        reference.step()
        for found, parameter in zip(values(held), parameters):
            np.testing.assert_allclose(found, parameter.detach().numpy(), rtol=1e-5, atol=1e-7)
    again = AdamW.from_config(optimizer.get_config())
    assert (again.frozen, again.no_decay, again.layer_groups) == (
        "^stem", "^head/kernel$", "official",
    )  # fmt: skip
    for pattern in ("nothing", ""):
        with pytest.raises(ValueError, match="match some variables, but not all"):
            AdamW(frozen=pattern or ".").build(held)


@pytest.mark.skipif(keras.config.backend() != "tensorflow", reason="a graph of TensorFlow")
def test_weights_decay_once_nobody_has_to_read_them_any_more():
    """Before their gradient is there, TensorFlow would keep a copy of each for those who do."""
    import tensorflow as tf

    held, optimizer = variables(), AdamW(weight_decay=0.05)
    optimizer.build(held)
    step = tf.function(lambda *given: optimizer.apply(list(given), held))
    graph = step.get_concrete_function(*(tf.TensorSpec(shape) for shape in SHAPES)).graph
    decays = [op for op in graph.get_operations() if op.type == "AssignSubVariableOp"]
    assert len(decays) == sum(len(shape) > 1 for shape in SHAPES)
    gradients = {tensor.op for tensor in graph.inputs[: len(SHAPES)]}
    for decay in decays:
        waited_for = {decay}
        while (
            more := {
                before
                for op in waited_for
                for before in (*op.control_inputs, *(tensor.op for tensor in op.inputs))
            }
            - waited_for
        ):
            waited_for |= more
        assert waited_for & gradients


def test_accumulated_batches_are_one_update_of_their_mean():
    whole, parts = variables(), variables()
    # With an epsilon as large as the gradients, an update of their sum would be another.
    options = {"epsilon": 0.1, "layer_decay": 0.8, "use_ema": True, "ema_momentum": 0.9}
    once = AdamW(WarmupCosine(1e-2, 6, 2), **options)
    four = AdamW(WarmupCosine(1e-2, 6, 2), gradient_accumulation_steps=4, **options)
    for update in range(6):
        given = [gradients(4 * update + part) for part in range(4)]
        apply(once, whole, [np.mean(batch, axis=0) for batch in zip(*given)])
        before = values(parts)
        for batch in given:
            for found, unchanged in zip(values(parts), before):
                np.testing.assert_array_equal(found, unchanged)
            apply(four, parts, batch)
        assert int(four.iterations) == update + 1
        for found, expected in zip(
            values(parts) + values(four.averages), values(whole) + values(once.averages)
        ):
            np.testing.assert_allclose(found, expected, 1e-5, 1e-7)


def test_the_average_starts_at_the_weights_and_moves_once_an_update():
    held = variables()
    optimizer = AdamW(0.1, use_ema=True, ema_momentum=0.75)
    optimizer.build(held)
    held[2].assign(held[2] + 1.0)  # as weights that are loaded after the optimizer was built
    expected = values(held)
    for step in range(3):
        apply(optimizer, held, gradients(step))
        expected = [0.75 * e + 0.25 * v for e, v in zip(expected, values(held))]
        for found, average in zip(values(optimizer.averages), expected):
            np.testing.assert_allclose(found, average, 1e-5, 1e-6)


def test_while_it_is_frozen_the_head_alone_moves():
    held = variables()
    start = values(held)
    optimizer = AdamW(0.1, frozen_steps=2)
    for step in range(3):
        apply(optimizer, held, gradients(step))
        moved = [bool(np.any(v != s)) for v, s in zip(values(held), start)]
        assert moved == ([False, False, True, True] if step < 2 else [True] * 4)


def test_gradients_are_clipped_after_they_are_gathered():
    whole, parts = variables(), variables()
    once = AdamW(1e-2, global_clipnorm=0.5)
    four = AdamW(1e-2, global_clipnorm=0.5, gradient_accumulation_steps=2)
    # Each alone is far over the limit; their mean is not, and has another direction than the sum of
    # what clipping leaves of each.
    low, high = gradients(0, 100.0), gradients(1, 0.5)
    apply(once, whole, [(-a + b + a + b) / 2 for a, b in zip(low, high)])
    apply(four, parts, [a + b for a, b in zip(low, high)])
    apply(four, parts, [b - a for a, b in zip(low, high)])
    for found, expected in zip(values(parts), values(whole)):
        np.testing.assert_allclose(found, expected, rtol=2e-4)


@pytest.mark.parametrize("batches", [None, 2])
def test_what_is_over_the_limit_is_scaled_down_to_it(batches):
    clipped, scaled = variables(), variables()
    given = gradients(0)
    norm = np.sqrt(sum(np.square(gradient).sum() for gradient in given))
    one = AdamW(
        1e-2, epsilon=0.1, global_clipnorm=float(norm) / 4, gradient_accumulation_steps=batches
    )
    for _ in range(batches or 1):
        apply(one, clipped, given)
    apply(AdamW(1e-2, epsilon=0.1), scaled, [gradient / 4 for gradient in given])
    for found, expected in zip(values(clipped), values(scaled)):
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_it_comes_back_from_its_config():
    optimizer = AdamW(
        WarmupCosine(1e-2, 6, 2), 0.01, 0.8, 0.99, 1e-6, layer_decay=0.8, frozen_steps=3,
        gradient_accumulation_steps=4, use_ema=True, ema_momentum=0.9, global_clipnorm=1.0,
    )  # fmt: skip
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
    assert again.get_config() == optimizer.get_config()
    assert again.get_config()["frozen_steps"] == 3


def test_a_saved_model_trains_on_in_another_process(tmp_path):
    """That has imported `keras_convnext` alone, from between the batches of an update."""
    inputs = np.random.default_rng(0).normal(size=(6, 4)).astype("f")
    targets = np.eye(2, dtype="f")[np.arange(6) % 2]
    options = {"layer_decay": 0.8, "use_ema": True, "gradient_accumulation_steps": 2}
    optimizers = {
        "scaled_adamw": LossScaleOptimizer(
            AdamW(WarmupCosine(1e-2, 3, 1), global_clipnorm=1.0, **options), initial_scale=8.0
        ),
        "muon": Muon(WarmupCosine(1e-2, 3, 1), **options),
    }
    expected = {}
    policy = keras.config.dtype_policy()
    for name, optimizer in optimizers.items():
        keras.utils.set_random_seed(0)
        keras.config.set_dtype_policy("mixed_bfloat16")
        try:
            model = keras.Sequential(
                [
                    keras.Input((4,)),
                    keras.layers.Dense(6, "gelu", name="downsample_1_conv"),  # a matrix to Muon
                    keras.layers.Dense(2, "softmax", name="head"),
                ]
            )
            model.compile(optimizer, "categorical_crossentropy")
            model.fit(inputs[:3], targets[:3], batch_size=1, verbose=0, shuffle=False)
            model.save(tmp_path / f"{name}.keras")
            model.fit(inputs[3:], targets[3:], batch_size=1, verbose=0, shuffle=False)
        finally:
            keras.config.set_dtype_policy(policy)
        assert {v.dtype for v in [*model.variables, *optimizer.variables]} <= {
            "float32", "int32", "int64",
        }  # fmt: skip
        expected[name] = values([*model.variables, *optimizer.variables])
    np.savez(tmp_path / "data.npz", inputs=inputs[3:], targets=targets[3:])

    script = Path(__file__).parent / "train_on.py"
    result = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        env={**os.environ, "KERAS_BACKEND": keras.config.backend()}, capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    for name, straight in expected.items():
        with np.load(tmp_path / f"{name}.npz") as resumed:
            assert len(resumed) == len(straight)
            for index, value in enumerate(straight):
                np.testing.assert_allclose(resumed[str(index)], value, 1e-6, 1e-7)


def test_fit_leaves_the_weights_that_it_goes_on_with():
    pixels, targets = np.ones((4, 8, 8, 3), "f"), np.eye(2, dtype="f")[[0, 1, 0, 1]]
    results = []
    for epochs in ((2,), (1, 1)):
        keras.utils.set_random_seed(0)
        model = ConvNeXt((1,), (4,), classes=2, input_shape=(8, 8, 3))
        model.compile(AdamW(1e-2, use_ema=True), "categorical_crossentropy")
        for count in epochs:
            model.fit(pixels, targets, epochs=count, verbose=0, shuffle=False)
        results.append(model.get_weights())
    for found, expected in zip(*results):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("batches", [1, 3])
def test_an_overflow_skips_the_whole_update_as_in_pytorch(batches):
    """The learning rate goes on and the average moves, but no step of Adam is counted."""
    schedule = WarmupCosine(4e-2, 8, 2)
    held = variables()
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=3)
    scaler.scale(torch.ones(()))  # creates the scale
    reference = in_torch(held, lambda update: float(schedule(update)), 0.7, scaler=scaler)
    inner = AdamW(
        schedule, layer_decay=0.7, use_ema=True, ema_momentum=0.9,
        gradient_accumulation_steps=batches if batches > 1 else None,
    )  # fmt: skip
    optimizer = LossScaleOptimizer(inner, initial_scale=8.0, dynamic_growth_steps=3)
    averages = values(held)
    for update in range(8):
        given = [gradients(batches * update + part, scaler.get_scale()) for part in range(batches)]
        if update in (0, 4):
            given[0][1][2] = np.inf
        for batch in given:
            apply(optimizer, held, batch)
        expected = reference(update, [np.mean(batch, axis=0) for batch in zip(*given)])
        averages = [0.9 * a + 0.1 * e for a, e in zip(averages, expected)]
        for found, value in zip(values(held) + values(inner.averages), expected + averages):
            np.testing.assert_allclose(found, value, 1e-5, 1e-7)
        assert float(optimizer.dynamic_scale) == scaler.get_scale()
        assert int(optimizer.iterations) == update + 1
    assert scaler.get_scale() == 8.0  # halved, doubled, halved, doubled


def test_loss_scaling_refuses_optimizers_that_cannot_skip_updates():
    with pytest.raises(ValueError, match=r"AdamW or Muon.*Received: inner_optimizer=.*SGD"):
        LossScaleOptimizer(keras.optimizers.SGD())
