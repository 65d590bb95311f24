"""Networks of the roadmap in other runtimes. `export` compares them with the live model."""

import keras
import numpy as np
import pytest

import keras_convnext
from keras_convnext import roadmap
from keras_convnext.export import export
from keras_convnext.roadmap.steps import REGIMES, Regime

TOY = Regime("toy", "A to B", 48, 4, ((2, 1), (1, 2)), (4, 8, 12), {}, 5)


@pytest.fixture(autouse=True)
def _toy(monkeypatch):
    monkeypatch.setitem(REGIMES, "toy", TOY)


def network(step, **options):
    model = roadmap.network(step, "toy", drop_path_rate=0.1, **options)
    generator = np.random.default_rng(0)
    for variable in model.weights:
        size = np.prod(variable.shape[:-1]) if len(variable.shape) > 1 else 25
        values = generator.normal(0, size**-0.5, tuple(variable.shape))
        positive = variable.name in ("gamma", "moving_variance")
        variable.assign(1 + np.abs(values) if positive else values)
    return model


@pytest.mark.parametrize(
    ("format", "step"),
    [
        ("onnx", "resnet"),  # padding, pooling, batch normalization
        ("onnx", "fewer_norms"),  # strided depthwise convolutions
        pytest.param("onnx", "downsampling", marks=pytest.mark.slow),
        ("saved_model", "resnet"),
        pytest.param("openvino", "fewer_norms", marks=pytest.mark.slow),
        pytest.param("litert", "resnet", marks=pytest.mark.slow),
        pytest.param("litert", "fewer_norms", marks=pytest.mark.slow),
    ],
)
def test_an_exported_step_gives_the_same(format, step, tmp_path):
    difference = export(network(step), tmp_path / "out", format)
    assert difference.error < 1e-5
    assert difference.same_top5 == 1


def test_features_and_normalized_pixels_are_refused(tmp_path):
    features = network("patchify", include_top=False, pooling="avg")
    with pytest.raises(ValueError, match="returns features, not classes"):
        export(features, tmp_path / "out")
    normalized = network("patchify", include_preprocessing=False)
    with pytest.raises(ValueError, match=r"must take pixels in 0\.\.255"):
        export(normalized, tmp_path / "out")


@pytest.mark.parametrize(
    "options",
    [
        {"strides": 2, "padding": "same"},
        {"dilation_rate": 2},
        {"groups": 2},
        {"activation": "relu"},
    ],
    ids=str,
)
def test_other_convolutions_are_refused_rather_than_written_wrong(options, tmp_path):
    trunk = keras_convnext.ConvNeXt((1,), (4,), include_top=False, input_shape=(32, 32, 3))
    x = keras.layers.Conv2D(4, 3, **options)(trunk.output)
    x = keras.layers.GlobalAveragePooling2D()(x)
    model = keras.Model(trunk.input, keras.layers.Dense(3, "softmax")(x))
    with pytest.raises(ValueError, match=r"Received: conv2d.*, a Conv2D"):
        export(model, tmp_path / "out", "onnx")
