"""What can be wrong with images, found before a run and not hours into it."""

from collections.abc import Iterable

import numpy as np
import tensorflow as tf

from keras_convnext.data.errors import DataError
from keras_convnext.data.source import Source


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
    """Decodes some images, and names the first that is broken.

    Args:
        source: Source.
        indices: iterable of int. Of the images, in the order of the storage.

    Raises:
        DataError: If one of them does not decode.
    """
    for index in indices:
        try:
            tf.io.decode_image(source.example(int(index))[0], channels=3, expand_animations=False)
        except (tf.errors.OpError, OSError) as error:
            reason = str(error).partition("\n")[0]
            raise DataError(f"A broken image: {source.name_of(int(index))}. {reason}") from error
