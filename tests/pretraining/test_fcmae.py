"""The masked autoencoder: what is hidden is not seen, and the numbers of an independent one."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
import torch_fcmae

from keras_convnext import tensorflow_cpu
from keras_convnext.builders import _builder
from keras_convnext.normalization import IMAGENET
from keras_convnext.pretraining.input import hidden_patches, masked
from keras_convnext.pretraining.losses import HiddenPatches, images_of, normalized, patches_of
from keras_convnext.pretraining.network import MaskedBlock, autoencoder, encoded, trunk_for
from keras_convnext.pretraining.recipes import RECIPES
from keras_convnext.pretraining.settings import recipe_for
from keras_convnext.variants import Variant

DEPTHS, DIM, SIZE, STRIDE, CELLS = (1, 2), 8, 32, 8, 4
VARIANT = Variant("toy", DEPTHS, (DIM, 12), None, kernel_size=5, grn=True)
HIDDEN = np.array([
    [[0, 1, 1, 0], [1, 1, 0, 1], [1, 0, 1, 0], [0, 1, 1, 1]],
    [[1, 1, 1, 1], [0, 0, 1, 1], [1, 0, 0, 1], [0, 1, 0, 1]],
], np.float32)  # fmt: skip


def toy():
    trunk = _builder(VARIANT)(weights=None, include_top=False, input_shape=(SIZE, SIZE, 3))
    model = autoencoder(trunk, width=16, depth=1)
    for number, weight in enumerate(model.weights):
        values = np.random.default_rng(number).normal(size=weight.shape)
        if len(weight.shape) > 1:
            values *= np.prod(weight.shape[:-1]) ** -0.5
        else:
            values = 0.3 * values + ("norm/gamma" in weight.path)
        weight.assign(values)
    return trunk, model


@pytest.fixture(scope="module")
def networks():
    return toy()


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).uniform(0, 255, (2, SIZE, SIZE, 3)).astype("float32")


def enlarged(hidden, factor):
    return hidden.repeat(factor, 1).repeat(factor, 2)[..., None]


def inputs_of(pixels):
    return np.concatenate([pixels, enlarged(HIDDEN, STRIDE)], -1)


def targets_of(pixels):
    image = (tf.constant(pixels) / 255 - IMAGENET.mean) / IMAGENET.std
    return tf.concat([normalized(patches_of(image, STRIDE)), HIDDEN[..., None]], -1)


def test_visible_outputs_do_not_change_at_all_when_hidden_pixels_do(networks, pixels):
    trunk, _ = networks
    inputs = keras.Input((SIZE, SIZE, 4))
    encoder = keras.Model(inputs, encoded(trunk, inputs[..., :3], inputs[..., 3:]))
    mask = enlarged(HIDDEN, STRIDE)
    noise = np.random.default_rng(1).uniform(0, 255, pixels.shape).astype("float32")
    other = pixels * (1 - mask) + noise * mask
    (x, visible), (y, _) = (encoder(np.concatenate([each, mask], -1)) for each in (pixels, other))
    np.testing.assert_array_equal(visible[..., 0], 1 - HIDDEN)
    np.testing.assert_array_equal(x, y)
    assert np.abs(x).max() > 0.1
    np.testing.assert_array_equal(x.numpy()[HIDDEN == 1], 0)
    seen = pixels * mask + noise * (1 - mask)
    assert np.abs(encoder(np.concatenate([seen, mask], -1))[0] - x).max() > 0.1


def test_with_nothing_hidden_the_encoder_is_the_trunk(networks, pixels):
    trunk, _ = networks
    inputs = keras.Input((SIZE, SIZE, 4))
    encoder = keras.Model(inputs, encoded(trunk, inputs[..., :3], inputs[..., 3:])[0])
    found = encoder(np.concatenate([pixels, np.zeros((2, SIZE, SIZE, 1), "float32")], -1))
    expected = trunk(pixels).numpy()
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("eager", [True, False], ids=["eager", "graph"])
def test_loss_and_gradients_are_those_of_a_sparse_network_in_pytorch(networks, pixels, eager):
    _, model = networks
    inputs, targets = tf.constant(inputs_of(pixels)), tf.cast(targets_of(pixels), tf.float32)

    def step():
        with tf.GradientTape() as tape:
            loss = HiddenPatches()(targets, model(inputs, training=True))
        return loss, tape.gradient(loss, [weight.value for weight in model.trainable_weights])

    loss, gradients = step() if eager else tf.function(step)()

    weights = {
        weight.path: torch.tensor(weight.numpy(), dtype=torch.float64, requires_grad=True)
        for weight in model.trainable_weights
    }
    expected = torch_fcmae.loss(
        torch.tensor(pixels, dtype=torch.float64), HIDDEN, weights, DEPTHS, 4, 1,
        torch.tensor(IMAGENET.mean, dtype=torch.float64),
        torch.tensor(IMAGENET.std, dtype=torch.float64),
    )  # fmt: skip
    expected.backward()
    assert abs(float(loss) - expected.item()) < 1e-5 * expected.item()
    for weight, gradient in zip(model.trainable_weights, gradients, strict=True):
        theirs = weights[weight.path].grad.numpy()
        error = np.abs(gradient.numpy() - theirs).max()
        assert error < 1e-5 * max(np.abs(theirs).max(), 1e-3), weight.path


def test_training_has_the_fast_arithmetic_with_the_same_numbers(networks, pixels):
    _, model = networks
    inputs = tf.constant(inputs_of(pixels))
    (layer, *_) = (each for each in model.layers if isinstance(each, MaskedBlock))
    with pytest.MonkeyPatch.context() as patch:
        called = []
        own = tensorflow_cpu.masked
        patch.setattr(tensorflow_cpu, "masked", lambda *x: called.append(x[0]) or own(*x))
        fast = model(inputs, training=True).numpy()
    assert called[0] is layer
    assert len(called) == sum(DEPTHS)
    plain = model(inputs, training=False).numpy()
    assert np.abs(fast - plain).max() < 1e-5 * np.abs(plain).max()


def test_the_fast_arithmetic_needs_no_equal_number_of_visible_positions(networks):
    """With one image hidden altogether, and another one not at all."""
    _, model = networks
    layer = next(each for each in model.layers if isinstance(each, MaskedBlock))
    generator = np.random.default_rng(2)
    visible = generator.integers(0, 2, (4, 6, 5, 1)).astype("float32")
    visible[0], visible[1] = 0, 1
    x = tf.constant(generator.normal(size=(4, 6, 5, DIM)).astype("float32") * visible)
    upstream = generator.normal(size=x.shape).astype("float32")
    found = []
    for training in (True, False):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, visible, training=training)
            sources = [x, *(weight.value for weight in layer.block.trainable_weights)]
            loss = tf.reduce_sum(y * upstream)
        found.append([y, *tape.gradient(loss, sources)])
    for fast, plain in zip(*found, strict=True):
        assert np.abs(fast - plain).max() < 1e-5 * np.abs(plain).max()


def test_gradients_of_hidden_pixels_are_zero(networks, pixels):
    _, model = networks
    inputs = tf.constant(inputs_of(pixels))
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        loss = tf.reduce_sum(tf.square(model(inputs)))
    gradient = tape.gradient(loss, inputs).numpy()[..., :3]
    mask = enlarged(HIDDEN, STRIDE)[..., 0] == 1
    np.testing.assert_array_equal(gradient[mask], 0)
    assert np.isfinite(gradient).all()
    assert np.abs(gradient[~mask]).max() > 0


def test_patches_are_cut_row_by_row_and_put_together_again(pixels):
    cut = patches_of(tf.constant(pixels), STRIDE)
    assert cut.shape == (2, CELLS, CELLS, STRIDE**2 * 3)
    expected = pixels[1, STRIDE : 2 * STRIDE, 2 * STRIDE : 3 * STRIDE]
    np.testing.assert_array_equal(tf.reshape(cut[1, 1, 2], (STRIDE, STRIDE, 3)), expected)
    np.testing.assert_array_equal(images_of(cut, STRIDE), pixels)


def test_normalized_patches_have_pytorchs_unbiased_deviation(pixels):
    cut = patches_of(tf.constant(pixels), STRIDE)
    theirs = torch.tensor(cut.numpy())
    expected = (theirs - theirs.mean(-1, keepdim=True)) / (
        theirs.var(-1, keepdim=True) + 1e-6
    ).sqrt()
    np.testing.assert_allclose(normalized(cut), expected.numpy(), rtol=1e-4, atol=1e-5)


def test_masks_hide_the_published_number_of_patches():
    """19 of 49 patches are visible at 224 px, as int(49 * 0.4) says."""
    masks = [hidden_patches(tf.constant([0, seed]), 7, 0.6).numpy() for seed in range(40)]
    assert {mask.sum() for mask in masks} == {30}
    assert len({mask.tobytes() for mask in masks}) == 40
    assert 0.3 < np.mean(masks, 0).min() < np.mean(masks, 0).max() < 0.9
    again = hidden_patches(tf.constant([0, 3]), 7, 0.6).numpy()
    np.testing.assert_array_equal(again, masks[3])


def test_pixels_and_patches_have_the_same_mask():
    recipe = recipe_for("pretrain_small", "convnextv2_cifar")
    image = tf.constant(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))
    inputs, targets = masked(image, tf.constant([1, 2]), recipe, stride=4)
    np.testing.assert_array_equal(inputs[..., :3], tf.cast(image, tf.float32))
    assert inputs.shape == (32, 32, 4)
    assert targets.shape == (8, 8, 4 * 4 * 3 + 1)
    np.testing.assert_array_equal(targets[..., -1], inputs[::4, ::4, 3])
    coarse = inputs.numpy()[::8, ::8, 3]
    np.testing.assert_array_equal(inputs[..., 3], coarse.repeat(8, 0).repeat(8, 1))
    assert coarse.sum() == 16 - int(16 * 0.4)


@pytest.mark.parametrize(
    ("model", "settings", "told"),
    [
        ("convnext_tiny", {}, "model must be one of convnextv2_atto"),
        ("convnextv2_tiny", {"patch": 48}, "multiple of 32 px.*patch=48"),
        ("convnextv2_tiny", {"size": 200}, "divide the size.*size=200"),
        ("convnextv2_tiny", {"size": 32}, "Some patches must be visible"),
        ("convnextv2_tiny", {"ratio": 1.0}, "ratio must be a number above 0 and below 1"),
    ],
)
def test_what_cannot_be_masked_is_refused(model, settings, told):
    with pytest.raises(ValueError, match=told):
        recipe_for("fcmae", model, settings)


def test_the_published_recipe():
    """Table 8, and TRAINING.md: 1.5e-4 for a batch of 256."""
    recipe = recipe_for("fcmae", "convnextv2_huge")
    assert recipe.optimizer.learning_rate == pytest.approx(1.5e-4 * 4096 / 256)
    assert (recipe.optimizer.beta_2, recipe.optimizer.weight_decay) == (0.95, 0.05)
    assert (recipe.schedule.epochs, recipe.schedule.warmup_epochs) == (1600, 40)
    assert (recipe.masking.ratio, recipe.masking.patch, recipe.input.size) == (0.6, 32, 224)
    assert recipe.input.crop_scale == (0.2, 1.0)
    for family in RECIPES.values():
        batch = family.recipe.batch
        assert batch.batch_size % (batch.devices * batch.device_batch) == 0


def test_a_network_of_another_kind_is_refused():
    with pytest.raises(ValueError, match=r"model must be one of .*convnext_atto"):
        trunk_for("convnext_atto", 64)
