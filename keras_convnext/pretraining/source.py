"""Opens images without labels."""

import os
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_convnext.data.errors import DataError, NoSuchSplitError
from keras_convnext.data.held_out import hold_out
from keras_convnext.data.shards import is_shard
from keras_convnext.data.source import Source
from keras_convnext.data.sources import open_source
from keras_convnext.picture_files import find_images, walk_pictures


class Pictures(Source):
    """The image files in a folder and its subfolders, as one class.

    Args:
        folder: path.
    """

    def __init__(self, folder: Path) -> None:
        self._paths = find_images([folder])
        if empty := [path for path in self._paths if not path.stat().st_size]:
            raise DataError(f"An image file is empty: delete it. Received: {empty[0]}")
        super().__init__(str(folder), "train", ("image",), len(self._paths))

    def find(self, indices: np.ndarray) -> list[bytes]:
        """Returns the paths of the files."""
        return [os.fsencode(self._paths[index]) for index in indices]

    def parse(self, found: tf.Tensor, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Adds a label, which is always 0."""
        return found, tf.zeros_like(indices)

    def load(self, parsed: tf.Tensor) -> tf.Tensor:
        """Reads a file."""
        return tf.io.read_file(parsed)

    def name_of(self, index: int) -> str:
        """Returns the path of image `index`."""
        return str(self._paths[index])


def open_images(
    data: str | Path, validation_data: str | Path | None, share: float, seed: int
) -> tuple[Source, Source | None]:
    """Opens images for pre-training and, if there are any, to validate on.

    Args:
        data: str or path. A folder with images at any depth, or with a subfolder `train` of them;
            or what `open_source` opens, whose labels are not used.
        validation_data: str, path or None. Other images to validate on; None for the share.
        share: float. Share of the images to hold out if there is no other validation data.
        seed: int. The same seed holds out the same images.

    Raises:
        DataError: If there are no images.
    """
    training = _open(data, "train")
    if validation_data is not None:
        return training, _open(validation_data, "validation")
    return hold_out(training, share, seed) if share else (training, None)


def _open(data: str | Path, split: str) -> Source:
    folder = Path(data)
    if folder.is_dir() and not any(map(is_shard, folder.iterdir())):
        own = folder / split
        folder = own if own.is_dir() else folder
        if next(walk_pictures(folder), None) is not None:
            return Pictures(folder)
    try:
        return open_source(data, split)
    except NoSuchSplitError:
        return open_source(data)
