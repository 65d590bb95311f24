"""Reads the labels in masks: PNG files with an index, a palette, 16 bits or colors."""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image

from keras_convnext.data.decoding import begins, has_modest_chunks, number
from keras_convnext.data.errors import DataError
from keras_convnext.data.stored import File, Stored, content, title
from keras_convnext.pictures import FORMATS, ImageError, pixel_limit, read_picture
from keras_convnext.pillow_output import silent_pillow
from keras_convnext.segmentation.losses import NO_CLASS

_PNG = b"\x89PNG\r\n\x1a\n"
_DEPTH, _COLORS = 24, 25  # places of the bit depth and the color type in a PNG
_GRAY = 0  # a color type
_JPEG = b"\xff\xd8"

Color = tuple[int, int, int]


class Mask(NamedTuple):
    """The content of a mask.

    Args:
        labels: uint8, uint16 or int64 array (H, W). Labels, or colors as `0xRRGGBB`.
        has_colors: bool. Whether the values are colors.
    """

    labels: np.ndarray
    has_colors: bool


def read_mask(file: File | Path | bytes, name: str | None = None) -> Mask:
    """Reads a mask.

    The labels of a mask with a palette are its indices. Gray values of less than 8 bits are not
    scaled.

    Args:
        file: str, path, record or bytes. A PNG file.
        name: str or None. The name to use in errors. Defaults to None, for that of the file.

    Raises:
        DataError: If it is no PNG, has an alpha channel, or is damaged or too large.
    """
    name = title(file) if name is None else name
    data = file if isinstance(file, bytes) else content(file)
    if data[:2] == _JPEG:
        raise DataError(
            "A mask must not be a JPEG, whose compression changes the labels around edges. Save "
            f"the masks as PNG, from their original. Received: {name}"
        )
    if data[: len(_PNG)] != _PNG:
        _refuse_other(data, name)
    try:
        with silent_pillow(), Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            return _labels_of(image, data, name)
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(
            f"The mask has more than {pixel_limit() or 0:,} pixels and may be a decompression "
            f"bomb. Make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS. Received: {name}"
        ) from error
    except Exception as error:  # Pillow's decoder raises many kinds of errors for damaged files
        raise DataError(f"The mask is broken: {error}. Received: {name}") from error


def _refuse_other(data: bytes, name: str) -> None:
    if not data:
        raise DataError(f"The mask is empty. Restore or delete it. Received: {name}")
    try:
        read_picture(data, name)
    except ImageError as error:
        raise DataError(f"A mask is no PNG. {error}") from error
    raise DataError(f"A mask must be a PNG file. Convert it without loss. Received: {name}")


def _labels_of(image: Image.Image, data: bytes, name: str) -> Mask:
    if image.mode in ("LA", "PA", "RGBA"):
        raise DataError(
            "A mask must not have an alpha channel, because transparent pixels have no clear "
            f"label. Save it without, as gray values, palette or RGB. Received: {name}"
        )
    if image.mode == "RGB":
        red, green, blue = np.moveaxis(np.asarray(image).astype(np.int64), -1, 0)
        return Mask(red << 16 | green << 8 | blue, True)
    labels = np.asarray(image)
    if labels.dtype == bool:
        labels = labels.astype(np.uint8)
    depth = data[_DEPTH]
    if image.mode == "L" and depth < 8:
        labels = labels // (255 // (2**depth - 1))  # Pillow scales gray values to 0..255
    if image.mode.startswith("I"):
        labels = labels.astype(np.uint16)
    return Mask(labels, False)


def color_of(value: int) -> Color:
    """Returns the red, green and blue of a color in a `Mask`."""
    return value >> 16, value >> 8 & 255, value & 255


class Table(NamedTuple):
    """The class of each label, or of each color.

    Args:
        keys: int64 array (K,). Labels or colors as in `Mask`, in ascending order.
        classes: int32 array (K,). Their classes, or `NO_CLASS`.
        has_colors: bool. Whether the keys are colors.
    """

    keys: np.ndarray
    classes: np.ndarray
    has_colors: bool

    def classes_of(self, mask: Mask, name: str) -> np.ndarray:
        """Returns the class of each pixel, int32 (H, W).

        Raises:
            DataError: If a label or color has no class; the message says where.
        """
        if mask.has_colors != self.has_colors:
            kinds = ("gray values or a palette", "colors")
            raise DataError(
                f"The mask has {kinds[mask.has_colors]}, but others have "
                f"{kinds[self.has_colors]}. Received: {name}"
            )
        places = np.searchsorted(self.keys, mask.labels)
        places = np.minimum(places, len(self.keys) - 1)
        unknown = self.keys[places] != mask.labels
        if unknown.any():
            row, column = map(int, np.argwhere(unknown)[0])
            value = int(mask.labels[row, column])
            what = f"The color {color_of(value)}" if mask.has_colors else f"The label {value}"
            raise DataError(
                f"{what} at row {row}, column {column} has no class. {_REMEDY[mask.has_colors]} "
                f"Received: {name}"
            )
        return self.classes[places]

    def decode(self, encoded: tf.Tensor) -> tf.Tensor:
        """Reads a mask inside `tf.data`, to numbers (H, W) that `lookup` takes.

        TensorFlow decodes 8-bit gray values, in parallel; Pillow all others.
        """

        def gray() -> tf.Tensor:
            return tf.io.decode_png(encoded, channels=1)[..., 0]

        def labels() -> tf.Tensor:
            def decode(content: tf.Tensor) -> np.ndarray:
                mask = read_mask(content.numpy(), "a mask")
                self.classes_of(mask, "a mask")
                return mask.labels.astype(np.uint8)

            return tf.py_function(decode, [encoded], tf.uint8)

        def classes(content: tf.Tensor) -> np.ndarray:
            return self.classes_of(read_mask(content.numpy(), "a mask"), "a mask")

        if self._by_label is None:
            numbers = tf.py_function(classes, [encoded], tf.int32)
        else:
            is_gray = (
                begins(encoded, _PNG)
                & (number(encoded, _DEPTH, 2) == 256 * 8 + _GRAY)
                & has_modest_chunks(encoded)
            )
            numbers = tf.cond(is_gray, gray, labels)
        return tf.ensure_shape(numbers, (None, None))

    def lookup(self, numbers: tf.Tensor) -> tf.Tensor:
        """Returns the classes, int32, of numbers from `decode`."""
        if self._by_label is None:
            return numbers
        return tf.gather(self._by_label, tf.cast(numbers, tf.int32))

    @property
    def _by_label(self) -> np.ndarray | None:
        """The class of each label in 0..255; None if there are other labels, or colors."""
        if self.has_colors or self.keys[-1] > 255:
            return None
        by_label = np.full(256, NO_CLASS, np.int32)
        by_label[self.keys] = self.classes
        return by_label


_REMEDY = (
    "Add it to the classes, or ignore it with ignored (--set ignored=...).",
    "Add it to classes.json.",
)


def size_of_picture(file: File | Path) -> tuple[int, int]:
    """Returns the height and width of an upright image, without decoding it.

    Raises:
        DataError: If it is not an image.
    """
    source = io.BytesIO(content(file)) if isinstance(file, Stored) else file
    try:
        with silent_pillow(), Image.open(source, formats=FORMATS) as image:
            width, height = image.size
            # Reading the orientation of a PNG would decode it.
            turned = image.format in ("JPEG", "MPO") and image.getexif().get(0x0112, 1) > 4
            return (width, height) if turned else (height, width)
    except Exception:
        height, width, _ = read_image(file).shape  # for a message
        return height, width


def read_image(file: File | Path) -> np.ndarray:
    """Reads an image, uint8 (H, W, 3).

    Raises:
        DataError: If it is missing or broken.
    """
    try:
        image, _ = read_picture(content(file) if isinstance(file, Stored) else file, title(file))
    except (ImageError, OSError) as error:
        raise DataError(f"An image is broken. {error}") from error
    return np.asarray(image)
