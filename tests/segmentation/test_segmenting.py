"""From photographs to class maps: `predict_files`, pictures and the command."""

import json
import tracemalloc

import keras
import numpy as np
import pytest
from PIL import Image
from test_segmenter_files import run
from test_upernet import CHECKPOINT

from keras_convnext import load_model
from keras_convnext.colors import distinct_colors
from keras_convnext.pretrained.record import Record, add_record
from keras_convnext.resizing import resized_linearly, scaled_size
from keras_convnext.segmentation import predict_classes, predict_files
from keras_convnext.segmentation.colors import colors_of_classes, names_of_classes
from keras_convnext.segmentation.inference import RATIOS, with_logits
from keras_convnext.segmentation.prediction import (
    Windows,
    areas_of,
    class_map_image,
    draw_segmentation,
    windows_for,
    windows_of,
)

WINDOWS = Windows(None, 40, 28)  # of one size in all photos, so that a model is traced once
NAMES = ("road", "sky\x1b[31m", "x" * 300, "[bold]car[/]", "tree")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name, size in {"street": (60, 90), "field": (75, 40)}.items():
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(folder / f"{name}.png")
    (folder / "broken.png").write_bytes(b"nothing")
    return folder


@pytest.fixture(scope="module")
def model():
    return load_model(CHECKPOINT)


def test_the_classes_are_those_of_the_logits(model, photos):
    street, broken = predict_files(
        model, [photos / "street.png", photos / "broken.png"], NAMES, WINDOWS
    )
    pixels = np.asarray(Image.open(photos / "street.png"))
    logits = keras.Model(model.input, model.layers[-1].input)
    expected = predict_classes(logits, pixels, crop=40, stride=28)
    np.testing.assert_array_equal(street.classes, expected)
    assert [area.pixels for area in street.areas] == sorted(
        np.unique(expected, return_counts=True)[1].tolist(), reverse=True
    )
    assert sum(area.share for area in street.areas) == pytest.approx(1)
    assert street.areas[0].name == NAMES[street.areas[0].label]
    assert broken.classes is None
    assert "Not an image" in broken.error


@pytest.mark.parametrize("size", [(12_000, 64), (64, 12_000)], ids=["high", "wide"])
def test_memory_for_12000_pixels_is_that_of_a_row_of_windows(size):
    """Besides the classes: the sums of a row, once more while it grows, and a band of means."""
    classes, crop = 8, 64
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    of_row = 4 * crop * size[1] * classes  # bytes

    def predict(pixels):
        mean = pixels.mean(axis=-1, keepdims=True, dtype=np.float32)
        return -np.square(mean - np.linspace(0, 255, classes, dtype=np.float32))

    tracemalloc.start()
    try:
        found = predict_classes(predict, image, crop=crop, stride=42)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - found.nbytes < 5 * of_row + 2**20
    np.testing.assert_array_equal(found, predict(image).argmax(-1))


def test_the_published_windows():
    """configs/upernet/*_512_160k_ade20k_ss.py and *_640_160k_ade20k_ss.py."""
    assert windows_for(512) == Windows() == ((2048, 512), 512, 341)
    assert windows_for(640) == ((2560, 640), 640, 426)
    assert windows_of({"scale": [360, 270], "window": 96, "stride": 64}) == ((360, 270), 96, 64)
    assert windows_of({"scale": None, "window": 96, "stride": 64}) == (None, 96, 64)
    assert windows_of({}) == Windows()


def seen_by(colors, matrix):
    """Simulates a color vision deficiency in linear RGB."""
    linear = (colors / 255) ** 2.2
    return np.clip(linear @ np.array(matrix).T, 0, 1)


@pytest.mark.parametrize(
    "matrix",
    [
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.004, -0.048, 1.052]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.012, 0.043, 0.969]],
        np.eye(3).tolist(),
    ],
    ids=["protanopia", "deuteranopia", "all colors"],
)  # fmt: skip
def test_eight_colors_differ_also_without_red_and_green(matrix):
    seen = seen_by(distinct_colors(8), matrix) ** (1 / 2.2)
    apart = np.linalg.norm(seen[:, None] - seen[None], axis=-1)
    assert apart[np.triu_indices(8, 1)].min() > 0.2


def test_colors_and_names():
    np.testing.assert_array_equal(distinct_colors(40)[:8], distinct_colors(8))
    assert len(np.unique(distinct_colors(100), axis=0)) == 100
    assert distinct_colors(900).shape == (900, 3)
    assert names_of_classes(150)[:3] == ("wall", "building", "sky")
    assert names_of_classes(150)[-1] == "flag"
    np.testing.assert_array_equal(colors_of_classes(150)[[0, 149]], [[120] * 3, [92, 0, 255]])
    assert names_of_classes(2, ("a", "b")) == ("a", "b")
    assert names_of_classes(2, ("a",)) == ("class 0", "class 1")
    np.testing.assert_array_equal(colors_of_classes(1, [(1, 2, 3)]), [[1, 2, 3]])


def test_a_class_map_keeps_its_numbers(tmp_path):
    classes = np.arange(12).reshape(3, 4) % 5
    class_map_image(classes, distinct_colors(5)).save(tmp_path / "map.png")
    read = Image.open(tmp_path / "map.png")
    assert read.mode == "P"
    np.testing.assert_array_equal(np.asarray(read), classes)
    colors = np.asarray(read.convert("RGB"))
    np.testing.assert_array_equal(colors, distinct_colors(5)[classes])


def test_a_picture_has_the_colors_and_a_legend():
    image = Image.new("RGB", (40, 20), (255, 255, 255))
    classes = np.zeros((20, 40), int)
    classes[:, 30:] = 4
    colors = distinct_colors(5)
    drawn = draw_segmentation(image, classes, areas_of(classes, NAMES), colors, opacity=1)
    assert drawn.width == 400
    assert drawn.height > 200
    pixels = np.asarray(drawn)
    np.testing.assert_array_equal(pixels[100, 100], colors[0])
    np.testing.assert_array_equal(pixels[100, 390], colors[4])
    below = pixels[200:].reshape(-1, 3)
    assert {tuple(colors[0]), tuple(colors[4])} <= set(map(tuple, below))
    assert tuple(colors[1]) not in set(map(tuple, below))


def test_the_command(model, photos, tmp_path):
    weights = tmp_path / "mine.keras"
    model.save(weights)
    preprocessing = {"scale": None, "window": 40, "stride": 28, "colors": [[9, 8, 7]] * 5}
    add_record(weights, Record("segmentation", NAMES, preprocessing))
    picture, masks = tmp_path / "drawn.png", tmp_path / "maps"
    ran = run("predict", photos, "--weights", weights, "--picture", picture, "--masks", masks)
    assert ran.exit_code == 1  # one is broken
    assert "broken.png" in ran.stderr
    assert f"{photos / 'field.png'}\n" in ran.stdout
    assert "\x1b[31m" not in ran.output
    assert sorted(path.name for path in masks.iterdir()) == ["field.png", "street.png"]
    (street,) = predict_files(model, [photos / "street.png"], windows=WINDOWS)
    read = Image.open(masks / "street.png")
    np.testing.assert_array_equal(np.asarray(read), street.classes)
    assert read.getpalette()[:3] == [9, 8, 7]
    assert Image.open(picture).width == 400
    shown = json.loads(run("predict", photos / "street.png", "--weights", weights, "--json").stdout)
    assert [area["pixels"] for area in shown[0]["areas"]] == [x.pixels for x in street.areas]
    assert (shown[0]["height"], shown[0]["width"]) == (60, 90)
    again = run("predict", photos / "street.png", "--weights", weights, "--masks", masks)
    assert again.exit_code == 2
    assert "exists" in again.stderr


def test_class_maps_are_of_segmenters(photos, tmp_path):
    ran = run("predict", photos / "street.png", "--masks", tmp_path / "maps")
    assert ran.exit_code == 2
    assert "needs the weights of a segmenter" in ran.stderr


def test_several_scales_with_flips(model):
    """As mmsegmentation's `aug_test` does, with PyTorch's interpolation."""
    torch = pytest.importorskip("torch")
    image = np.random.default_rng(1).integers(0, 256, (45, 70, 3), np.uint8)
    predict, total = with_logits(model), 0
    for ratio in (0.75, 1.0, 1.5):
        scaled = resized_linearly(image, scaled_size((45, 70), (int(90 * ratio), int(60 * ratio))))
        for step in (1, -1):
            logits = predict(np.ascontiguousarray(scaled[:, ::step])[None])
            logits = torch.nn.functional.interpolate(
                torch.from_numpy(logits).permute(0, 3, 1, 2), (45, 70), mode="bilinear"
            )
            total = total + logits.softmax(1).numpy()[0, :, :, ::step]
    found = predict_classes(predict, image, scale=(90, 60), ratios=(0.75, 1.0, 1.5))
    np.testing.assert_array_equal(found, total.argmax(0))
    once = predict_classes(predict, image, scale=(90, 60))
    assert (found != once).any()
    assert RATIOS == (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
