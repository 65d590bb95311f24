"""Crops and evaluation images against Pillow. Other formats are in `test_picture_formats.py`."""

import io
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from pillow_reference import width_first

from keras_convnext.data.images import evaluation_image, random_box, training_crop, whole_image
from keras_convnext.preprocessing import load_image

PHOTOGRAPHS = sorted((Path(__file__).parents[2] / "examples" / "photos").glob("*.jpg"))
SCALE, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


def encoded(image, **options):
    file = io.BytesIO()
    image.save(file, **options)
    return file.getvalue()


def crop_by_pillow(data, seed, size):
    image = Image.open(io.BytesIO(data)).convert("RGB")
    box = random_box(image.height, image.width, seed, SCALE, RATIO).numpy()
    top, left, height, width = box.tolist()
    image = image.crop((left, top, left + width, top + height))
    return np.asarray(width_first(image, (size, size))).astype(int)


def assert_equal(ours, theirs):
    assert ours.dtype == tf.uint8
    difference = np.abs(ours.numpy() - theirs.astype(int))
    assert difference.max() <= 2
    assert (difference > 0).mean() < 0.01


@pytest.mark.parametrize("path", PHOTOGRAPHS, ids=lambda path: path.stem)
@pytest.mark.parametrize("size", [32, 224, 384])
def test_evaluation_equals_load_image(path, size):
    assert_equal(evaluation_image(path.read_bytes(), size), load_image(path, size))


@pytest.mark.parametrize(("size", "crop"), [(224, 0.95), (384, 1.0), (64, 0)])
def test_evaluation_with_a_crop_equals_load_image(size, crop):
    path = PHOTOGRAPHS[0]
    found = evaluation_image(path.read_bytes(), size, crop=crop)
    assert_equal(found, load_image(path, size, crop))


@pytest.mark.parametrize("turned", [False, True])
def test_evaluation_of_any_shape(turned):
    photograph = Image.open(PHOTOGRAPHS[0])
    for width, height in ((500, 333), (257, 256), (301, 300), (90, 41), (224, 224)):
        sides = (height, width) if turned else (width, height)
        data = encoded(photograph.resize(sides), format="JPEG", quality=95)
        for size in (224, 384):
            assert_equal(evaluation_image(data, size), load_image(data, size))


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("progressive", [False, True])
def test_crops_of_jpegs_equal_pillows(subsampling, progressive):
    # Sharp colors: what the decoder does at the sides of a window would show.
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype("u1")
    image = Image.fromarray(noise).resize((320, 240), Image.Resampling.NEAREST)
    data = encoded(image, format="JPEG", subsampling=subsampling, progressive=progressive)
    for number in range(12):
        seed = tf.constant([number, 5])
        assert_equal(training_crop(data, seed, 96), crop_by_pillow(data, seed, 96))


def test_crops_of_imagenet_equal_pillows(imagenet_jpegs):
    for number, data in enumerate(imagenet_jpegs[:24]):
        seed = tf.constant([number, 1])
        assert_equal(training_crop(data, seed, 224), crop_by_pillow(data, seed, 224))
        assert_equal(evaluation_image(data, 224), load_image(data, 224))


def test_same_in_a_dataset():
    data = [path.read_bytes() for path in PHOTOGRAPHS]
    dataset = tf.data.Dataset.from_tensor_slices(data)
    for make in (lambda x: training_crop(x, (3, 4), 64), lambda x: evaluation_image(x, 64)):
        mapped = dataset.map(make)
        assert mapped.element_spec == tf.TensorSpec((64, 64, 3), tf.uint8)
        for graph, one in zip(mapped, data):
            assert np.array_equal(graph, make(one))


def test_statistics_of_boxes():
    height, width, count = 300, 400, 3000
    boxes = tf.vectorized_map(
        lambda i: random_box(height, width, tf.stack([7, i]), SCALE, RATIO), tf.range(count)
    ).numpy()
    top, left, rows, columns = boxes.T
    assert (boxes[:, :2] >= 0).all()
    assert (top + rows <= height).all()
    assert (left + columns <= width).all()
    share, ratio = rows * columns / (height * width), columns / rows
    assert 0.075 < share.min() < 0.09
    assert 0.95 < share.max() <= 1.0
    assert 0.73 < ratio.min() < 0.76
    assert 1.32 < ratio.max() < 1.36
    # The same statistics of torchvision's rule, drawn by NumPy.
    expected = np.array([reference_box(np.random.default_rng(i), height, width)
                         for i in range(count)])  # fmt: skip
    for ours, theirs in zip(boxes.T, expected.T):
        error = 4 * np.hypot(ours.std(), theirs.std()) / np.sqrt(count)
        assert abs(ours.mean() - theirs.mean()) < error
        assert abs(ours.std() - theirs.std()) < error
    logs = np.log(ratio[share < 0.5])  # where nearly every draw fits
    assert abs(logs.mean()) < 0.02
    assert abs(logs.std() - np.log(16 / 9) / np.sqrt(12)) < 0.01


def reference_box(generator, height, width):
    for _ in range(10):
        area = generator.uniform(*SCALE) * height * width
        ratio = np.exp(generator.uniform(*np.log(RATIO)))
        columns, rows = round(np.sqrt(area * ratio)), round(np.sqrt(area / ratio))
        if columns <= width and rows <= height:
            top = generator.integers(0, height - rows + 1)
            return top, generator.integers(0, width - columns + 1), rows, columns
    raise AssertionError("ten draws that do not fit are not to be seen here")


@pytest.mark.parametrize(
    ("sides", "box"),
    [((1000, 20), (486, 0, 27, 20)), ((20, 1000), (0, 486, 20, 27)), ((50, 50), (0, 0, 50, 50))],
)
def test_central_box_where_none_fits(sides, box):
    # As large a share as this fits a strip never, and a square hardly ever.
    found = random_box(*sides, (1, 2), (1.0, 1.0), RATIO if sides[0] != 50 else (1.0, 1.0))
    assert tuple(found.numpy()) == box


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "at least 1 pixel. Received: size=0"),
        ({"size": 8, "scale": (0.5, 0.1)}, r"Received: scale=\(0.5, 0.1\)"),
        ({"size": 8, "scale": (0.0, 1.0)}, r"Received: scale=\(0.0, 1.0\)"),
        ({"size": 8, "ratio": (2.0, 1.0)}, r"Received: ratio=\(2.0, 1.0\)"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        training_crop(b"", (1, 2), **options)
    with pytest.raises(ValueError, match="at least 1 pixel"):
        evaluation_image(b"", 0)


def test_not_an_image():
    for data in (b"", b"text", PHOTOGRAPHS[0].read_bytes()[:50]):
        with pytest.raises(tf.errors.InvalidArgumentError):
            evaluation_image(data, 32)


@pytest.mark.parametrize("size", [40, 64, 96])
def test_a_whole_image_is_warped_and_keeps_its_pixels_at_its_own_size(size):
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for kind in ("JPEG", "PNG"):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind)
        decoded = Image.open(file)
        expected = np.asarray(width_first(decoded, (size, size)), int)
        found = whole_image(file.getvalue(), size).numpy()
        assert np.abs(found - expected).max() <= (size != 64)
        if size == 64:
            assert (found == np.asarray(decoded)).all()
