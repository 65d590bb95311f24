"""The differences from `keras.applications` that docs/coming_from_keras_applications.md lists."""

import inspect

import keras
import numpy as np
import pytest
from keras.src.applications.convnext import ConvNeXt as Theirs

import keras_convnext

DEPTHS, DIMS = (1, 1, 1, 1), (8, 16, 24, 32)
IMAGES = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")


def theirs(**options):
    return Theirs(DEPTHS, DIMS, name="net", **{"input_shape": (64, 64, 3), **options})


def ours(**options):
    return keras_convnext.ConvNeXt(DEPTHS, DIMS, **{"input_shape": (64, 64, 3), **options})


def is_normalized(features):
    return np.abs(np.asarray(features).mean(-1)).max() < 1e-3


def test_arguments_are_theirs_in_their_order():
    own = list(inspect.signature(keras_convnext.ConvNeXtTiny).parameters)
    of_theirs = list(inspect.signature(keras.applications.ConvNeXtTiny).parameters)
    assert own[: len(of_theirs)] == of_theirs
    assert "drop_path_rate" in own
    assert "drop_path_rate" not in of_theirs


def test_weights_of_other_classes_and_sizes(tmp_path):
    path = tmp_path / "x.weights.h5"
    ours(classes=7).save_weights(path)
    with pytest.warns(UserWarning, match="7 classes, but the model has 3"):
        model = ours(weights=path, classes=3, input_shape=(96, 64, 4))
    assert model.output_shape == (None, 3)
    with pytest.raises(ValueError, match="should be 1000"):
        keras.applications.ConvNeXtTiny(weights="imagenet", classes=3)
    with pytest.raises(ValueError, match="224"):
        keras.applications.ConvNeXtTiny(weights="imagenet", input_shape=(64, 64, 3))


@pytest.mark.parametrize("pooling", [None, "avg", "max"])
def test_features_without_the_top(pooling):
    options = {"include_top": False, "pooling": pooling}
    assert is_normalized(theirs(**options)(IMAGES))
    assert is_normalized(ours(**options)(IMAGES)) == (pooling is not None)


def test_channels():
    assert "net_prestem_normalization" not in {
        layer.name for layer in theirs(input_shape=(64, 64, 4), include_top=False).layers
    }
    assert ours(input_shape=(64, 64, 4)).get_layer("normalization")


def test_an_input_tensor():
    image = keras.layers.Rescaling(2.0)(keras.Input((64, 64, 3)))
    assert ours(input_tensor=image).input_shape == theirs(input_tensor=image).input_shape


def test_names_of_layers():
    assert theirs().get_layer("net_stage_2_block_0_depthwise_conv")
    assert ours().get_layer("stages_2_blocks_0")
    assert ours(name="left").get_layer("left_stages_2_blocks_0")


def test_logits_are_those_of_the_layer_head():
    model = ours(classes=5)
    logits = keras.Model(model.input, model.get_layer("head").output)(IMAGES)
    np.testing.assert_allclose(keras.ops.softmax(logits), model(IMAGES), rtol=1e-5)


def test_preprocess_input_returns_its_input():
    assert keras_convnext.preprocess_input(IMAGES) is IMAGES
    assert keras.applications.convnext.preprocess_input(IMAGES) is IMAGES


def test_predictions_are_decoded_without_a_download():
    ((wnid, name, score),) = keras_convnext.decode_predictions(np.eye(1000)[:1], top=1)[0]
    assert (wnid, name, score) == ("n01440764", "tench", 1.0)


def test_probabilities_in_mixed_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        assert ours().output.dtype == "float32"
        assert theirs().output.dtype == "bfloat16"
    finally:
        keras.config.set_dtype_policy(before)
