"""Segmenters fused and exported: the same logits and classes in every runtime, at any size."""

from pathlib import Path

import keras
import numpy as np
import pytest
from artifacts import PROGRAMS, images, logits_elsewhere
from PIL import Image
from test_parity import relative_error

import keras_convnext
from keras_convnext.export import Artifact, ExportError, export, exporting, fuse
from keras_convnext.export.served import served_network
from keras_convnext.segmentation import UperNet, predict_classes, predict_files
from keras_convnext.segmentation.prediction import Windows

CHECKPOINT = Path(__file__).parents[1] / "segmentation" / "golden" / "upernet.pth"
FORMATS = [
    name if name in ("onnx", "saved_model") else pytest.param(name, marks=pytest.mark.slow)
    for name in PROGRAMS
]


@pytest.fixture(scope="module")
def model():
    return keras_convnext.load_model(CHECKPOINT)


@pytest.fixture(scope="module")
def logits(model):
    return keras.Model(model.input, model.layers[-1].input)


def test_batch_norms_and_the_auxiliary_head_are_folded_away(model, logits):
    fused = fuse(model)
    names = {layer.name for layer in fused.layers}
    assert not any(isinstance(x, keras.layers.BatchNormalization) for x in fused.layers)
    assert not any(name.startswith("auxiliary") for name in names)
    assert {"fpn_bottleneck_conv", "psp_0_conv", "norm_0"} <= names
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 33, 47, 3)).astype("float32")
    found = fuse(logits)(pixels)
    assert relative_error(np.asarray(found), np.asarray(logits(pixels))) < 1e-5
    np.testing.assert_allclose(np.asarray(fused(pixels)).sum(-1), 1, rtol=1e-5)


def test_a_batch_norm_with_another_consumer_stays():
    image = keras.Input((None, None, 3))
    x = keras_convnext.ConvNeXt((1,), (8,), include_top=False, input_shape=(None, None, 3))(image)
    convolved = keras.layers.Conv2D(4, 3, padding="same", use_bias=False)(x)
    normed = keras.layers.BatchNormalization()(convolved)
    normed = keras.layers.Conv2D(4, 1)(keras.layers.BatchNormalization()(normed))
    built = keras.Model(image, keras.layers.Add()([normed, convolved]))
    for layer in built.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_mean.assign([1, 2, 3, 4])
            layer.moving_variance.assign([0.5, 2, 3, 4])
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    fused = fuse(built)
    assert relative_error(np.asarray(fused(pixels)), np.asarray(built(pixels))) < 1e-5
    assert sum(isinstance(x, keras.layers.BatchNormalization) for x in fused.layers) == 2


def test_a_model_of_class_maps_is_served_and_read_like_one_of_probabilities(model, tmp_path):
    trunk = keras_convnext.ConvNeXt(
        (1, 1, 2, 1), (8, 16, 24, 32), include_top=False, input_shape=(None, None, 3), weights=None
    )
    mapped = UperNet(trunk, weights=CHECKPOINT, channels=16, class_map=True)
    pixels = images(1, 48).astype("float32")
    served, expected = served_network(mapped)(pixels), served_network(model)(pixels)
    assert served.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(served[name], value)
    np.testing.assert_array_equal(mapped(pixels), expected["classes"])
    np.testing.assert_array_equal(fuse(mapped)(pixels), expected["classes"])
    np.testing.assert_array_equal(predict_classes(mapped, pixels[0]), expected["classes"][0])
    Image.fromarray(pixels[0].astype("uint8")).save(tmp_path / "x.png")
    (found,) = predict_files(mapped, [tmp_path / "x.png"], list("abcde"), Windows(scale=None))
    np.testing.assert_array_equal(found.classes, expected["classes"][0])


@pytest.mark.parametrize("name", FORMATS)
def test_any_size_gives_the_same_classes(model, logits, name, tmp_path):
    folder = tmp_path / "out"
    difference = export(model, folder, name, size=64, names=list("abcde"))
    assert difference.error < 1e-4
    assert (difference.same_top1, difference.same_top5) == (1, None)
    artifact = Artifact(folder)
    for number, height, width in ((1, 64, 64), (2, 33, 47), (1, 65, 96)):
        pixels = images(number, 96)[:, :height, :width].astype("float32")
        expected, found = np.asarray(logits(pixels)), artifact(pixels)
        assert relative_error(found["logits"], expected) < 1e-4
        assert found["classes"].dtype == np.int32
        assert (found["classes"] == expected.argmax(-1)).mean() > 0.999
    elsewhere = logits_elsewhere(name, {folder: pixels})
    assert relative_error(elsewhere[folder], expected) < 1e-4


def test_int8_that_litert_cannot_run_is_refused(model, tmp_path):
    with pytest.raises(ValueError, match=r"segmenters in int8: use dtype=float16.*Received"):
        export(model, tmp_path / "out", "litert", dtype="int8", images=tmp_path)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["litert", pytest.param("openvino", marks=pytest.mark.slow)])
def test_a_fixed_size(name, tmp_path):
    model = keras_convnext.load_model(CHECKPOINT, input_shape=(96, 64, 3))
    difference = export(model, tmp_path / "out", name)
    assert difference.error < 1e-4
    assert Artifact(tmp_path / "out").image_size == (96, 64)


def test_a_wrong_artifact_is_removed(model, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "compare", lambda *_: exporting.Difference(0.0, 0.9985, None, 3))
    with pytest.raises(ExportError, match=r"99\.85% of the pixels have the same class"):
        export(model, tmp_path / "out", "onnx", size=64)
    assert not (tmp_path / "out").exists()
