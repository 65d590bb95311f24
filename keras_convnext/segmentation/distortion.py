"""Photometric distortion, with the rounding of OpenCV's 8-bit colors."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

BRIGHTNESS = 32.0  # largest change, in gray levels
FACTORS = (0.5, 1.5)  # of contrast and saturation
HUES = 180  # of a full turn, in 8 bits
_HUE = 18  # largest change
_SHIFT = 12  # bits after the point in OpenCV's tables


def distorted(image: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """Changes brightness, contrast, saturation and hue, each with probability 0.5.

    Contrast comes either before or after saturation and hue. Each step rounds down to whole levels
    in 0..255.

    Args:
        image: float32 tensor (H, W, 3). RGB, whole levels in 0..255.
        draws: float32 tensor (2, 5). Uniform numbers in [0, 1): whether brightness, contrast,
            saturation and hue are changed, and whether contrast comes early; and by how much.

    Returns:
        float32 tensor (H, W, 3), whole levels.

    References:
        open-mmlab/mmsegmentation, `PhotoMetricDistortion`.
    """
    brightness, contrast, saturation, hue, early = tf.unstack(draws[0] < 0.5)
    low, high = FACTORS
    amounts = low + (high - low) * draws[1]
    image = _if(brightness, lambda x: convert(x, 1.0, BRIGHTNESS * (2 * draws[1, 0] - 1)), image)
    image = _if(contrast & early, lambda x: convert(x, amounts[1], 0.0), image)
    image = _if(saturation, lambda x: saturate(x, amounts[2]), image)
    turn = tf.cast(tf.floor(2 * _HUE * draws[1, 3]), tf.int32) - _HUE
    image = _if(hue, lambda x: turn_hue(x, turn), image)
    return _if(contrast & ~early, lambda x: convert(x, amounts[1], 0.0), image)


def _if(
    condition: tf.Tensor, change: Callable[[tf.Tensor], tf.Tensor], image: tf.Tensor
) -> tf.Tensor:
    return tf.cond(condition, lambda: change(image), lambda: image)


def convert(levels: tf.Tensor, factor: tf.Tensor | float, offset: tf.Tensor | float) -> tf.Tensor:
    """Scales and shifts levels, and rounds them down to whole levels in 0..255."""
    return tf.floor(tf.clip_by_value(levels * factor + offset, 0.0, 255.0))


def saturate(image: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Multiplies the saturation."""
    hue, saturation, value = to_hsv(image)
    saturation = convert(tf.cast(saturation, tf.float32), factor, 0.0)
    return to_rgb(hue, saturation, value)


def turn_hue(image: tf.Tensor, turn: tf.Tensor) -> tf.Tensor:
    """Adds to the hue, in steps of 2 degrees."""
    hue, saturation, value = to_hsv(image)
    return to_rgb(tf.math.floormod(hue + turn, HUES), tf.cast(saturation, tf.float32), value)


def to_hsv(image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Converts RGB to OpenCV's 8-bit hue (0..179), saturation and value (0..255), int32 (H, W)."""
    red, green, blue = tf.unstack(tf.cast(image, tf.int32), axis=-1)
    value = tf.maximum(tf.maximum(red, green), blue)
    spread = value - tf.minimum(tf.minimum(red, green), blue)
    saturation = _shifted(spread * tf.gather(_inverse(255), value))
    sector = tf.where(
        value == red,
        green - blue,
        tf.where(value == green, blue - red + 2 * spread, red - green + 4 * spread),
    )
    hue = _shifted(sector * tf.gather(_inverse(HUES / 6), spread))
    return hue + tf.where(hue < 0, HUES, 0), saturation, value


def to_rgb(hue: tf.Tensor, saturation: tf.Tensor, value: tf.Tensor) -> tf.Tensor:
    """Converts hue, saturation and value to RGB, float32 (H, W, 3), rounded down to whole levels.

    OpenCV rounds the last pixels of a row, which do not fill a vector, to the nearest level.
    """
    position = tf.cast(hue, tf.float32) * (6 / HUES)
    sector = tf.floor(position)
    within = position - sector
    value, saturation = tf.cast(value, tf.float32) * (1 / 255), saturation * (1 / 255)
    low = value * (1 - saturation)
    falling = value * (1 - saturation * within)
    rising = value * (1 - saturation * (1 - within))
    rows = (  # red, green and blue in each sector of 60 degrees
        (value, rising, low),
        (falling, value, low),
        (low, value, rising),
        (low, falling, value),
        (rising, low, value),
        (value, low, falling),
    )
    channels = []
    for channel in range(3):
        chosen = rows[5][channel]
        for number in range(4, -1, -1):
            chosen = tf.where(sector == number, rows[number][channel], chosen)
        channels.append(chosen)
    return tf.floor(255 * tf.stack(channels, axis=-1))


def _inverse(factor: float) -> np.ndarray:
    """Returns `factor / n` for n in 0..255, in fixed point; 0 for n = 0."""
    numbers = np.arange(1, 256)
    return np.concatenate([[0], np.rint((factor * 2**_SHIFT) / numbers)]).astype(np.int32)


def _shifted(product: tf.Tensor) -> tf.Tensor:
    """Removes the bits after the point, rounded."""
    return tf.bitwise.right_shift(product + 2 ** (_SHIFT - 1), _SHIFT)
