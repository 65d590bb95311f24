"""What can be wrong with images, found before a run and not hours into it."""

from collections.abc import Iterable

import numpy as np
import tensorflow as tf

from keras_convnext.data.decoding import Placement, decode_window
from keras_convnext.data.errors import DataError
from keras_convnext.data.source import Source
from keras_convnext.pictures import ImageError, name_of, read_picture


def check_images(source: Source, least: int = 1, limit: int | None = 256) -> None:
    """Refuses classes with too few images, and images that do not decode.

    That there are images at all, none of zero bytes, and labels within the list, is checked when a
    source is opened and read.

    Example:

    ```python
    check_images(open_source("photos", "train"), least=2)
    ```

    Args:
        source: Source.
        least: int. How many images a class has at least, where that is known without reading them,
            as in folders. To train takes 2: one is learned by heart. Defaults to 1.
        limit: int or None. How many images are decoded, spread evenly over the source; None means
            all. Defaults to 256.

    Raises:
        DataError: If something is wrong; the message names the class or the image.
    """
    counts = source.counts()
    if counts is not None and (counts < least).any():
        few = np.flatnonzero(counts < least)
        others = f", and {len(few) - 1:,} others have too few" * (len(few) > 1)
        raise DataError(
            f"Class {source.classes[few[0]]!r} has {counts[few[0]]} images where {least} are needed"
            f"{others}. Add some, or take the class away. Received: {source.name}"
        )
    number = source.size if limit is None else min(limit, source.size)
    refuse_broken(source, np.linspace(0, source.size - 1, number).astype(np.int64))


def refuse_broken(source: Source, indices: Iterable[int]) -> None:
    """Decodes some images, and names the first that is broken or has disappeared.

    Args:
        source: Source.
        indices: iterable of int. Of the images, in the order of the storage.

    Raises:
        DataError: If one of them is not there or does not decode.
    """
    for index in map(int, indices):
        name = name_of(source.name_of(index))
        try:
            encoded = source.example(index)[0]
        except (tf.errors.OpError, OSError) as error:
            raise DataError(
                f"An image that has disappeared or cannot be read: {name}. "
                f"{reason_of(error).rpartition('; ')[2]}"
            ) from error
        try:
            decode_window(tf.constant(encoded), _everything)
        except tf.errors.OpError as error:
            try:
                read_picture(encoded, name)
            except ImageError as told:  # in Pillow's words where it finds the same
                reason = str(told).removesuffix(f" Received: {name}")
                raise DataError(f"A broken image: {name}. {reason}") from error
            raise DataError(f"A broken image: {name}. {reason_of(error)}") from error


def reason_of(error: Exception) -> str:
    """The line that tells what is wrong of an error from TensorFlow, without its traceback."""
    return str(error).partition("\n")[0].rpartition("}} ")[2].partition(" [Op:")[0]


def _everything(height: tf.Tensor, width: tf.Tensor) -> Placement:
    window = tf.stack([0, 0, height, width])
    return Placement(window, tf.ones((2,)), tf.zeros((2,)), tf.zeros((2,), tf.int64))
