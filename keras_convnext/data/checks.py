"""Checks that find problems with images before a run starts, not hours into it."""

from collections.abc import Iterable

import numpy as np
import tensorflow as tf

from keras_convnext.data.decoding import Placement, decode_window
from keras_convnext.data.errors import DataError
from keras_convnext.data.source import Source
from keras_convnext.memory_errors import is_out_of_memory
from keras_convnext.pictures import ImageError, name_of, read_picture


def check_images(source: Source, least: int = 1, limit: int | None = 256) -> None:
    """Checks that classes have enough images, and that images decode.

    Missing images, empty files and labels outside the list of classes are found when a source is
    opened and read.

    Example:

    ```python
    check_images(open_source("photos", "train"), least=2)
    ```

    Args:
        source: Source. The images to check.
        least: int. Minimum number of images per class, checked if the counts are known without
            reading the images, as in folders. Training needs 2, since a single image would only
            be memorized. Defaults to 1.
        limit: int or None. Number of images to decode, spread evenly over the source; None for
            all. Defaults to 256.

    Raises:
        DataError: If a check fails; the message names the class or image.
    """
    counts = source.counts()
    if counts is not None and (counts < least).any():
        few = np.flatnonzero(counts < least)
        others = f", and {len(few) - 1:,} others have too few as well" * (len(few) > 1)
        raise DataError(
            f"Class {source.classes[few[0]]!r} has {counts[few[0]]} images, but at least {least} "
            f"are needed{others}. Add images, or remove the class. Received: {source.name}"
        )
    number = source.size if limit is None else min(limit, source.size)
    refuse_broken(source, np.linspace(0, source.size - 1, number).astype(np.int64))


def refuse_broken(source: Source, indices: Iterable[int]) -> None:
    """Decodes some images, and raises an error for the first that is missing or broken.

    Args:
        source: Source. The images.
        indices: iterable of int. Indices of the images to decode, in storage order.

    Raises:
        DataError: If an image is missing or does not decode.
    """
    for index in map(int, indices):
        name = name_of(source.name_of(index))
        try:
            encoded = source.example(index)[0]
        except (tf.errors.OpError, OSError, UnicodeDecodeError) as error:
            if is_out_of_memory(error):
                raise
            raise DataError(
                f"An image has disappeared or cannot be read: {name}. "
                f"{reason_of(error).rpartition('; ')[2]}"
            ) from error
        try:
            decode_window(tf.constant(encoded), _everything)
        except (tf.errors.OpError, UnicodeDecodeError) as error:
            if is_out_of_memory(error):
                raise
            try:
                read_picture(encoded, name)
            except ImageError as image_error:  # prefer our message if Pillow fails, too
                reason = str(image_error).removesuffix(f" Received: {name}")
                raise DataError(f"An image is broken: {name}. {reason}") from error
            raise DataError(f"An image is broken: {name}. {reason_of(error)}") from error


def is_of_input(error: Exception) -> bool:
    """Whether an error was raised while `tf.data` read or decoded images.

    An error of the network or of a device is not worth a search for a broken image.
    """
    return "IteratorGetNext" in _message(error) and not is_out_of_memory(error)


def reason_of(error: Exception) -> str:
    """The message of a TensorFlow error, without its traceback."""
    return _message(error).partition("\n")[0].rpartition("}} ")[2].partition(" [Op:")[0]


def _message(error: Exception) -> str:
    # What TensorFlow raises if its message contains bytes of a file, or of a name, that are not
    # UTF-8: the message is the text that could not be decoded.
    if isinstance(error, UnicodeDecodeError):
        return error.object.decode("utf-8", "backslashreplace")
    return str(error)


def _everything(height: tf.Tensor, width: tf.Tensor) -> Placement:
    window = tf.stack([0, 0, height, width])
    return Placement(window, tf.ones((2,)), tf.zeros((2,)))
