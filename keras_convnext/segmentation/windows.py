"""Predicts the class of each pixel of an image of any size, in windows and with bounded memory.

The rules are those of open-mmlab/mmsegmentation, mmseg/models/segmentors/encoder_decoder.py: where
windows overlap, their logits are averaged; the result is resized to the size of the original image,
and each pixel has the class of its largest logit.

Only the rows that later windows still change are kept, so the memory does not grow with the height
of the image.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from keras_convnext.resizing import positions

# Maps an image (1, h, w, 3) to logits or probabilities (1, h, w, classes).
Predict = Callable[[np.ndarray], np.ndarray]


class Window(NamedTuple):
    """A part of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


def starts(side: int, crop: int, stride: int) -> list[int]:
    """Returns the first pixel of each window along a side.

    The last window ends with the image, and so overlaps the one before by more than others.
    """
    number = max(side - crop + stride - 1, 0) // stride + 1
    return [max(min(index * stride, side - crop), 0) for index in range(number)]


def windows(height: int, width: int, crop: int, stride: int) -> Iterator[list[Window]]:
    """Yields the windows of an image, row by row.

    Args:
        height: int. Height of the image.
        width: int. Width of the image.
        crop: int. Side of a window. Smaller images have one smaller window.
        stride: int. Distance between two windows.
    """
    for top in starts(height, crop, stride):
        yield [
            Window(top, left, min(crop, height), min(crop, width))
            for left in starts(width, crop, stride)
        ]


def mean_logits(
    image: np.ndarray, predict: Predict, crop: int, stride: int
) -> Iterator[np.ndarray]:
    """Yields the averaged logits of an image, a band of rows (rows, W, classes) at a time.

    Args:
        image: array (H, W, 3).
        predict: function.
        crop: int. Side of a window.
        stride: int. Distance between two windows.
    """
    height, width = image.shape[:2]
    rows = list(windows(height, width, crop, stride))
    tops = [row[0].top for row in rows] + [height]
    sums: np.ndarray | None = None  # of the rows from `tops[index]` on
    counts = np.zeros((0, width, 1), np.float32)
    for index, row in enumerate(rows):
        counts = _with_rows(counts, row[0].height)
        for window in row:
            bottom, right = window.top + window.height, window.left + window.width
            logits = predict(image[None, window.top : bottom, window.left : right])[0]
            if sums is None:
                sums = np.zeros((0, width, logits.shape[-1]), np.float32)
            sums = _with_rows(sums, window.height)
            sums[:, window.left : right] += logits
            counts[:, window.left : right] += 1
        assert sums is not None  # each row has a window
        ready = tops[index + 1] - tops[index]
        yield sums[:ready] / counts[:ready]
        sums, counts = sums[ready:], counts[ready:]


def _with_rows(array: np.ndarray, rows: int) -> np.ndarray:
    """Adds rows of zeros at the end; returns the array itself if it has as many."""
    if len(array) == rows:  # as for all windows of a row but the first
        return array
    return np.pad(array, ((0, rows - len(array)), (0, 0), (0, 0)))


def whole_at(logits: np.ndarray, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Yields the rows (W, classes) of logits resized as in `class_map`.

    Args:
        logits: array (h, w, classes).
        size: tuple of int. Height and width of the result.
    """
    above, below, shares = positions(logits.shape[0], size[0])
    for upper, lower, share in zip(above, below, shares):
        yield _wider(logits[upper] + share * (logits[lower] - logits[upper]), size[1])


def class_map(bands: Iterator[np.ndarray], height: int, size: tuple[int, int]) -> np.ndarray:
    """Returns the class of each pixel after the logits are resized by bilinear interpolation.

    The centers of the corner pixels are not aligned, and nothing is antialiased, as in PyTorch's
    `interpolate(mode="bilinear", align_corners=False)`.

    Args:
        bands: iterator of arrays (rows, W, classes), from the top of the image to its bottom.
        height: int. Rows in all bands.
        size: tuple of int. Height and width of the result.

    Returns:
        int32 array of shape `size`.
    """
    above, below, shares = positions(height, size[0])
    classes = np.empty(size, np.int32)
    band, first, written = next(bands), 0, 0
    while True:
        last = first + len(band)
        end = int(np.searchsorted(below, last))  # the rows whose neighbors are all in the band
        for row in range(written, end):
            upper, lower = band[above[row] - first], band[below[row] - first]
            classes[row] = _wider(upper + shares[row] * (lower - upper), size[1]).argmax(axis=-1)
        written = end
        if written == size[0]:
            return classes
        kept = min(int(above[written]), last)
        band, first = np.concatenate([band[kept - first :], next(bands)]), kept


def _wider(row: np.ndarray, width: int) -> np.ndarray:
    """Interpolates a row (W, classes) to another width."""
    if len(row) == width:
        return row
    left, right, shares = positions(len(row), width)
    return row[left] + shares[:, None] * (row[right] - row[left])
