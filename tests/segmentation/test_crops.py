"""Random crops of images and masks, against OpenCV, mmsegmentation and NumPy on the same draws.

The golden arrays are OpenCV's and mmsegmentation's; `make_golden_crops.py` makes them.
"""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_convnext.segmentation.augmentation import (
    choose_corner,
    lines,
    resized_window,
    scaled_size,
    training_crop,
)
from keras_convnext.segmentation.distortion import distorted
from keras_convnext.segmentation.recipes import Input

GOLDEN = np.load(Path(__file__).with_name("golden") / "crops.npz")
PICTURE, LABELS = GOLDEN["picture"], GOLDEN["labels"].astype(np.int32)
PLAIN = Input(photometric=False, horizontal_flip=0.0, most_of_one_class=1.0)


def encoded(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return tf.constant(file.getvalue())


@pytest.mark.parametrize("size", [(20, 40), (53, 86), (37, 96)])
def test_a_crop_is_a_part_of_what_opencv_resizes(size):
    corner, crop, sides = (5, 9), (13, 17), LABELS.shape
    rows, columns = (lines(corner[axis], crop[axis], sides[axis], size[axis]) for axis in range(2))
    found = resized_window(encoded(PICTURE), rows, columns, tf.constant(sides)).numpy()
    part = tuple(slice(first, first + count) for first, count in zip(corner, crop))
    expected = GOLDEN[f"picture {size[0]}"][part].astype(int)
    assert np.abs(found - expected).max() <= 1  # OpenCV rounds its weights to 1/2048
    assert (found != expected).mean() < 0.2
    labels = LABELS[rows.nearest.numpy()][:, columns.nearest.numpy()]
    np.testing.assert_array_equal(labels, GOLDEN[f"labels {size[0]}"][part])


def test_colors_are_distorted_as_by_mmsegmentation():
    image = tf.constant(PICTURE, tf.float32)
    change = tf.function(distorted)
    for draws, expected in zip(GOLDEN["draws"], GOLDEN["distorted"]):
        found = change(image, tf.constant(draws)).numpy()
        assert np.abs(found - expected).max() <= 1
        assert (found != expected).mean() < 1e-3


@pytest.mark.parametrize(
    ("sides", "scale", "ratio", "expected"),
    [
        ((1024, 2048), (2048, 512), 1.0, (512, 1024)),
        ((400, 600), (2048, 512), 1.53, (783, 1175)),
        ((300, 2000), (2048, 512), 1.0, (307, 2048)),
        ((360, 480), (), 0.75, (270, 360)),
        ((3, 500), (2048, 512), 0.5, (6, 1024)),
        ((1, 5000), (2048, 512), 0.5, (1, 1024)),
    ],
)
def test_the_size_is_that_of_mmcv(sides, scale, ratio, expected):
    """mmcv's `rescale_size` of the image to the truncated scale."""
    found = scaled_size(tf.constant(sides), tf.constant(ratio), scale).numpy()
    assert tuple(found) == expected
    whole = scale or (max(sides), min(sides))
    most = [int(side * np.float64(np.float32(ratio))) for side in whole]
    factor = min(max(most) / max(sides), min(most) / min(sides))
    assert tuple(found) == tuple(max(int(side * factor + 0.5), 1) for side in sides)


def numpy_crop(pixels, labels, seed, own):
    """The chain of mmsegmentation in NumPy, on the same draws and whole images."""
    seeds = tf.random.split(seed, 4)

    def drawn(shape, seed):
        return tf.random.stateless_uniform(shape, seed, alg="philox").numpy()

    low, high = own.ratio
    ratio = float(np.float32(low) + np.float32(high - low) * drawn((), seeds[0]))
    sides = np.array(labels.shape)
    whole = own.scale or (sides.max(), sides.min())
    most = [int(side * ratio) for side in whole]
    factor = min(most[0] / sides.max(), most[1] / sides.min())
    size = [int(side * factor + 0.5) for side in sides]
    nearest, weights = [], []
    for before, after in zip(sides, size):
        step = before / after
        nearest.append(np.minimum((np.arange(after) * step).astype(int), before - 1))
        centers = np.clip((np.arange(after) + 0.5) * step - 0.5, 0, before - 1)
        own_weights = np.zeros((after, before))
        first = centers.astype(int)
        own_weights[np.arange(after), first] += 1 - (centers - first)
        last = np.minimum(first + 1, before - 1)
        own_weights[np.arange(after), last] += centers - first
        weights.append(own_weights)
    labels = labels[nearest[0]][:, nearest[1]]
    pixels = np.einsum("ih,hwc->iwc", weights[0], pixels.astype(float), optimize=True)
    pixels = np.einsum("jw,iwc->ijc", weights[1], pixels, optimize=True)
    pixels = np.floor(pixels + 0.5)
    draws = drawn((11, 2), seeds[1])
    for number in range(11):
        room = [max(side - own.size, 0) + 1 for side in size]
        top, left = (int(np.float32(each) * np.float32(r)) for each, r in zip(draws[number], room))
        crop = labels[top : top + own.size, left : left + own.size]
        counts = np.bincount(crop[crop >= 0])
        counts = counts[counts > 0]
        if len(counts) > 1 and counts.max() / counts.sum() < own.most_of_one_class:
            break
    pixels = pixels[top : top + own.size, left : left + own.size]
    if drawn((), seeds[2]) < own.horizontal_flip:
        pixels, crop = pixels[:, ::-1], crop[:, ::-1]
    image = np.empty((own.size, own.size, 3))
    image[:] = 123.675, 116.28, 103.53
    image[: crop.shape[0], : crop.shape[1]] = pixels
    mask = np.full((own.size, own.size), -1)
    mask[: crop.shape[0], : crop.shape[1]] = crop
    return image, mask, number


def test_crops_are_those_of_a_chain_in_numpy():
    own = Input(scale=(70, 40), ratio=(0.5, 2.0), size=32, photometric=False)
    labels = np.where(np.arange(64) < 48, 2, LABELS).astype(np.int32)  # mostly one class
    labels[:, :5] = -1
    crop = tf.function(lambda file, mask, seed: training_crop(file, mask, seed, own, tf.identity))
    tries = []
    for number in range(15):
        seed = tf.constant([7, number])
        image, mask = crop(encoded(PICTURE), tf.constant(labels), seed)
        expected, expected_mask, tried = numpy_crop(PICTURE, labels, seed, own)
        np.testing.assert_array_equal(mask, expected_mask)
        assert np.abs(image - expected).max() <= 1
        assert (np.abs(image - expected) > 1e-3).mean() < 0.01
        tries.append(tried)
    assert min(tries) == 0
    assert max(tries) == 10  # the eleventh crop is taken unseen


def test_the_same_seed_gives_the_same_crop():
    own = Input(scale=(70, 40), size=32)
    mask = tf.constant(LABELS)
    first, again, other = (
        training_crop(encoded(PICTURE), mask, tf.constant([1, seed]), own, tf.identity)
        for seed in (5, 5, 6)
    )
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[0].numpy() != other[0].numpy()).mean() > 0.5


def test_a_class_may_fill_a_crop_if_nothing_else_is_there():
    own = replace(PLAIN, most_of_one_class=0.75, scale=(), size=16)
    classes = tf.zeros((37, 64), tf.int32)
    corner = choose_corner(classes, tf.constant([37, 64]), tf.constant([1, 2]), own, tf.identity)
    draws = tf.random.stateless_uniform((11, 2), [1, 2], alg="philox").numpy()
    np.testing.assert_array_equal(corner, (draws[10] * np.float32([22, 49])).astype(int))


def test_an_image_that_changed_its_size_is_refused():
    file, mask, seed = encoded(PICTURE[:-1]), tf.constant(LABELS), tf.constant([0, 0])
    with pytest.raises(tf.errors.InvalidArgumentError, match="another size than its mask"):
        training_crop(file, mask, seed, PLAIN, tf.identity)
