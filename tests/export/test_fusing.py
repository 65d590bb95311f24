"""The fused network gives the same numbers, on random weights that all count."""

import re

import keras
import numpy as np
import pytest
from test_builders import images, policy, toy  # noqa: F401  (policy is a fixture)
from test_parity import FAST, TOLERANCE, relative_error

import keras_convnext
from keras_convnext.block import Block
from keras_convnext.builders import BUILDERS
from keras_convnext.export import fuse


def is_layer_scale(weight):
    return re.search(r"blocks_\d+/gamma", weight.path)


def randomize(model):
    """Layer scales of order 0.3, norms other than 1 and 0, biases other than 0."""
    generator = np.random.default_rng(0)
    for weight in model.weights:
        values = generator.standard_normal(weight.shape).astype("float32")
        if len(weight.shape) > 1:
            values /= np.sqrt(np.prod(weight.shape[:-1]))
        elif is_layer_scale(weight):
            values *= 0.3
        else:
            values = 0.3 * values + (weight.name == "gamma")
        weight.assign(values)
    return model


def isotropic(**options):
    return keras_convnext.ConvNeXtIsotropic(
        2, 16, **{"patch_size": 8, "classes": 5, "input_shape": (32, 32, 3), **options}
    )


def outputs(model, pixels):
    return [np.asarray(output) for output in keras.tree.flatten(model(pixels))]


def assert_same_outputs(fused, model, pixels):
    for ours, theirs in zip(outputs(fused, pixels), outputs(model, pixels), strict=True):
        assert ours.dtype == theirs.dtype
        assert relative_error(ours, theirs) < TOLERANCE


OPTIONS = [
    {},
    {"classifier_activation": None},
    {"classifier_activation": lambda logits: 2 * logits},
    {"drop_path_rate": 0.3},
    {"remat": True},
    {"layer_scale_init_value": None},
    {"include_preprocessing": False},
    {"include_top": False},
    {"include_top": False, "include_preprocessing": False, "layer_scale_init_value": None},
    {"include_top": False, "pooling": "avg"},
    {"include_top": False, "pooling": "max"},
    {"input_shape": (None, None, 3)},
    {"input_shape": (40, None, 3)},
    {"input_shape": (32, 32, 1)},
    {"input_shape": (32, 32, 5)},
    {"patch_size": 2, "classes": 21},
    {"kernel_size": 3},
]


def networks():
    """Both structures with each of the options; those of the stem or head are slow in one."""
    for options in OPTIONS:
        name = ",".join(options) or "plain"
        yield pytest.param(toy, options, id=f"{name}-toy")
        is_slow = options.keys() & {"input_shape", "classifier_activation", "drop_path_rate"}
        marks = [pytest.mark.slow] if is_slow else []
        yield pytest.param(isotropic, options, marks=marks, id=f"{name}-isotropic")


@pytest.mark.parametrize(("builder", "options"), list(networks()))
def test_the_outputs_are_the_same(builder, options):
    if builder is isotropic and "patch_size" not in options:
        options = {"layer_scale_init_value": 0.1, **options}
    model = randomize(builder(**options))
    height, _, channels = model.input_shape[1:]
    pixels = images(3, height or 37, 41 if model.input_shape[2] is None else 32, channels)
    fused = fuse(model)
    assert fused.name == model.name
    assert fused.input_shape == model.input_shape
    assert fused.output_shape == model.output_shape
    assert_same_outputs(fused, model, pixels)


def test_only_what_cannot_be_folded_is_left():
    fused, model = fuse(toy(drop_path_rate=0.3)), toy()
    names = {layer.name for layer in model.layers}
    assert {layer.name for layer in fused.layers} == names - {"normalization"}
    paths = {weight.path for weight in model.weights}
    gone = {path for path in paths if re.search("(norm|blocks_.)/(gamma|beta)$", path)}
    assert {weight.path for weight in fused.weights} == paths - gone | {
        "stem_norm/gamma",
        "stem_norm/beta",
    }
    assert not any(block.drop_path.rate for block in fused.layers if isinstance(block, Block))


def test_the_norm_of_features_without_a_head_keeps_its_weights():
    fused = fuse(toy(include_top=False, pooling="avg"))
    assert len(fused.get_layer("norm").weights) == 2


def test_the_model_that_is_fused_stays_as_it_is():
    model = randomize(toy(drop_path_rate=0.3))
    model.compile("sgd", "sparse_categorical_crossentropy")
    pixels, config, weights = images(2, 32, 32, 3), model.get_config(), model.get_weights()
    before = model.predict(pixels, verbose=0)
    fused = fuse(model)
    for weight in fused.weights:
        weight.assign(weight + 1)
    assert model.get_config() == config
    for now, then in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(now, then)
    np.testing.assert_array_equal(model.predict(pixels, verbose=0), before)
    assert model.compiled
    assert not fused.compiled


def test_maps_and_features_that_are_outputs_stay_right():
    model = randomize(toy())
    names = ("normalization", "stages_0_blocks_0", "downsample_1_norm", "norm")
    inspected = {name: model.get_layer(name).output for name in names}
    inspected |= keras_convnext.pyramid_features(model)(model.input)
    inspected = keras.Model(model.input, inspected | {"predictions": model.output})
    assert_same_outputs(fuse(inspected), inspected, images(2, 32, 32, 3))


def test_a_pyramid_can_be_fused():
    pyramid = keras_convnext.pyramid_features(randomize(toy(include_top=False)))
    fused = fuse(pyramid)
    assert fused.output.keys() == pyramid.output.keys()
    assert_same_outputs(fused, pyramid, images(2, 32, 32, 3))


@pytest.mark.parametrize("name", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_keeps_pixels_and_layer_scale_in_float32(policy, name):  # noqa: F811
    policy(name)
    model = randomize(toy(classifier_activation=None))
    for weight in model.weights:
        if is_layer_scale(weight):
            weight.assign(weight * 1e-7)
    policy("float32")
    fused = fuse(model)
    assert fused.get_layer("normalization").compute_dtype == "float32"
    block = fused.get_layer("stages_1_blocks_0")
    assert block.gamma.dtype == "float32"
    assert block.norm.weights == []
    (ours,), (theirs,) = (outputs(m, images(2, 32, 32, 3)) for m in (fused, model))
    assert ours.dtype == theirs.dtype
    assert relative_error(ours, theirs) < {"mixed_float16": 0.005, "mixed_bfloat16": 0.04}[name]


def test_a_keras_file_and_a_saved_model_give_the_same(tmp_path):
    import tensorflow as tf

    fused = fuse(randomize(toy(input_shape=(None, None, 3))))
    pixels = images(2, 40, 32, 3)
    expected = fused.predict(pixels, verbose=0)
    fused.save(tmp_path / "fused.keras")
    again = keras.models.load_model(tmp_path / "fused.keras")
    fused.export(tmp_path / "saved_model", verbose=False)
    saved_model = tf.saved_model.load(tmp_path / "saved_model")
    for found in (again(pixels), saved_model.serve(pixels), fused(pixels)):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


def test_what_is_no_network_or_fused_already_is_refused():
    with pytest.raises(ValueError, match=r"no ConvNeXt.*Received: other with the layers dense"):
        fuse(
            keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="dense")], name="other")
        )
    with pytest.raises(ValueError, match="already fused"):
        fuse(fuse(toy()))


def variants():
    for name in BUILDERS:
        marks = [] if name == "convnext_cifar" else [pytest.mark.slow]
        yield pytest.param(name, marks=marks)


@pytest.mark.parametrize("name", list(variants()))
def test_published_networks_give_the_same(name):
    model = randomize(BUILDERS[name](weights=None, classifier_activation=None))
    pixels = images(2 if name in FAST else 1, *model.input_shape[1:])
    assert_same_outputs(fuse(model), model, pixels)
