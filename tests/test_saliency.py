import keras
import numpy as np
import pytest
from color_network import one_class_a_color

import keras_convnext
from keras_convnext.block import Block
from keras_convnext.export import fuse
from keras_convnext.saliency import grad_cam, overlay

NETWORKS = {
    "hierarchical": lambda: keras_convnext.ConvNeXt(
        (1, 2), (8, 16), classes=5, input_shape=(64, 96, 3)
    ),
    "isotropic": lambda: keras_convnext.ConvNeXtIsotropic(
        2, 16, classes=5, input_shape=(64, 96, 3)
    ),
}


def randomized(model):
    """Draws all weights, so that no gain is 1, no shift 0, and every block counts."""
    draw = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(draw.normal(0.5 if weight.name == "gamma" else 0, 0.3, weight.shape))
    return model


def pixels(*shape):
    return np.random.default_rng(1).integers(0, 256, shape, "uint8")


def differentiated(model, images, classes):
    """Grad-CAM as the paper writes it: the whole gradient, averaged over the map."""
    import tensorflow as tf

    last = [layer for layer in model.layers if isinstance(layer, Block)][-1]
    network = keras.Model(model.input, [last.output, model.get_layer("head").output])
    with tf.GradientTape() as tape:
        maps, logits = network(images.astype("float32"))
        asked = tf.gather(logits, classes, batch_dims=1)
    weights = tf.reduce_mean(tape.gradient(asked, maps), axis=(1, 2))
    heat = tf.nn.relu(tf.einsum("nhwc,nc->nhw", maps, weights))
    heat = tf.image.resize(heat[..., None], images.shape[1:3])[..., 0].numpy()
    return heat / heat.max(axis=(1, 2), keepdims=True)


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("made", [lambda model: model, fuse], ids=["plain", "fused"])
def test_it_is_what_automatic_differentiation_gives(kind, made):
    model, images = randomized(NETWORKS[kind]()), pixels(3, 64, 96, 3)
    heat = grad_cam(made(model), images, [4, 0, 2])
    assert heat.shape == (3, 64, 96)
    assert heat.dtype == np.float32
    expected = differentiated(model, images, [4, 0, 2])
    assert (expected == 0).any()
    np.testing.assert_allclose(heat, expected, atol=1e-5)


def test_the_class_is_the_most_probable_unless_another_is_asked_for():
    model, images = randomized(NETWORKS["hierarchical"]()), pixels(3, 64, 96, 3)
    best = model.predict(images, verbose=0).argmax(axis=1)
    default = grad_cam(model, images)
    np.testing.assert_array_equal(default, grad_cam(model, images, best))
    assert np.abs(default - grad_cam(model, images, (best + 1) % 5)).max() > 0.1


@pytest.mark.parametrize("color", range(3))
@pytest.mark.parametrize("quadrant", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_the_quadrant_that_speaks_for_a_class_is_the_hot_one(color, quadrant):
    image = np.full((1, 64, 64, 3), 60, "uint8")
    image[0, 32 * quadrant[0] :, 32 * quadrant[1] :][:32, :32, color] = 250
    (heat,) = grad_cam(one_class_a_color(), image, [color])
    parts = heat.reshape(2, 32, 2, 32).mean(axis=(1, 3))
    assert parts[quadrant] > 0.7
    assert heat.max() == 1
    others = np.delete(parts.ravel(), 2 * quadrant[0] + quadrant[1])
    assert (others < 0.3).all()


def test_where_nothing_speaks_for_a_class_there_is_no_heat():
    model = one_class_a_color()
    model.get_layer("head").set_weights([np.zeros((3, 3)), np.zeros(3)])
    assert grad_cam(model, pixels(2, 64, 64, 3)).max() == 0


def test_gray_images_and_half_precision_give_heat_too():
    gray = keras_convnext.ConvNeXt((1, 1), (8, 16), classes=2, input_shape=(None, None, 1))
    heat = grad_cam(randomized(gray), pixels(1, 40, 72, 1), [1])
    assert heat.shape == (1, 40, 72)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        half = NETWORKS["hierarchical"]()
    finally:
        keras.config.set_dtype_policy("float32")
    images = pixels(1, 64, 96, 3)
    expected = grad_cam(randomized(NETWORKS["hierarchical"]()), images, [3])
    heat = grad_cam(randomized(half), images, [3])
    assert heat.dtype == np.float32
    assert np.corrcoef(heat.ravel(), expected.ravel())[0, 1] > 0.99


def test_what_it_cannot_explain_is_told():
    model = NETWORKS["hierarchical"]()
    trunk = keras_convnext.ConvNeXt((1, 1), (8, 16), include_top=False, pooling="avg")
    with pytest.raises(ValueError, match=r"include_top=True.*Received: .*ends in norm"):
        grad_cam(trunk, pixels(1, 64, 64, 3))
    with pytest.raises(ValueError, match=r"Received: shape \(64, 96, 3\)"):
        grad_cam(model, pixels(64, 96, 3))
    for classes in ([5], [-1], [0, 1], 0):
        with pytest.raises(ValueError, match=r"from 0 to 4 for each of the 1 images"):
            grad_cam(model, pixels(1, 64, 96, 3), classes)


def test_heat_is_painted_over_the_photograph():
    image = np.full((40, 60, 3), 128, "uint8")
    heat = np.zeros((40, 60))
    heat[:, :20], heat[:, 20:40] = 1, 0.5
    painted = np.asarray(overlay(image, heat)).astype(int)
    assert painted.shape == (40, 60, 3)
    assert (painted[20, 55] == 128).all()
    hot, warm = painted[20, 5], painted[20, 30]
    assert hot[0] > warm[0] > 128
    assert hot[1] > 200 > warm[1]


def test_heat_is_scaled_to_a_larger_and_to_a_gray_photograph():
    heat = np.zeros((2, 3))
    heat[0, 0] = 1
    painted = np.asarray(overlay(np.zeros((40, 60, 1), "uint8"), heat))
    assert painted.shape == (40, 60, 3)
    assert painted[2, 2].sum() > 300
    assert painted[-1, -1].sum() == 0
    with pytest.raises(ValueError, match=r"Received: shapes \(40, 60\) and \(2, 3\)"):
        overlay(np.zeros((40, 60), "uint8"), heat)
