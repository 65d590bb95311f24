"""Detectors of rotated boxes fused and exported: the same boxes before suppression."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import keras_convnext
from keras_convnext.detection import RotatedRetinaNet
from keras_convnext.export import Artifact, export
from keras_convnext.export.rotated import compare_rotated

GOLDEN = Path(__file__).parents[1] / "detection" / "golden"
SIZES = (96, 128), (64, 160), (33, 40)
CASES = [
    (regression, name)
    for regression in ("direct", "expectation")
    for name in ("onnx", "saved_model", "openvino")
]


def noise(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype("uint8")


def detector(regression):
    if regression == "direct":
        return keras_convnext.load_model(GOLDEN / "rotated_retinanet.pth")
    trunk = keras_convnext.ConvNeXt(
        depths=(1, 1, 1, 1), dims=(8, 8, 16, 16), include_top=False, input_shape=(None, None, 3)
    )
    model = RotatedRetinaNet(trunk, classes=5, channels=8)
    random = np.random.default_rng(0)
    for weight in model.weights:
        scale = 0.3 if len(weight.shape) < 2 else np.prod(weight.shape[:-1]) ** -0.5
        weight.assign(weight + random.normal(0, scale, weight.shape))
    return model


@pytest.mark.slow
@pytest.mark.parametrize(("regression", "format_name"), CASES)
def test_any_size_gives_the_same_boxes(regression, format_name, tmp_path):
    for number, size in enumerate(SIZES):
        Image.fromarray(noise(size, number)).save(tmp_path / f"{number}.png")
    model, folder = detector(regression), tmp_path / "out"
    difference = export(model, folder, format_name, size=64, images=tmp_path, pixels="uint8")
    assert difference.error < 1e-4
    assert difference.same_top1 > 0.99
    artifact = Artifact(folder)
    images = [noise(size, number) for number, size in enumerate(SIZES)]
    error, same, count = compare_rotated(model, artifact, images)
    assert (error < 1e-4, same > 0.99, count > 100) == (True, True, True)
    found = artifact(images[0][None])
    assert found.keys() == {"boxes", "scores"}
    changed = {**found, "boxes": found["boxes"] + np.float32([0, 0, 0, 0, 0.2])}
    assert compare_rotated(model, lambda _: changed, images[:1])[1] < 0.5
