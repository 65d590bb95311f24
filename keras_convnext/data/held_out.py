"""Holds out part of the training images if the data has no validation split."""

import numpy as np
import tensorflow as tf

from keras_convnext.data.errors import DataError
from keras_convnext.data.source import Source


class Part(Source):
    """A subset of another source.

    Args:
        whole: Source. The other source.
        split: str. Name of this subset.
        indices: int array. Indices of its images in the other source.
    """

    def __init__(self, whole: Source, split: str, indices: np.ndarray) -> None:
        self._whole = whole
        self._indices = indices.astype(np.int64)
        super().__init__(whole.name, split, whole.classes, len(indices))

    def find(self, indices: np.ndarray) -> list[bytes]:
        """Returns the records or paths of the images in the whole source."""
        return self._whole.find(self._indices[indices])

    def parse(self, found: tf.Tensor, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Parses records or paths like the whole source."""
        return self._whole.parse(found, tf.gather(self._indices, indices))

    def load(self, parsed: tf.Tensor) -> tf.Tensor:
        """Loads an encoded image like the whole source."""
        return self._whole.load(parsed)

    def name_of(self, index: int) -> str:
        """Returns the location of image `index`, for a message."""
        return self._whole.name_of(int(self._indices[index]))


def hold_out(source: Source, share: float, seed: int) -> tuple[Source, Source]:
    """Splits the images at random into a training and a validation set.

    If the classes of the images are known without reading them, as in folders, the share is taken
    from each class, with at least one image on either side; otherwise from all images.

    Args:
        source: Source. The images, at least two per class.
        share: float in (0, 1). Share of the images to validate on.
        seed: int. The same seed holds out the same images.

    Returns:
        Two sources, for training and for validation.

    Raises:
        DataError: If there are too few images to split.
    """
    if source.size < 2:
        raise DataError(f"A single image cannot be split. Add images. Received: {source.name}")
    labels = source.labels()
    if labels is None:
        labels = np.zeros(source.size, int)
    by_class = np.argsort(labels, kind="stable")
    groups = np.split(by_class, np.cumsum(np.bincount(labels))[:-1])
    generator = np.random.default_rng(seed)
    drawn = [_drawn(group, share, generator) for group in groups]
    held = np.sort(np.concatenate(drawn))
    kept = np.setdiff1d(by_class, held)
    return Part(source, "train", kept), Part(source, "validation", held)


def _drawn(group: np.ndarray, share: float, generator: np.random.Generator) -> np.ndarray:
    count = min(max(1, round(share * len(group))), len(group) - 1)
    return np.sort(generator.permutation(group)[:count])
