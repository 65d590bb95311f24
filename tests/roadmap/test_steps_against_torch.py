"""Each step of the road gives what an independent PyTorch network gives.

`test_battery` also runs this on the other backends.
"""

import numpy as np
import pytest
import torch
from battery import (
    BACKEND,
    TOLERANCE,
    array,
    assert_close,
    compute,
    loss_and_gradients,
    normalized,
    random,
)
from road_twins import CLASSES, PIXELS, in_keras, their_name, twin_of

from keras_convnext.roadmap.steps import STEPS

# One step for each part. JAX compiles each network for seconds.
FEW = ("resnet", "inverted", "kernel_5", "fewer_norms", "downsampling")


def steps(selected=STEPS):
    slow = [] if BACKEND != "jax" else [pytest.mark.slow]
    return [pytest.param(name, marks=[] if name in FEW else slow) for name in selected]


@pytest.mark.parametrize("step", steps())
@torch.no_grad()
def test_logits_equal_pytorch(step):
    model, reference = twin_of(step)
    assert_close(compute(model, PIXELS), reference(normalized(PIXELS)))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only the stem differs")
@pytest.mark.parametrize("step", ["resnet", "patchify", "convnext"])
@torch.no_grad()
def test_logits_with_a_stem_of_stride_2_equal_pytorch(step):
    model, reference = twin_of(step, stride=2)
    assert_close(compute(model, PIXELS), reference(normalized(PIXELS)))


@pytest.mark.parametrize("step", steps(["inverted", "layer_norm"]))
def test_gradients_of_a_training_step_equal_pytorch(step):
    model, reference = twin_of(step)
    factors = random(len(PIXELS), CLASSES)
    _, gradients = loss_and_gradients(model, PIXELS, factors, training=True)
    reference.train()
    (reference(normalized(PIXELS)) * torch.tensor(factors)).sum().backward()
    expected = {name: weight.grad for name, weight in reference.named_parameters()}
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        theirs = in_keras(expected[their_name(variable.path)], variable)
        # In front of a batch normalization, some gradients are 0 but for rounding.
        size = max(np.abs(theirs).max(), 1e-3 * largest)
        assert np.abs(array(gradient) - theirs).max() < 10 * TOLERANCE * size, variable.path


@pytest.mark.skipif(BACKEND == "jax", reason="compiles each operation")
def test_a_training_step_moves_the_statistics_by_a_tenth():
    model, reference = twin_of("resnet")
    before = {each.path: array(each) for each in model.non_trainable_variables}
    model(PIXELS, training=True)

    positions = {}  # values per channel, of which a batch normalization takes the statistics
    for name, module in reference.named_modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.register_forward_pre_hook(
                lambda _, inputs, name=name: positions.update({name: inputs[0][:, 0].numel()})
            )
    reference.train()
    reference(normalized(PIXELS))
    after = reference.state_dict()
    assert len(before) == 2 * len(positions)
    for path, was in before.items():
        name = their_name(path)
        expected = in_keras(after[name], was)
        if name.endswith("running_var"):
            # Of n values, PyTorch averages n / (n - 1) times the variance, and Keras the variance.
            count = positions[name.removesuffix(".running_var")]
            expected = 0.9 * was + (expected - 0.9 * was) * (count - 1) / count
        found = next(each for each in model.non_trainable_variables if each.path == path)
        assert_close(found, expected, what=path)
        assert np.abs(expected - was).max() > 1e-3, path
