"""A part of the images held back from training, where the data has no other to validate on."""

import numpy as np
import tensorflow as tf

from keras_convnext.data.errors import DataError
from keras_convnext.data.source import Source


class Part(Source):
    """Some of the images of another source.

    Args:
        whole: Source.
        split: str. What this part is called.
        indices: int array. Of its images in the whole.
    """

    def __init__(self, whole: Source, split: str, indices: np.ndarray) -> None:
        self._whole = whole
        self._indices = indices.astype(np.int64)
        super().__init__(whole.name, split, whole.classes, len(indices))

    def find(self, indices: np.ndarray) -> list[bytes]:
        """Returns what stands for the images in the whole."""
        return self._whole.find(self._indices[indices])

    def parse(self, found: tf.Tensor, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Makes of what was found what the whole makes of it."""
        return self._whole.parse(found, tf.gather(self._indices, indices))

    def load(self, parsed: tf.Tensor) -> tf.Tensor:
        """Makes of one of what `parse` returned the encoded image."""
        return self._whole.load(parsed)

    def name_of(self, index: int) -> str:
        """Says where image `index` lies, for a message."""
        return self._whole.name_of(int(self._indices[index]))


def hold_out(source: Source, share: float, seed: int) -> tuple[Source, Source]:
    """Splits the images at random in those to train on and those to validate on.

    The same share of each class where the number of its images is known without reading them, as in
    folders, and there one image at least on either side; else the same share of all.

    Args:
        source: Source. Whose classes have two images or more.
        share: float, above 0 and below 1. To validate on.
        seed: int. The same seed holds back the same images.

    Returns:
        Two sources: for training, and for validation.

    Raises:
        DataError: If there are too few images to share out.
    """
    if source.size < 2:
        raise DataError(f"One image cannot be shared out. Received: {source.name}")
    counts = source.counts()
    ends = np.cumsum([source.size] if counts is None else counts)
    generator = np.random.default_rng(seed)
    every = np.arange(source.size)
    held = np.concatenate([_drawn(group, share, generator) for group in np.split(every, ends[:-1])])
    kept = np.setdiff1d(every, held)
    return Part(source, "train", kept), Part(source, "validation", held)


def _drawn(group: np.ndarray, share: float, generator: np.random.Generator) -> np.ndarray:
    count = min(max(1, round(share * len(group))), len(group) - 1)
    return np.sort(generator.permutation(group)[:count])
