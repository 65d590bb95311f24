"""Bicubic resizing in Pillow's fixed-point arithmetic, in NumPy and in an order of one's choice."""

import numpy as np
from PIL import Image

BITS = 22  # of a weight's fraction: Pillow's PRECISION_BITS


def bicubic(x):
    x = np.abs(x)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((5 - x) * x - 8) * x * 0.5 + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def weights(old, new):
    """The whole-number weights (new, old) of one pass over an axis."""
    scale = old / new
    reach = 2 * max(scale, 1)
    table = np.zeros((new, old))
    for row, place in enumerate(table):
        center = (row + 0.5) * scale
        start, end = max(int(center - reach + 0.5), 0), min(int(center + reach + 0.5), old)
        found = bicubic((np.arange(start, end) - center + 0.5) / max(scale, 1))
        place[start:end] = np.trunc(found / found.sum() * 2**BITS + np.copysign(0.5, found))
    return table


def one_pass(pixels, new, axis):
    """Resizes uint8 (H, W, C) along one axis, to whole gray levels."""
    if pixels.shape[axis] == new:
        return pixels
    # In float64, these whole numbers are exact.
    sums = np.moveaxis(np.tensordot(weights(pixels.shape[axis], new), pixels, (1, axis)), 0, axis)
    return np.clip(np.floor((sums + 2 ** (BITS - 1)) / 2**BITS), 0, 255).astype("u1")


def width_first(image, sides, resample=Image.Resampling.BICUBIC):
    """What `Image.resize` of Pillow 12.1 and earlier returns for an RGB image."""
    assert (image.mode, resample) == ("RGB", Image.Resampling.BICUBIC)
    return Image.fromarray(one_pass(one_pass(np.asarray(image), sides[0], 1), sides[1], 0))


def height_first(image, sides):
    """What Pillow 13 returns if the height shrinks by far more than the width."""
    return Image.fromarray(one_pass(one_pass(np.asarray(image), sides[1], 0), sides[0], 1))
