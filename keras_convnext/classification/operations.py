"""The operations of RandAugment on one image, with the same results as in Pillow.

Each takes a uint8 tensor (H, W, 3) and, if it has a strength, a scalar, and returns a uint8 tensor
of the same shape. As in Pillow, blended and interpolated pixels are truncated to whole gray levels.

Positions are computed in double precision, as in Pillow. Results are then equal in eager mode and
in a graph, whose compiler changes the order of operations: the differences vanish when positions
are rounded to single precision.
"""

import math
from collections.abc import Sequence

import tensorflow as tf

from keras_convnext.normalization import IMAGENET

# The fill color outside the image: the mean color, in whole gray levels.
FILL = tuple(round(255 * mean) for mean in IMAGENET.mean)

# Weights of red, green and blue in Pillow's gray conversion, in units of 1 / 65536.
_GRAY = (19595, 38470, 7471)


def auto_contrast(image: tf.Tensor) -> tf.Tensor:
    """Stretches each channel so that its darkest pixel becomes 0 and its brightest 255."""
    low = tf.cast(tf.reduce_min(image, (0, 1)), tf.float64)
    high = tf.cast(tf.reduce_max(image, (0, 1)), tf.float64)
    scale = tf.where(high > low, 255 / (high - low), 1)
    offset = tf.where(high > low, -low * scale, 0)
    # The formula of Pillow's lookup table; computing every pixel is faster than looking it up.
    levels = tf.cast(_lines(image), tf.float64)
    levels = levels * _along_line(scale, image) + _along_line(offset, image)
    return tf.reshape(_to_levels(levels), tf.shape(image))


def equalize(image: tf.Tensor) -> tf.Tensor:
    """Equalizes the histogram of each channel."""
    # A unique index for each level of each channel.
    numbers = tf.cast(_lines(image), tf.int32) + _along_line(tf.constant((0, 256, 512)), image)
    counts = tf.math.bincount(tf.reshape(numbers, (-1,)), minlength=768, maxlength=768)
    counts = tf.reshape(counts, (3, 256))
    levels = tf.range(256)[None]  # (1, 256)
    brightest = tf.reduce_max(tf.where(counts > 0, levels, 0), 1)
    last = tf.gather(counts, brightest, batch_dims=1)
    step = ((tf.reduce_sum(counts, 1) - last) // 255)[:, None]
    darker = tf.cumsum(counts, axis=1, exclusive=True)
    equalized = tf.minimum((step // 2 + darker) // tf.maximum(step, 1), 255)
    table = tf.cast(tf.where(step > 0, equalized, levels), tf.uint8)
    return tf.reshape(tf.gather(tf.reshape(table, (-1,)), numbers), tf.shape(image))


def invert(image: tf.Tensor) -> tf.Tensor:
    """Inverts all pixels."""
    return 255 - image


def posterize(image: tf.Tensor, bits: tf.Tensor) -> tf.Tensor:
    """Keeps the `bits` most significant bits of each pixel."""
    dropped = tf.bitwise.left_shift(1, 8 - tf.cast(bits, tf.int32)) - 1
    return tf.bitwise.bitwise_and(image, tf.cast(255 - dropped, tf.uint8))


def solarize(image: tf.Tensor, threshold: tf.Tensor) -> tf.Tensor:
    """Inverts all values of at least `threshold`, in 0..256."""
    bright = tf.cast(image, tf.int16) >= tf.cast(threshold, tf.int16)  # 256 exceeds uint8
    return tf.bitwise.bitwise_xor(image, 255 * tf.cast(bright, tf.uint8))


def solarize_add(image: tf.Tensor, added: tf.Tensor) -> tf.Tensor:
    """Adds `added`, at most 128, to all values below 128."""
    return image + tf.cast(added, tf.uint8) * tf.cast(image < 128, tf.uint8)


def color(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Scales the difference between each pixel and its gray level by `factor`."""
    pixels = tf.cast(image, tf.float32)
    return _blend(_gray(pixels), pixels, factor)


def contrast(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Scales the difference between each pixel and the mean gray level by `factor`."""
    pixels = tf.cast(image, tf.float32)
    gray = tf.cast(_gray(pixels)[..., 0], tf.int32)
    # In integers, because a float32 sum depends on the order of summation.
    mean = tf.reduce_sum(gray) / tf.size(gray)
    return _blend(tf.cast(tf.floor(mean + 0.5), tf.float32), pixels, factor)


def brightness(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Scales each pixel by `factor`."""
    return _blend(0.0, tf.cast(image, tf.float32), factor)


def sharpness(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Scales the difference between the image and a smoothed one by `factor`, except at borders."""
    pixels = tf.cast(image, tf.float32)
    center = pixels[1:-1, 1:-1]
    rows = pixels[:-2] + pixels[1:-1] + pixels[2:]
    box = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    smooth = tf.floor((box + 4 * center) / 13 + 0.5)
    inner = _blend(smooth, center, factor)
    inner = tf.concat([image[1:-1, :1], inner, image[1:-1, -1:]], axis=1)
    return tf.concat([image[:1], inner, image[-1:]], axis=0)


def shear_x(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Shifts each row by `factor` times its distance from the top, to the left if positive."""
    return _shift(image, _slanted(_sides(image)[0], factor), axis=1)


def shear_y(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Shifts each column by `factor` times its distance from the left, up if positive."""
    return _shift(image, _slanted(_sides(image)[1], factor), axis=0)


def translate_x(image: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    """Shifts the image by `share` of its width, to the left if positive."""
    return _translate(image, share, axis=1)


def translate_y(image: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
    """Shifts the image by `share` of its height, up if positive."""
    return _translate(image, share, axis=0)


def rotate(image: tf.Tensor, degrees: tf.Tensor) -> tf.Tensor:
    """Rotates the image counter-clockwise around its center."""
    height, width = _sides(image)
    half_width, half_height = (tf.cast(side, tf.float64) / 2 for side in (width, height))
    # Maps the center of each output pixel to its position in the image.
    angle = -tf.cast(degrees, tf.float64) * (math.pi / 180)
    cosine, sine = tf.cos(angle), tf.sin(angle)
    right = tf.range(width, dtype=tf.float64)[None] + 0.5 - half_width
    down = tf.range(height, dtype=tf.float64)[:, None] + 0.5 - half_height
    x = tf.reshape(cosine * right + sine * down, (-1,)) + half_width  # (H W,)
    y = tf.reshape(cosine * down - sine * right, (-1,)) + half_height
    inside = (x >= 0) & (x < 2 * half_width) & (y >= 0) & (y < 2 * half_height)
    left, top = tf.floor(x - 0.5), tf.floor(y - 0.5)
    across = _cubic_weights(tf.cast(x - 0.5 - left, tf.float32))
    down = _cubic_weights(tf.cast(y - 0.5 - top, tf.float32))

    # Four pixels of a row side by side, so that one look-up finds them all.
    padded = tf.concat([image[:, :1]] * 2 + [image] + [image[:, -1:]] * 2, axis=1)
    fours = tf.concat([padded[:, shift : shift + width + 1] for shift in range(4)], axis=2)
    fours = tf.reshape(fours, (-1, 12))
    column = tf.clip_by_value(tf.cast(left, tf.int32) + 1, 0, width)
    top = tf.cast(top, tf.int32)
    rows = []
    for shift in range(-1, 3):
        row = tf.clip_by_value(top + shift, 0, height - 1)
        found = tf.gather(fours, row * (width + 1) + column)  # (H W, 12): four pixels of RGB
        # Transposed so that a weight applies to a column, which is faster than broadcasting it
        # along a row.
        rows.append(tf.cast(tf.transpose(found), tf.float32))
    turned = _weighted(tf.split(_weighted(rows, down), 4), across)  # (3, H W)
    turned = tf.where(inside, _to_levels(turned), tf.constant(FILL, tf.uint8)[:, None])
    return tf.reshape(tf.transpose(turned), tf.shape(image))


def _slanted(lines: int | tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    return tf.cast(factor, tf.float64) * (tf.range(lines, dtype=tf.float64) + 0.5)


def _translate(image: tf.Tensor, share: tf.Tensor, axis: int) -> tf.Tensor:
    """Moves the image back by a share of its length along `axis`: 0 for rows, 1 for columns.

    The result is that of `_shift` with equal shifts, but neighbors are slices instead of lookups.
    """
    length = _sides(image)[axis]
    shift = tf.cast(share, tf.float64) * tf.cast(length, tf.float64)
    whole = tf.floor(shift)
    first = tf.cast(tf.math.ceil(-shift - 0.5), tf.int32)  # output index of the first pixel
    ahead, behind = tf.clip_by_value(first, 0, length), tf.clip_by_value(-first, 0, length)
    shown = length - ahead - behind

    def part(lines: tf.Tensor, begin: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        end = begin + count
        return lines[:, 3 * begin : 3 * end] if axis else lines[begin:end]

    lines = _lines(image)
    rims = [part(lines, 0, 1)] * 2, [part(lines, length - 1, 1)] * 2
    padded = tf.cast(tf.concat([*rims[0], lines, *rims[1]], axis), tf.float32)
    start = tf.cast(whole, tf.int32) + ahead + 1  # one before the pixel; padding adds two
    neighbors = [part(padded, start + tap, shown) for tap in range(4)]
    moved = _to_levels(_weighted(neighbors, _cubic_weights(tf.cast(shift - whole, tf.float32))))
    fill = tf.broadcast_to(_along_line(tf.constant(FILL, tf.uint8), image), tf.shape(lines))
    moved = tf.concat([part(fill, 0, ahead), moved, part(fill, 0, behind)], axis)
    return tf.reshape(moved, tf.shape(image))


def _shift(image: tf.Tensor, shifts: tf.Tensor, axis: int) -> tf.Tensor:
    """Moves each line back by its own number of pixels along `axis`: 1 for rows, 0 for columns."""
    sides = _sides(image)
    length, lines = sides[axis], sides[1 - axis]
    step, line_step = (1, sides[1]) if axis else (sides[1], 1)
    whole = tf.floor(shifts)
    along = tf.cast(whole, tf.int32)[:, None] + tf.range(-1, length + 2)
    along = tf.clip_by_value(along, 0, length - 1) * step + tf.range(lines)[:, None] * line_step
    pixels = tf.gather(tf.reshape(image, (-1, 3)), along)  # (lines, length + 3, 3)
    pixels = tf.cast(tf.reshape(pixels, (lines, -1)), tf.float32)
    neighbors = [pixels[:, 3 * first : 3 * (first + length)] for first in range(4)]
    weights = _cubic_weights(tf.cast(shifts - whole, tf.float32)[:, None])
    moved = _to_levels(_weighted(neighbors, weights))  # (lines, 3 length)

    # Positions of pixels whose center lies inside the image.
    first = tf.cast(tf.math.ceil(-shifts - 0.5), tf.int32)[:, None]
    place = tf.repeat(tf.range(length), 3)
    inside = tf.cast((place >= first) & (place < first + length), tf.uint8)
    fill = tf.tile(tf.constant(FILL, tf.uint8), [length])
    moved = tf.reshape(inside * moved + (1 - inside) * fill, (lines, length, 3))
    return moved if axis else tf.transpose(moved, (1, 0, 2))


def _cubic_weights(t: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Returns the weights of the first, third and fourth of four neighbors, `t` after the second.

    The weight of the second is the remainder to 1. `t` is in 0..1. Pillow's transforms use another
    bicubic kernel than its resizing, with the parameter -1 instead of -0.5.
    """
    rest = 1 - t
    return -t * rest * rest, t * (1 + t * rest), -t * t * rest


def _weighted(neighbors: Sequence[tf.Tensor], weights: Sequence[tf.Tensor]) -> tf.Tensor:
    """Interpolates four neighbors with `_cubic_weights`; equal neighbors are unchanged.

    Avoids a sum of several terms, whose order a graph's compiler would change.
    """
    before, here, after, beyond = neighbors
    moved = here - weights[0] * (here - before)
    moved -= weights[1] * (here - after)
    return moved - weights[2] * (here - beyond)


def _blend(base: tf.Tensor | float, pixels: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    return _to_levels(base + tf.cast(factor, tf.float32) * (pixels - base))


def _to_levels(pixels: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.clip_by_value(pixels, 0, 255), tf.uint8)


def _gray(pixels: tf.Tensor) -> tf.Tensor:
    """Converts float32 (H, W, 3) to gray as in Pillow, in whole levels, in all three channels."""
    weights = tf.constant([[part / 65536] * 3 for part in _GRAY])
    gray = tf.matmul(tf.reshape(pixels, (-1, 3)), weights)
    return tf.reshape(tf.floor(gray + 0.5), tf.shape(pixels))


def _lines(image: tf.Tensor) -> tf.Tensor:
    """Flattens the pixels of each row to (H, 3 W).

    Arithmetic with the result of `_along_line` is ten times as fast as (H, W, 3) with (3,).
    """
    return tf.reshape(image, (tf.shape(image)[0], -1))


def _along_line(of_channels: tf.Tensor, image: tf.Tensor) -> tf.Tensor:
    """Repeats one value per channel for every pixel in a row of `_lines`."""
    return tf.tile(of_channels, [_sides(image)[1]])


def _sides(image: tf.Tensor) -> tuple[int | tf.Tensor, int | tf.Tensor]:
    """Height and width, as int if they are known when the graph is built."""
    dynamic = tf.shape(image)
    height, width = image.shape[:2]
    return height or dynamic[0], width or dynamic[1]
