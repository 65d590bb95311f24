"""Random crops of images and masks for training, as in mmsegmentation.

The image is resized by bilinear interpolation without antialiasing and the mask by nearest
neighbors, as OpenCV does. Only the pixels of the crop are computed, which gives the same values.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from keras_convnext.data.decoding import Placement, decode_window
from keras_convnext.normalization import IMAGENET
from keras_convnext.segmentation.distortion import distorted
from keras_convnext.segmentation.losses import NO_CLASS
from keras_convnext.segmentation.recipes import Input

Lookup = Callable[[tf.Tensor], tf.Tensor]

TRIES = 10  # crops drawn until one has several classes


class Lines(NamedTuple):
    """The rows or columns of an image that those of a crop are interpolated from.

    Args:
        nearest: int32 tensor (K,). The nearest line, as OpenCV takes it.
        before: int32 tensor (K,). The first of two neighbors.
        after: int32 tensor (K,). The second.
        share: float32 tensor (K,). The share of the second.
    """

    nearest: tf.Tensor
    before: tf.Tensor
    after: tf.Tensor
    share: tf.Tensor


def training_crop(
    encoded: tf.Tensor, numbers: tf.Tensor, seed: tf.Tensor, own: Input, lookup: Lookup
) -> tuple[tf.Tensor, tf.Tensor]:
    """Decodes and augments a random crop of an image, with its mask.

    Args:
        encoded: string tensor (). The bytes of an image file.
        numbers: tensor (H, W). The mask, as from `Table.decode`.
        seed: int tensor (2,). The same seed gives the same crop.
        own: Input. The fields of the recipe.
        lookup: function of numbers of the mask, which returns their classes, int32.

    Returns:
        float32 tensor (size, size, 3), RGB in 0..255, and int32 tensor (size, size). Crops of
        smaller images are padded with the mean color of ImageNet, and without class.

    References:
        open-mmlab/mmsegmentation 0.11, mmseg/datasets/pipelines/transforms.py: `Resize`,
        `RandomCrop`, `RandomFlip`, `PhotoMetricDistortion`, `Pad`.
    """
    seeds = tf.random.split(seed, 4)
    sides = tf.shape(numbers)
    size = scaled_size(sides, uniform(seeds[0], (), own.ratio), own.scale)
    corner = choose_corner(numbers, size, seeds[1], own, lookup)
    rows, columns = (
        lines(corner[axis], tf.minimum(own.size, size[axis]), sides[axis], size[axis])
        for axis in range(2)
    )
    image = resized_window(encoded, rows, columns, sides)
    labels = lookup(tf.gather(tf.gather(numbers, rows.nearest), columns.nearest, axis=1))
    if own.horizontal_flip:
        mirrored = tf.random.stateless_uniform((), seeds[2], alg="philox") < own.horizontal_flip
        image, labels = tf.cond(
            mirrored, lambda: (image[:, ::-1], labels[:, ::-1]), lambda: (image, labels)
        )
    if own.photometric:
        image = distorted(image, tf.random.stateless_uniform((2, 5), seeds[3], alg="philox"))
    return padded(image, labels, own.size)


def uniform(seed: tf.Tensor, shape: tuple[int, ...], limits: tuple[float, float]) -> tf.Tensor:
    """Draws float32 numbers between two limits."""
    low, high = limits
    return low + (high - low) * tf.random.stateless_uniform(shape, seed, alg="philox")


def scaled_size(sides: tf.Tensor, ratio: tf.Tensor, scale: tuple[int, ...]) -> tf.Tensor:
    """Returns the size of a resized image: mmcv's `imrescale`.

    Args:
        sides: int32 tensor (2,). Height and width of the image.
        ratio: float32 tensor (). Factor for `scale`.
        scale: tuple of int. Longest and shortest side; empty for those of the image.

    Returns:
        int32 tensor (2,).
    """
    exact = tf.cast(sides, tf.float64)
    longest, shortest = tf.reduce_max(exact), tf.reduce_min(exact)
    most = tf.stack([longest, shortest]) if not scale else tf.constant(scale, tf.float64)
    most = tf.floor(most * tf.cast(ratio, tf.float64))
    factor = tf.minimum(most[0] / longest, most[1] / shortest)
    return tf.maximum(tf.cast(tf.floor(exact * factor + 0.5), tf.int32), 1)


def choose_corner(
    numbers: tf.Tensor, size: tf.Tensor, seed: tf.Tensor, own: Input, lookup: Lookup
) -> tf.Tensor:
    """Draws the top left corner of a crop of the resized image, int32 (2,).

    Up to ten crops in which one class has too large a share are replaced by another.
    """
    room = tf.cast(tf.maximum(size - own.size, 0) + 1, tf.float32)
    draws = tf.random.stateless_uniform((TRIES + 1, 2), seed, alg="philox")
    corners = tf.cast(tf.floor(draws * room), tf.int32)
    corners = tf.minimum(corners, tf.cast(room, tf.int32) - 1)
    if own.most_of_one_class == 1:
        return corners[0]
    sides = tf.shape(numbers)

    def is_uniform(number: tf.Tensor) -> tf.Tensor:
        rows, columns = (
            nearest_lines(
                corners[number, axis], tf.minimum(own.size, size[axis]), sides[axis], size[axis]
            )
            for axis in range(2)
        )
        labels = lookup(tf.gather(tf.gather(numbers, rows), columns, axis=1))
        counts = tf.math.bincount(tf.reshape(labels, [-1]) - NO_CLASS)[1:]
        total, largest = tf.reduce_sum(counts), tf.reduce_max(tf.concat([counts, [0]], 0))
        several = tf.math.count_nonzero(counts, dtype=tf.int32) > 1
        few = tf.cast(largest, tf.float64) < own.most_of_one_class * tf.cast(total, tf.float64)
        return ~(several & few)

    (chosen,) = tf.while_loop(
        lambda number: (number < TRIES) & is_uniform(number), lambda number: [number + 1], [0]
    )
    return corners[chosen]


def nearest_lines(
    first: tf.Tensor, count: tf.Tensor, before: tf.Tensor, after: tf.Tensor
) -> tf.Tensor:
    """Returns the nearest lines of the image as OpenCV takes them, int32 (count,).

    Args:
        first: int32 tensor (). First line of the crop in the resized image.
        count: int32 tensor (). Lines of the crop.
        before: int32 tensor (). Lines of the image.
        after: int32 tensor (). Lines of the resized image.
    """
    before_, after_ = tf.cast(before, tf.float64), tf.cast(after, tf.float64)
    step = 1 / (after_ / before_)  # rounded like OpenCV's
    positions = tf.cast(tf.range(first, first + count), tf.float64) * step
    return tf.minimum(tf.cast(tf.floor(positions), tf.int32), before - 1)


def lines(first: tf.Tensor, count: tf.Tensor, before: tf.Tensor, after: tf.Tensor) -> Lines:
    """Returns the lines that a crop is interpolated from; arguments as in `nearest_lines`."""
    step = tf.cast(before, tf.float64) / tf.cast(after, tf.float64)
    centers = (tf.cast(tf.range(first, first + count), tf.float64) + 0.5) * step - 0.5
    centers = tf.maximum(centers, 0)
    start = tf.minimum(tf.cast(tf.floor(centers), tf.int32), before - 1)
    share = tf.cast(centers - tf.cast(start, tf.float64), tf.float32)
    nearest = nearest_lines(first, count, before, after)
    return Lines(nearest, start, tf.minimum(start + 1, before - 1), share)


def resized_window(encoded: tf.Tensor, rows: Lines, columns: Lines, sides: tf.Tensor) -> tf.Tensor:
    """Decodes what a crop needs, and interpolates it to whole levels, float32 (H, W, 3)."""
    top, left = rows.before[0], columns.before[0]
    window = tf.stack([top, left, rows.after[-1] + 1 - top, columns.after[-1] + 1 - left])

    def place(height: tf.Tensor, width: tf.Tensor) -> Placement:
        same = tf.debugging.assert_equal(
            tf.stack([height, width]), sides, "The image has another size than its mask"
        )
        with tf.control_dependencies([same]):
            return Placement(tf.identity(window), tf.ones((2,)), tf.zeros((2,)))

    pixels = decode_window(encoded, place)[0]
    upper, lower = (tf.gather(pixels, each - top) for each in (rows.before, rows.after))
    upper, lower = tf.cast(upper, tf.float32), tf.cast(lower, tf.float32)
    mixed = upper + rows.share[:, None, None] * (lower - upper)  # (crop, window, 3)
    before, after = (tf.gather(mixed, each - left, axis=1) for each in columns[1:3])
    return tf.floor(before + columns.share[:, None] * (after - before) + 0.5)


def padded(image: tf.Tensor, labels: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Extends a crop at the bottom and the right."""
    missing = size - tf.shape(labels)
    mean = 255 * tf.constant(IMAGENET.mean, tf.float32)
    extent = [[0, missing[0]], [0, missing[1]]]
    image = tf.pad(image - mean, [*extent, [0, 0]]) + mean
    labels = tf.pad(labels, extent, constant_values=NO_CLASS)
    return tf.ensure_shape(image, (size, size, 3)), tf.ensure_shape(labels, (size, size))
