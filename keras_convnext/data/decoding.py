"""From the bytes of a picture file to pixels, inside `tf.data`, equal to Pillow's.

TensorFlow decodes what nearly all are, JPEG and PNG of 8 bits, as Pillow does and in parallel. The
others go through Pillow itself, decided by their content: other formats, CMYK, 16 bits, pictures
that a camera says are to be turned, and what is too large or no picture, for Pillow to say why.
"""

import warnings
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_convnext.pictures import (
    MOST_SCANS,
    START_OF_SCAN,
    ImageWarning,
    pixel_limit,
    read_picture,
)

# px: half a JPEG's colours are interpolated from those of the neighbouring columns, which the
# decoder does not see past the sides of a window. What it makes up there is cut off again.
_MARGIN = 2

_PNG = b"\x89PNG\r\n\x1a\n"
_TABLES = b"\xff\xdb"  # of a JPEG, which come after all that is said about it
_METADATA = 2**16  # bytes at the start of a file, and at the end of a PNG, where EXIF is looked for
# An orientation in EXIF, little-endian or big-endian, or in XMP; 1 is upright. `\C` is any byte.
_ORIENTATION = (
    r"(?:\x12\x01[\x03\x04]\x00\x01\x00\x00\x00"
    r"|\x01\x12\x00\x03\x00\x00\x00\x01\x00"
    r"|\x01\x12\x00\x04\x00\x00\x00\x01\x00\x00\x00"
    r'|tiff:Orientation(?:="|>))'
)
_TURNED = rf"(?s)\C*{_ORIENTATION}[\x02-\x082-8]\C*"
_FIRST_ORIENTATION = rf"(?s)^\C*?{_ORIENTATION}([\x01-\x081-8])\C*$"


class Placement(NamedTuple):
    """Which window of an image is resized, and where it comes to lie in the square."""

    window: tf.Tensor  # int32 (4,): top, left, height, width
    scale: tf.Tensor  # float32 (2,): pixels of the square to one of the window, down and right
    translation: tf.Tensor  # float32 (2,): the window's corner in the square, down and right
    shrinkage: tf.Tensor  # int64 (2,): pixels by which the height and the width shrink


# Decides on the window of an image of some height and width.
Place = Callable[[tf.Tensor, tf.Tensor], Placement]
# Decodes a whole file: uint8 (H, W, 3).
Decoder = Callable[[tf.Tensor], tf.Tensor]


def decode_by_pillow(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes a file as `open_image` does: uint8 tensor (H, W, 3).

    A notice is a warning, once for all files, whose names are not known here.
    """

    def decode(encoded: tf.Tensor) -> np.ndarray:
        image, notice = read_picture(encoded.numpy())
        if notice:
            warnings.warn(f"Among the pictures: {notice}", ImageWarning, stacklevel=1)
        return np.asarray(image)

    # Not `tf.numpy_function`, which takes the zeros off the end of a file in eager mode.
    pixels = tf.py_function(decode, [encoded], tf.uint8)
    return tf.ensure_shape(pixels, (None, None, 3))


def decode_window(
    encoded: tf.Tensor, place: Place, other: Decoder = decode_by_pillow
) -> tuple[tf.Tensor, Placement]:
    """Decodes what `place` wants of an image: uint8 (H, W, 3).

    Args:
        encoded: string tensor (). The bytes of a file.
        place: function of the height and the width.
        other: function of `encoded`. Decodes what TensorFlow does not decode as Pillow does.
            Defaults to Pillow, which cannot be saved with a graph.
    """

    def jpeg() -> tuple[tf.Tensor, Placement]:
        height, width, _ = tf.unstack(tf.io.extract_jpeg_shape(encoded))
        return _window_of_jpeg(encoded, place(height, width), width)

    def whole() -> tuple[tf.Tensor, Placement]:
        pixels = tf.cond(
            _is_plain_png(encoded),
            lambda: tf.io.decode_png(encoded, channels=3),
            lambda: other(encoded),
        )
        height, width, _ = tf.unstack(tf.shape(pixels))
        placement = place(height, width)
        top, left, rows, columns = tf.unstack(placement.window)
        return pixels[top : top + rows, left : left + columns], placement

    return tf.cond(_is_plain_jpeg(encoded), jpeg, whole)


def _is_plain_jpeg(encoded: tf.Tensor) -> tf.Tensor:
    """Tells whether TensorFlow decodes a file as Pillow does: a JPEG, upright and not CMYK."""

    def is_plain() -> tf.Tensor:
        shape = tf.io.extract_jpeg_shape(encoded)
        # Where the tables follow the first segment, as in most files that no camera wrote, there is
        # no EXIF, and nothing to search for it.
        searched = tf.where(tf.strings.substr(encoded, 20, 2) == _TABLES, 0, _METADATA)
        turned = _is_turned(tf.strings.substr(encoded, 0, searched))
        return (shape[2] < 4) & _is_small(shape[:2]) & ~turned & has_few_scans(encoded)

    return tf.cond(tf.io.is_jpeg(encoded), is_plain, lambda: tf.constant(False))


def has_few_scans(encoded: tf.Tensor) -> tf.Tensor:
    """Tells whether the pixels of a JPEG are passed over as seldom as an encoder asks for."""
    parts = tf.raw_ops.StringSplitV2(input=[encoded], sep=START_OF_SCAN, maxsplit=MOST_SCANS + 1)
    return parts.shape[1] <= MOST_SCANS + 1


def _is_plain_png(encoded: tf.Tensor) -> tf.Tensor:
    """Tells the same of a PNG, upright and of at most 8 bits."""

    def is_plain() -> tf.Tensor:
        sides = tf.stack([number(encoded, 16, 4), number(encoded, 20, 4)])
        turned = _is_turned(tf.strings.join([_head(encoded), _tail(encoded)]))
        return (number(encoded, 24, 1) <= 8) & _is_small(sides) & ~turned

    is_png = begins(encoded, _PNG) & (tf.strings.length(encoded) > 33)  # as long as its header
    return tf.cond(is_png, is_plain, lambda: tf.constant(False))


def _is_small(sides: tf.Tensor) -> tf.Tensor:
    limit = pixel_limit()
    if limit is None:
        return tf.constant(True)
    return tf.reduce_prod(tf.cast(sides, tf.float64)) <= limit


def turned_upright(pixels: tf.Tensor, encoded: tf.Tensor) -> tf.Tensor:
    """Turns a decoded picture (H, W, 3) as its camera says, within a graph.

    The orientation is the first thing in the file that looks like one, where Pillow takes EXIF
    apart.
    """
    digit = tf.strings.regex_replace(_head(encoded), _FIRST_ORIENTATION, r"\1")
    # What is not replaced is the whole head, which tells nothing.
    digit = tf.where(tf.strings.length(digit) == 1, digit, "\x01")
    orientation = tf.io.decode_raw(digit, tf.uint8)[0] % 16  # the character "6" is 0x36
    bits = tf.cast(orientation, tf.int32) - 1
    # As EXIF numbers them: 5 to 8 are 1 to 4, transposed, of which the second two are the other
    # way round.
    flips = tf.gather([[0, 0], [0, 1], [1, 1], [1, 0], [0, 0], [0, 1], [1, 1], [1, 0]], bits) == 1
    pixels = tf.cond(bits > 3, lambda: tf.transpose(pixels, (1, 0, 2)), lambda: pixels)
    pixels = tf.cond(flips[0], lambda: pixels[::-1], lambda: pixels)
    return tf.cond(flips[1], lambda: pixels[:, ::-1], lambda: pixels)


def _window_of_jpeg(
    encoded: tf.Tensor, placement: Placement, width: tf.Tensor
) -> tuple[tf.Tensor, Placement]:
    top, left, rows, columns = tf.unstack(placement.window)
    start = tf.maximum(left - _MARGIN, 0)
    end = tf.minimum(left + columns + _MARGIN, width)
    pixels = tf.io.decode_and_crop_jpeg(
        encoded,
        tf.stack([top, start, rows, end - start]),
        channels=3,
        dct_method="INTEGER_ACCURATE",
    )
    return pixels[:, left - start : left - start + columns], placement


def begins(encoded: tf.Tensor, magic: bytes) -> tf.Tensor:
    """Tells whether a file begins with some bytes."""
    return tf.strings.substr(encoded, 0, len(magic)) == magic


def number(encoded: tf.Tensor, start: int, length: int, little_endian: bool = False) -> tf.Tensor:
    """Reads a number without sign from a file that is long enough: float64 ()."""
    digits = tf.io.decode_raw(tf.strings.substr(encoded, start, length), tf.uint8)
    digits = digits[::-1] if little_endian else digits
    values = 256.0 ** np.arange(length - 1, -1, -1, dtype=np.float64)
    return tf.reduce_sum(tf.cast(digits, tf.float64) * values)


def _is_turned(metadata: tf.Tensor) -> tf.Tensor:
    return tf.strings.regex_full_match(metadata, _TURNED)


def _head(encoded: tf.Tensor) -> tf.Tensor:
    return tf.strings.substr(encoded, 0, _METADATA)


def _tail(encoded: tf.Tensor) -> tf.Tensor:
    start = tf.maximum(tf.strings.length(encoded) - _METADATA, 0)
    return tf.strings.substr(encoded, start, _METADATA)
