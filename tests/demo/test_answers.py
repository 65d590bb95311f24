import json
from pathlib import Path

import numpy as np
import pytest
from bad_uploads import REFUSED, encoded, png_of
from color_network import COLORS, one_class_a_color
from PIL import Image

import keras_convnext
from keras_convnext.demo import decoder
from keras_convnext.demo.answers import (
    Classifier,
    answer,
    classifier_of,
    network_of_artifact,
    segmenter_of,
)
from keras_convnext.demo.decoder import UploadError
from keras_convnext.export import export
from keras_convnext.preprocessing import load_image
from keras_convnext.saliency import grad_cam, overlay

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
SEGMENTER = Path(__file__).parents[1] / "segmentation" / "golden" / "upernet.pth"
SCORES = np.array([0.05, 0.1, 0.5, 0.05, 0.3], "float32")
NAMES = ("crane", "tiger_cat", "crane", "bald eagle", "kite")
PEAK = Path("/proc/self/clear_refs")


class Asked:
    """Answers `SCORES` to everything, and keeps what it was asked."""

    def classify(self, pixels):
        self.pixels = pixels
        return np.tile(SCORES, (len(pixels), 1))

    def heat(self, pixels, classes):
        self.classes = list(classes)
        heat = np.zeros(pixels.shape[:3], "float32")
        heat[:, : pixels.shape[1] // 2] = 1
        return heat


def test_the_most_probable_classes_come_first_by_names_of_their_own():
    found = answer(Classifier(Asked().classify, 64, NAMES), PHOTOS / "cat.jpg", top=4)
    expected = {"crane (class 2)": 0.5, "kite": 0.3, "tiger cat": 0.1, "crane (class 0)": 0.05}
    assert list(found.labels) == list(expected)
    assert found.labels == pytest.approx(expected)
    assert found.where is None
    assert found.seconds > 0


@pytest.mark.parametrize(("least", "flagged"), [(None, False), (0.49, False), (0.51, True)])
def test_what_is_improbable_is_none_of_the_classes(least, flagged):
    classifier = Classifier(Asked().classify, 64, NAMES, least_probability=least)
    assert answer(classifier, PHOTOS / "cat.jpg").none_of_these == flagged


@pytest.mark.parametrize("size", [32, 224, 384])
def test_the_picture_is_prepared_by_the_published_rule_and_shown_as_it_was_seen(size):
    asked = Asked()
    found = answer(Classifier(asked.classify, size, NAMES, asked.heat), PHOTOS / "rocket.jpg")
    pixels = load_image(PHOTOS / "rocket.jpg", size)
    assert asked.pixels.dtype == np.uint8
    np.testing.assert_array_equal(asked.pixels, pixels[None])
    seen = np.asarray(found.seen)
    times = {32: 12, 224: 1, 384: 1}[size]
    assert seen.shape == (size * times, size * times, 3)
    np.testing.assert_array_equal(seen[times // 2 :: times, times // 2 :: times], pixels)


@pytest.mark.parametrize(("size", "shown"), [(32, 383), (224, 224), (384, 384)])
def test_the_heat_of_the_first_class_is_on_a_sharp_picture(size, shown):
    asked = Asked()
    found = answer(Classifier(asked.classify, size, NAMES, asked.heat), PHOTOS / "rocket.jpg")
    assert asked.classes == [2]
    sharp = load_image(PHOTOS / "rocket.jpg", shown)
    expected = overlay(sharp, asked.heat(asked.pixels, [2])[0])
    np.testing.assert_array_equal(np.asarray(found.where), np.asarray(expected))


def test_a_live_network_gives_its_probabilities_and_grad_cam(tmp_path):
    model = one_class_a_color()
    Image.new("RGB", (90, 70), (250, 60, 80)).save(tmp_path / "red.png")
    pixels = load_image(tmp_path / "red.png", 64)[None]
    classifier = classifier_of(model, [("", "red"), ("", "green"), ("", "blue")])
    (scores,) = model.predict(pixels, verbose=0)
    labels = answer(classifier, tmp_path / "red.png").labels
    assert list(labels) == ["red", "blue", "green"]
    assert labels["red"] == pytest.approx(scores[0], rel=1e-5)
    np.testing.assert_array_equal(classifier.saliency(pixels, [2]), grad_cam(model, pixels, [2]))
    assert list(classifier_of(model).names) == ["class 0", "class 1", "class 2"]
    assert classifier_of(model).least_probability is None
    assert classifier_of(model, least_probability=0.7).least_probability == 0.7


def test_an_artifact_gives_the_same_probabilities_and_no_heat(tmp_path):
    pytest.importorskip("onnxruntime")
    model = one_class_a_color()
    export(model, tmp_path / "artifact", "onnx", names=COLORS)
    Image.new("RGB", (90, 70), (30, 200, 60)).save(tmp_path / "green.png")
    (scores,) = model.predict(load_image(tmp_path / "green.png", 64)[None], verbose=0)
    found = answer(network_of_artifact(tmp_path / "artifact"), tmp_path / "green.png")
    assert next(iter(found.labels)) == "green"
    assert found.labels == pytest.approx(dict(zip(COLORS, scores.tolist())), rel=1e-4)
    assert found.where is None


@pytest.mark.slow
def test_an_exported_segmenter_shows_the_same_classes(tmp_path):
    pytest.importorskip("onnxruntime")
    model = keras_convnext.load_model(SEGMENTER)
    export(model, tmp_path / "artifact", "onnx", size=64, names=list("abcde"))
    live, exported = segmenter_of(model, size=64), network_of_artifact(tmp_path / "artifact")
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    assert (exported.size, list(exported.names)) == (64, list("abcde"))
    assert (exported.segment(pixels) == live.segment(pixels)).mean() > 0.999
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    assert answer(exported, tmp_path / "noise.png").where is not None


def test_an_artifact_that_the_page_cannot_show_is_refused(tmp_path):
    written = {"format": "onnx", "task": "detection.rotated"}
    (tmp_path / "export.json").write_text(json.dumps(written))
    with pytest.raises(ValueError, match=r"classification, segmentation, detection\. Received"):
        network_of_artifact(tmp_path)


def never(pixels):
    raise AssertionError("The network was asked.")


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_answerable_picture_is_refused_by_name_and_costs_little(name, tmp_path):
    make, said = REFUSED[name]
    (tmp_path / name).write_bytes(make())
    if not PEAK.exists():
        pytest.skip("measures memory as Linux tells it")
    PEAK.write_text("5")  # the peak is now what is in use
    before = peak_memory()
    with pytest.raises(UploadError, match=name) as refused:
        answer(Classifier(never, 224, NAMES), tmp_path / name)
    assert said in str(refused.value)
    assert peak_memory() - before < 8 * 2**20


def peak_memory():
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def test_the_limits_themselves_are_let_through(tmp_path, monkeypatch):
    classifier = Classifier(Asked().classify, 32, NAMES)
    photo = encoded("JPEG", (50, 40))
    (tmp_path / "photo.jpg").write_bytes(photo)
    (tmp_path / "strip.png").write_bytes(png_of(1, 2000))
    monkeypatch.setattr(decoder, "MOST_BYTES", len(photo))
    monkeypatch.setattr(decoder, "MOST_PIXELS", 2000)
    assert answer(classifier, tmp_path / "photo.jpg").labels
    monkeypatch.setattr(decoder, "MOST_BYTES", len(photo) - 1)
    with pytest.raises(UploadError, match="too large"):
        answer(classifier, tmp_path / "photo.jpg")
    monkeypatch.undo()
    assert answer(classifier, tmp_path / "strip.png").labels


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "MPO", "TIFF", "AVIF"])
def test_what_browsers_and_cameras_make_is_read_whatever_its_name(kind, tmp_path):
    asked = Asked()
    (tmp_path / "upload").write_bytes(encoded(kind))
    assert answer(Classifier(asked.classify, 32, NAMES), tmp_path / "upload").labels
    np.testing.assert_array_equal(asked.pixels[0], load_image(tmp_path / "upload", 32))
