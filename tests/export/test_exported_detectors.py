"""Detectors fused and exported: the same detections in every runtime, at any size."""

from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import keras_convnext
from keras_convnext.export import Artifact, ExportError, export, exporting, fuse, litert
from keras_convnext.export.detectors import compare_detections

GOLDEN = Path(__file__).parents[1] / "detection" / "golden"
SIZES = (64, 64), (32, 96), (62, 50), (33, 40)  # with fewer anchors than are decoded: no ties
CASES = [
    pytest.param(kind, name, marks=[pytest.mark.slow] * ((kind, name) != ("mask_rcnn", "onnx")))
    for kind in ("mask_rcnn", "cascade")
    for name in ("onnx", "saved_model", "openvino", "litert")
]


def detector(kind, **options):
    return keras_convnext.load_model(
        GOLDEN / f"{kind}.pth", **{"proposals": 50, "detections": 10, **options}
    )


def noise(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3)).astype("uint8")


@pytest.fixture(scope="module")
def mask_rcnn():
    return detector("mask_rcnn")


@pytest.fixture(scope="module")
def cascade():
    return detector("cascade_mask_rcnn")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for number, size in enumerate(SIZES):
        Image.fromarray(noise(size, number)).save(folder / f"{number}.png")
    return folder


@pytest.mark.parametrize("kind", ["mask_rcnn", pytest.param("cascade", marks=pytest.mark.slow)])
def test_fused_detectors_find_the_same(kind, request):
    model = request.getfixturevalue(kind)
    fused = fuse(model)
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 64, 96, 3)).astype("float32")
    inputs = {"images": pixels, "sizes": np.array([[60, 90], [64, 96]], "float32")}
    found, expected = fused(inputs), model(inputs)
    assert found.keys() == expected.keys()
    assert np.asarray(expected["num_detections"]).min() > 0
    for name in expected:
        np.testing.assert_allclose(np.asarray(found[name]), np.asarray(expected[name]), atol=1e-3)


@pytest.mark.parametrize(("kind", "format_name"), CASES)
def test_any_size_gives_the_same_detections(kind, format_name, photos, request, tmp_path):
    model, folder = request.getfixturevalue(kind), tmp_path / "out"
    difference = export(
        model, folder, format_name, size=64, names=list("abcde"), images=photos, pixels="uint8"
    )
    assert difference.error < 1e-4
    assert difference.same_top1 > 0.95
    assert difference.same_top5 is None
    artifact = Artifact(folder)
    compared = [
        compare_detections(model, artifact, [noise(size, number)])
        for number, size in enumerate(SIZES)
    ]
    assert all(same > 0.85 and count == 10 for _, same, count in compared)
    # Random weights have scores that are almost equal: in one image rounding may decide.
    assert sorted(error for error, *_ in compared)[-2] < 1e-4
    batch = np.stack([noise(SIZES[0], seed) for seed in (0, 1)])
    found = artifact(batch)
    assert found["masks"].shape == (2, 10, 28, 28)
    assert (found["labels"].dtype, found["num_detections"].dtype) == (np.int32, np.int32)
    for index in range(2):
        alone = artifact(batch[index : index + 1])
        for name in alone:
            np.testing.assert_allclose(found[name][index], alone[name][0], atol=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("format_name", ["saved_model", "onnx", "openvino"])
def test_half_precision_and_a_fixed_size_without_masks(format_name, photos, tmp_path):
    model = detector("mask_rcnn", masks=False, input_shape=(64, 96, 3))
    difference = export(
        model, tmp_path / "out", format_name, dtype="float16", names=list("abcde"), images=photos
    )
    assert difference.error < 1e-2
    found = Artifact(tmp_path / "out")(np.zeros((1, 64, 96, 3), "float32"))
    assert found.keys() == {"boxes", "labels", "scores", "num_detections"}


def test_litert_names_what_it_lacks():
    class Converter:
        def convert(self):
            raise RuntimeError("x.py:1: error: 'tf.Foo' op is neither a custom op nor a flex op")

    with pytest.raises(ValueError, match=r"export to saved_model, onnx or openvino.*tf\.Foo on"):
        litert._converted(Converter())


def test_a_picture_without_objects(photos, tmp_path):
    model = detector("mask_rcnn", masks=False, score_threshold=0.99)
    with pytest.raises(ValueError, match=r"finds no objects to compare.*Received: 4 images"):
        export(model, tmp_path / "out", "onnx", size=64, names=list("abcde"), images=photos)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="int8"):
        export(model, tmp_path / "out", "onnx", dtype="int8", images=photos)


def test_a_wrong_artifact_is_removed(mask_rcnn, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "compare", lambda *_: exporting.Difference(0.0, 0.9, None, 3))
    with pytest.raises(ExportError, match=r"90\.00% of the detections are the same"):
        export(mask_rcnn, tmp_path / "out", "onnx", size=64, names=list("abcde"), images=photos)


def test_other_detections_are_a_difference(mask_rcnn):
    image = noise(SIZES[0])
    padded = {"images": image[None].astype("float32"), "sizes": np.array([SIZES[0]], "float32")}
    found = {name: keras.ops.convert_to_numpy(x) for name, x in mask_rcnn(padded).items()}
    for name, change in (("boxes", 1), ("scores", 0.1), ("masks", 0.1)):
        changed = {**found, name: found[name] + change}
        error, same, count = compare_detections(
            mask_rcnn, lambda _, changed=changed: changed, [image]
        )
        assert (error > 5e-3, same > 0.5, count) == (True, True, 10), name
    changed = {**found, "labels": (found["labels"] + 1) % 5}
    error, same, _ = compare_detections(mask_rcnn, lambda _, changed=changed: changed, [image])
    assert error == float("inf")
    assert same < 1
