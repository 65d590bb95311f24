import base64
import io
import re
import sys
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import typer
from bad_uploads import REFUSED, encoded
from color_network import one_class_a_color, save_with_names
from PIL import Image
from typer.testing import CliRunner

import keras_convnext
from keras_convnext.cli import demonstration
from keras_convnext.demo import answers
from keras_convnext.demo import page as page_module
from keras_convnext.demo.answers import (
    Classifier,
    Detector,
    Segmenter,
    answer,
    detector_of,
    network_of_artifact,
    segmenter_of,
)
from keras_convnext.demo.lanes import Lanes
from keras_convnext.demo.page import demo_page, respond
from keras_convnext.demo.uploads import Space, Upload, Uploads
from keras_convnext.detection import Detections, draw_detections
from keras_convnext.export import export
from keras_convnext.pretrained.catalog import list_weights

MASK_RCNN = Path(__file__).parents[1] / "detection" / "golden" / "mask_rcnn.pth"
UPERNET = Path(__file__).parents[1] / "segmentation" / "golden" / "upernet.pth"


def classify(pixels):
    return np.tile(np.array([0.25, 0.75], "float32"), (len(pixels), 1))


def heat(pixels, classes):
    return np.ones(pixels.shape[:3], "float32")


LIVE, EXPORTED = Classifier(classify, 32, "ab", heat), Classifier(classify, 32, "ab")
UNSURE = LIVE._replace(names=("<a>", "b"), least_probability=0.8)

lanes = cache(Lanes)


def responded(classifier, path):
    """What the page shows for an upload."""
    uploads = Uploads()
    token = uploads.add(Upload(path.open("rb"), path.name, Space(uploads)))
    return respond(
        lanes(classifier) if isinstance(classifier, Classifier) else Lanes(classifier),
        uploads,
        token,
    )


def shown(html):
    """The picture in a piece of HTML."""
    kind, data = re.fullmatch('<img alt="" src="data:image/(png|jpeg);base64,(.*)">', html).groups()
    image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
    assert image.format == kind.upper()
    return image


def test_an_upload_fills_the_page_and_empties_the_drop_area(tmp_path):
    (tmp_path / "a&b.png").write_bytes(encoded("PNG"))
    drop, labels, seen, where, line = responded(LIVE, tmp_path / "a&b.png")
    assert drop is None
    assert labels == {"b": 0.75, "a": 0.25}
    assert shown(seen).size == (384, 384)
    assert shown(seen).format == "PNG"
    assert shown(where).size == (383, 383)
    assert line.startswith('<p role="status" class="answered">a&amp;b.png, classified in 0.')
    assert responded(EXPORTED, tmp_path / "a&b.png")[3] is None


def test_an_upload_of_none_of_the_classes_is_said_to_be_that(tmp_path):
    (tmp_path / "x.png").write_bytes(encoded("PNG"))
    _, labels, seen, where, line = responded(UNSURE, tmp_path / "x.png")
    assert labels == "none of its classes"
    assert line.endswith(" s. Closest: b 75%, &lt;a&gt; 25%.</p>")
    assert seen
    assert where


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_upload_leaves_a_message_and_nothing_else(name, tmp_path):
    make, said = REFUSED[name]
    (tmp_path / name).write_bytes(make())
    *emptied, line = responded(LIVE, tmp_path / name)
    assert emptied == [None] * 4
    assert line.startswith('<p role="alert" class="refused">')
    assert name in line
    assert said in line


def test_the_name_of_a_file_is_not_markup(tmp_path):
    (tmp_path / "<b>x.png").write_bytes(b"")
    assert "&lt;b&gt;x.png is empty" in responded(LIVE, tmp_path / "<b>x.png")[-1]


def test_an_upload_is_answered_once(tmp_path):
    (tmp_path / "x.png").write_bytes(encoded("PNG"))
    uploads = Uploads()
    token = uploads.add(Upload((tmp_path / "x.png").open("rb"), "x.png", Space(uploads)))
    assert respond(lanes(LIVE), uploads, token)[1]
    for asked in (token, "", str(tmp_path / "x.png"), {"path": str(tmp_path / "x.png")}, None):
        *emptied, line = respond(lanes(LIVE), uploads, asked)
        assert emptied == [None] * 4
        assert "no longer here" in line


def components(page):
    found = {part["props"].get("elem_id"): part["props"] for part in page.config["components"]}
    return {name: SimpleNamespace(**props) for name, props in found.items() if name}


def test_a_page_has_a_heading_and_tells_nobody():
    pytest.importorskip("gradio")
    page = demo_page(LIVE, title="Cats & dogs", note="<script>")
    parts = components(page)
    assert parts["heading"].value.startswith("<h1>Cats &amp; dogs</h1>")
    assert parts["heading"].value.endswith("<p>&lt;script&gt;</p>")
    assert parts["where"].visible
    assert not page.analytics_enabled


def test_what_cannot_tell_where_it_looked_has_one_picture():
    pytest.importorskip("gradio")
    parts = components(demo_page(EXPORTED))
    assert (parts["seen"].visible, parts["where"].visible) == (True, False)


@pytest.fixture
def command(monkeypatch):
    """Runs `demo` as the command line does, with a page that is not served."""
    asked = SimpleNamespace(blocked=0)

    def made(network, names=None, **options):
        asked.network, asked.names, asked.options = network, names, options
        return SimpleNamespace(block_thread=lambda: setattr(asked, "blocked", 1))

    def started(page, *arguments):
        asked.started = arguments
        return "http://there/"

    monkeypatch.setattr(page_module, "require_gradio", lambda: None)
    monkeypatch.setattr(page_module, "demo_page", made)
    monkeypatch.setattr(page_module, "start", started)
    app = typer.Typer()
    app.command()(demonstration.demo)

    def run(*arguments):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
        assert "http://there/" in result.stderr
        assert asked.blocked
        return asked

    return run


def test_the_command_serves_the_network_of_a_file_with_its_names(command, tmp_path):
    file = save_with_names(one_class_a_color(), tmp_path)
    asked = command("--weights", file)
    assert asked.network.output_shape == (None, 3)
    assert [name for _, name in asked.names] == ["red", "green", "blue"]
    assert asked.options == {"note": "convnext_isotropic", "least_probability": None}
    assert asked.started == ("127.0.0.1", 7860, False)
    asked = command("--weights", file, "--host", "0.0.0.0", "--port", 81, "--open")
    assert asked.started == ("0.0.0.0", 81, True)


def test_the_command_says_that_random_weights_mean_nothing(command):
    asked = command("--model", "convnext_atto", "--size", 64)
    assert asked.network.input_shape == (None, 64, 64, 3)
    assert "mean nothing" in asked.options["note"]


def test_the_command_takes_the_weights_of_the_package_by_default(command):
    asked = command()
    assert asked.options["note"].startswith("A demo: 10 classes at 32 px.")
    assert asked.options["least_probability"] == list_weights("convnext_cifar")[0].least_probability
    assert asked.network.name == "convnext_cifar"
    assert "airplane" in [name for _, name in asked.names]


def test_the_command_serves_an_artifact_in_place_of_a_network(command, monkeypatch, tmp_path):
    monkeypatch.setattr(answers, "network_of_artifact", lambda folder: folder)
    asked = command("--artifact", tmp_path / "tiny")
    assert (asked.network, asked.options) == (tmp_path / "tiny", {"note": "tiny"})
    with pytest.raises(ValueError, match="omit --model"):
        demonstration.demo(artifact=tmp_path, size=64)


def test_without_gradio_the_command_says_what_to_install_before_it_reads_weights(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ImportError, match=r'pip install "keras-convnext\[demo\]"'):
        demonstration.demo(weights="nowhere.pth")
    with pytest.raises(ImportError, match="Received: import of gradio"):
        demo_page(LIVE)


def test_a_picture_keeps_its_orientation(tmp_path):
    """A telephone's photograph lies on its side, and says so."""
    wide = Image.new("RGB", (80, 40), "red")
    wide.paste("blue", (0, 0, 40, 40))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    wide.save(tmp_path / "photo.jpg", exif=exif, quality=100)
    seen = np.asarray(shown(responded(LIVE, tmp_path / "photo.jpg")[2]))
    assert seen[10, 190].argmax() == 2
    assert seen[-10, 190].argmax() == 0


def segment(pixels):
    return (np.arange(len(pixels))[:, None] < 3 * len(pixels) // 4) * np.ones(len(pixels), int)


COLORS = np.array([[255, 0, 0], [0, 0, 255]], np.uint8)
SEGMENTER = Segmenter(segment, 32, ("<b>sky</b>", "road"), COLORS)


def test_a_segmenter_shows_the_classes_over_the_picture_with_a_slider(tmp_path):
    (tmp_path / "street.png").write_bytes(encoded("PNG"))
    drop, labels, seen, where, line = responded(SEGMENTER, tmp_path / "street.png")
    assert drop is None
    assert labels == {"road": 0.75, "<b>sky</b>": 0.25}  # which Gradio shows as text
    assert shown(seen).size == (32, 32)
    lower, upper = re.findall('src="data:image/(?:png|jpeg);base64,([^"]*)"', where)
    above = np.asarray(Image.open(io.BytesIO(base64.b64decode(upper))).convert("RGB"))
    np.testing.assert_array_equal(above[0, 0], COLORS[1])
    np.testing.assert_array_equal(above[-1, -1], COLORS[0])
    assert Image.open(io.BytesIO(base64.b64decode(lower))).size == (32, 32)
    assert '<input type="range"' in where
    assert "street.png, segmented in" in line


def test_the_page_of_a_segmenter_says_so():
    pytest.importorskip("gradio")
    assert "What it is" in {
        part["props"].get("label") for part in demo_page(SEGMENTER).config["components"]
    }


def test_a_live_segmenter_colors_its_largest_logits(tmp_path):
    network = keras_convnext.load_model(UPERNET)
    made = segmenter_of(network, size=64)
    assert (made.size, made.names[4], len(made.colors)) == (64, "class 4", 5)
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    expected = np.asarray(network(pixels[None].astype("float32")))[0].argmax(-1)
    np.testing.assert_array_equal(made.segment(pixels), expected)


def find(pixels):
    boxes = np.float32([[2, 2, 20, 20], [10, 10, 30, 30], [1, 1, 9, 9]])
    masks = np.ones((3, 28, 28), np.float32)
    scores, labels = np.float32([0.95, 0.62, 0.3]), np.array([1, 0, 1])
    return Detections(boxes, scores, labels, masks, pixels.shape[:2])


DETECTOR = Detector(find, 32, ("<b>cat</b>", "dog"))


def test_a_detector_shows_the_objects_with_a_slider_for_their_scores(tmp_path):
    (tmp_path / "street.png").write_bytes(encoded("PNG"))
    drop, labels, seen, where, line = responded(DETECTOR, tmp_path / "street.png")
    assert drop is None
    assert labels == pytest.approx({"dog": 0.95, "<b>cat</b>": 0.62})
    assert seen is None
    given = answer(DETECTOR, tmp_path / "street.png").seen
    found = re.findall(
        r'data-from="(.*?)" data-to="(.*?)" style="visibility: (\w+)" .*?base64,([^"]*)"', where
    )
    assert [each[:3] for each in found] == [
        ("0.1", "0.4", "hidden"), ("0.4", "0.7", "visible"), ("0.7", "2", "hidden")
    ]  # fmt: skip
    for threshold, *_, data in found:
        drawn = draw_detections(given, find(np.asarray(given)), DETECTOR.names, float(threshold))
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"), int)
        assert np.abs(picture - np.asarray(drawn, int)).mean() < 5
    assert '<input type="range"' in where
    assert "<b>" not in where
    assert "street.png, searched in" in line


def test_the_page_of_a_detector_says_so():
    pytest.importorskip("gradio")
    assert "What it found" in {
        part["props"].get("label") for part in demo_page(DETECTOR).config["components"]
    }


@pytest.mark.slow
def test_a_live_detector_and_its_export_find_the_same(tmp_path):
    network = keras_convnext.load_model(MASK_RCNN, proposals=50, detections=10)
    made = detector_of(network, size=64)
    assert (made.size, made.names[4]) == (64, "class 4")
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "noise.png")
    export(network, tmp_path / "out", "onnx", size=64, names=list("abcde"), images=tmp_path)
    exported = network_of_artifact(tmp_path / "out")
    assert (exported.size, list(exported.names)) == (64, list("abcde"))
    live, other = made.find(pixels), exported.find(pixels)
    assert len(live.scores) == 10
    np.testing.assert_allclose(other.boxes, live.boxes, atol=1e-2)
    np.testing.assert_array_equal(other.mask(0), live.mask(0))
