"""Decodes image files inside `tf.data` to the same pixels as Pillow.

TensorFlow decodes the most common files, 8-bit JPEG and PNG, to the same pixels as Pillow, and in
parallel. All others are passed to Pillow, depending on their content: other formats, CMYK, 16 bits,
images with an EXIF rotation, and files that are too large or not images, so that Pillow reports the
reason.
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

# px: subsampled JPEG chroma is interpolated from neighboring columns, which the decoder does not
# read beyond the sides of a window. The columns with wrong values are cropped afterwards.
_MARGIN = 2

_PNG = b"\x89PNG\r\n\x1a\n"
# The length of a chunk, whose upper byte is not zero, and its type.
_HUGE_CHUNK = r"(?s)\C*[\x01-\x7f]\C\C\C(?:iTXt|tEXt|zTXt|iCCP|sPLT|eXIf|pCAL|sCAL|hIST)\C*"
_TABLES = b"\xff\xdb"  # JPEG quantization tables, which follow all metadata
_EXIF = b"\xff\xe1"  # a JPEG segment that may contain EXIF or XMP
_METADATA = 2**16  # bytes searched for EXIF at the start of a file, and at the end of a PNG
# The orientation in EXIF, little-endian or big-endian, or in XMP; 1 is upright. `\C` is any byte.
_ORIENTATION = (
    r"(?:\x12\x01[\x03\x04]\x00\x01\x00\x00\x00"
    r"|\x01\x12\x00\x03\x00\x00\x00\x01\x00"
    r"|\x01\x12\x00\x04\x00\x00\x00\x01\x00\x00\x00"
    r'|tiff:Orientation(?:="|>))'
)
_TURNED = rf"(?s)\C*{_ORIENTATION}[\x02-\x082-8]\C*"
_FIRST_ORIENTATION = rf"(?s)^\C*?{_ORIENTATION}([\x01-\x081-8])\C*$"


class Placement(NamedTuple):
    """The window of an image that is resized, and its position in the square."""

    window: tf.Tensor  # int32 (4,): top, left, height, width
    scale: tf.Tensor  # float32 (2,): square pixels per window pixel, vertically and horizontally
    translation: tf.Tensor  # float32 (2,): window corner in the square, vertically, horizontally


# Chooses the window for an image's height and width.
Place = Callable[[tf.Tensor, tf.Tensor], Placement]
# Decodes a whole file to uint8 (H, W, 3).
Decoder = Callable[[tf.Tensor], tf.Tensor]


def decode_by_pillow(encoded: tf.Tensor) -> tf.Tensor:
    """Decodes a file like `open_image`, to a uint8 tensor (H, W, 3).

    Notices become warnings without file names, which are not known here.
    """

    def decode(encoded: tf.Tensor) -> np.ndarray:
        image, notice = read_picture(encoded.numpy())
        if notice:
            warnings.warn(f"In some image files: {notice}", ImageWarning, stacklevel=1)
        return np.asarray(image)

    # Not `tf.numpy_function`, which strips trailing zeros from the file in eager mode.
    pixels = tf.py_function(decode, [encoded], tf.uint8)
    return tf.ensure_shape(pixels, (None, None, 3))


def decode_window(
    encoded: tf.Tensor, place: Place, other: Decoder = decode_by_pillow
) -> tuple[tf.Tensor, Placement]:
    """Decodes the window of an image chosen by `place`, to uint8 (H, W, 3).

    Args:
        encoded: string tensor (). The bytes of a file.
        place: function (height, width) that returns the `Placement`.
        other: function of `encoded`. Decodes the files that TensorFlow does not decode like
            Pillow. Defaults to Pillow, which cannot be saved in a graph.

    Returns:
        The pixels of the window, and the `Placement`.
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
    """Whether TensorFlow decodes a file like Pillow: an upright JPEG that is not CMYK."""

    def is_plain() -> tf.Tensor:
        shape = tf.io.extract_jpeg_shape(encoded)
        # If the tables follow the first segment, or no segment can contain EXIF, as in most files
        # not written by a camera, there is nothing to search for. Finding two bytes takes a quarter
        # of the time of the regular expression.
        searched = tf.where(tf.strings.substr(encoded, 20, 2) == _TABLES, 0, _METADATA)
        head = tf.strings.substr(encoded, 0, searched)
        searched = tf.where(_has_more(head, _EXIF, 0), _METADATA, 0)
        turned = _is_turned(tf.strings.substr(head, 0, searched))
        return (shape[2] < 4) & _is_small(shape[:2]) & ~turned & has_few_scans(encoded)

    is_jpeg = tf.io.is_jpeg(encoded) & (tf.strings.length(encoded) > 22)  # where `is_plain` looks
    return tf.cond(is_jpeg, is_plain, lambda: tf.constant(False))


def has_few_scans(encoded: tf.Tensor) -> tf.Tensor:
    """Whether a JPEG has no more scans than encoders write."""
    return ~_has_more(encoded, START_OF_SCAN, MOST_SCANS)


def _has_more(data: tf.Tensor, mark: bytes, most: int) -> tf.Tensor:
    """Whether some bytes are found more than `most` times."""
    parts = tf.raw_ops.StringSplitV2(input=[data], sep=mark, maxsplit=most + 1)
    return parts.shape[1] > most + 1


def _is_plain_png(encoded: tf.Tensor) -> tf.Tensor:
    """Whether TensorFlow decodes a file like Pillow: an upright PNG of at most 8 bits."""

    def is_plain() -> tf.Tensor:
        sides = tf.stack([number(encoded, 16, 4), number(encoded, 20, 4)])
        turned = _is_turned(tf.strings.join([_head(encoded), _tail(encoded)]))
        modest = has_modest_chunks(encoded)
        return (number(encoded, 24, 1) <= 8) & _is_small(sides) & ~turned & modest

    is_png = begins(encoded, _PNG) & (tf.strings.length(encoded) > 33)  # length of the header
    return tf.cond(is_png, is_plain, lambda: tf.constant(False))


def has_modest_chunks(encoded: tf.Tensor) -> tf.Tensor:
    """Whether no chunk of metadata in a PNG claims more than the file, which TensorFlow allocates.

    The chunks are followed only if one seems to claim 16 MB, as in one of a thousand megabytes of
    pixels.
    """
    length = tf.cast(tf.strings.length(encoded), tf.float64)

    def follow(start: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        claimed = number(encoded, tf.cast(start, tf.int32), 4)
        return start + 12 + claimed, claimed <= length

    def chunks() -> tf.Tensor:
        first = tf.constant(len(_PNG), tf.float64), tf.constant(True)
        return tf.while_loop(lambda start, few: few & (start + 8 <= length), follow, first)[1]

    is_suspect = tf.strings.regex_full_match(encoded, _HUGE_CHUNK)
    return tf.cond(is_suspect, chunks, lambda: tf.constant(True))


def _is_small(sides: tf.Tensor) -> tf.Tensor:
    limit = pixel_limit()
    if limit is None:
        return tf.constant(True)
    return tf.reduce_prod(tf.cast(sides, tf.float64)) <= limit


def turned_upright(pixels: tf.Tensor, encoded: tf.Tensor) -> tf.Tensor:
    """Applies the EXIF orientation of a file to its decoded image (H, W, 3), inside a graph.

    The first match in the file that looks like an orientation is used; Pillow parses EXIF instead.
    """
    digit = tf.strings.regex_replace(_head(encoded), _FIRST_ORIENTATION, r"\1")
    # Without a match, the result is the whole head, and the image is taken to be upright.
    digit = tf.where(tf.strings.length(digit) == 1, digit, "\x01")
    orientation = tf.io.decode_raw(digit, tf.uint8)[0] % 16  # the character "6" is 0x36
    bits = tf.cast(orientation, tf.int32) - 1
    # EXIF's numbers: 5 to 8 are the transposes of 1 to 4, with the last two swapped.
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
    """Whether a file begins with the given bytes."""
    return tf.strings.substr(encoded, 0, len(magic)) == magic


def number(
    encoded: tf.Tensor, start: int | tf.Tensor, length: int, little_endian: bool = False
) -> tf.Tensor:
    """Reads an unsigned integer from a file that is long enough, as float64 ()."""
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
