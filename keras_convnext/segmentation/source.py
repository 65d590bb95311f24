"""Images with masks, in a reproducible order."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_convnext.data.errors import DataError
from keras_convnext.data.source import Source
from keras_convnext.data.stored import Stored, content, title
from keras_convnext.segmentation.class_table import read_entries
from keras_convnext.segmentation.labels import (
    Meaning,
    find_labels,
    meaning_of,
    pixels_by_class,
    refuse_unknown,
)
from keras_convnext.segmentation.masks import read_image, read_mask
from keras_convnext.segmentation.pairs import Pairs, find_pairs
from keras_convnext.segmentation.recipes import Labels
from keras_convnext.segmentation.tfds_pairs import find_tfds_pairs


class PairSource(Source):
    """Images and their masks. The label of an image is its index, by which its mask is found.

    Args:
        name: str. Name or path of the data.
        pairs: Pairs. The files.
        meaning: Meaning. What the labels in the masks mean.
        pixels: int64 array. Pixels of each class in these masks.
    """

    def __init__(self, name: str, pairs: Pairs, meaning: Meaning, pixels: np.ndarray) -> None:
        super().__init__(name, pairs.split, meaning.classes, len(pairs.images))
        self.pairs = pairs
        self.meaning = meaning
        self.pixels = pixels

    def find(self, indices: np.ndarray) -> list[bytes]:
        """Returns the paths of the images, or the images themselves from records."""
        found = [self.pairs.images[index] for index in indices]
        return [content(file) if isinstance(file, Stored) else os.fsencode(file) for file in found]

    def parse(self, found: tf.Tensor, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Adds the indices to the paths."""
        return found, indices

    def load(self, parsed: tf.Tensor) -> tf.Tensor:
        """Reads a file."""
        return parsed if isinstance(self.pairs.images[0], Stored) else tf.io.read_file(parsed)

    def mask(self, index: tf.Tensor) -> tf.Tensor:
        """Reads the mask of image `index`, still encoded."""
        masks = self.pairs.masks
        if not isinstance(masks[0], Stored):
            return tf.io.read_file(tf.gather(tf.constant(masks), index))
        found = tf.numpy_function(lambda number: content(masks[number]), [index], tf.string)
        return tf.ensure_shape(found, ())

    def name_of(self, index: int) -> str:
        """Returns the path of image `index`."""
        file = self.pairs.images[index]
        return title(file) if isinstance(file, Stored) else file

    def arrays(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns an image, uint8 (H, W, 3), and its classes, int32 (H, W).

        Raises:
            DataError: If one of them has disappeared or is broken.
        """
        image, mask = self.pairs.images[index], self.pairs.masks[index]
        return read_image(image), self.meaning.table.classes_of(read_mask(mask), title(mask))

    def hold_out(self, share: float, seed: int) -> tuple["PairSource", "PairSource"]:
        """Splits the images at random into a training and a validation set.

        Raises:
            DataError: If there are too few images to split.
        """
        if self.size < 2:
            raise DataError(f"A single image cannot be split. Add images. Received: {self.name}")
        held = min(max(1, round(share * self.size)), self.size - 1)
        order = np.random.default_rng(seed).permutation(self.size)
        return self._part("train", np.sort(order[held:])), self._part(
            "validation", np.sort(order[:held])
        )

    def _part(self, split: str, indices: np.ndarray) -> "PairSource":
        images, masks = (
            [paths[index] for index in indices] for paths in (self.pairs.images, self.pairs.masks)
        )
        pairs = Pairs(self.pairs.kind, split, images, masks)
        return PairSource(self.name, pairs, self.meaning, self.pixels)


def open_pairs(
    data: str | Path,
    split: str | None = None,
    *,
    labels: Labels | None = None,
    meaning: Meaning | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PairSource:
    """Opens a split of images with masks, and checks all masks.

    The folder is one of:

    - `images/` beside `masks/`, `labels/` or `annotations/`, with or without a subfolder per split,
      or a folder per split that contains them;
    - `X/` beside `Xannot/`, as in CamVid;
    - ADE20K's release: `images/training` beside `annotations/training`;
    - Cityscapes: `leftImg8bit/` beside `gtFine/`;
    - Pascal VOC: `JPEGImages/`, `SegmentationClass/` and `ImageSets/Segmentation/`;
    - one that TensorFlow Datasets has prepared, with one image and one mask per example.

    Masks are PNG files with the label of each pixel as a gray value of up to 16 bits, as an index
    of a palette, or as a color of `classes.json`. `classes.txt` or `classes.json` in the folder
    name the classes.

    Args:
        data: str or path. The folder; or, if it does not exist or begins with `tfds:`, the name of
            a dataset in TensorFlow Datasets, such as `oxford_iiit_pet`.
        split: str or None. As in `open_source`. Defaults to None.
        labels: Labels or None. What overrides the numbering inferred from the masks. Defaults to
            None, for nothing.
        meaning: Meaning or None. That of the training split, which the others share.
        progress: function (done, total), called while the masks are checked.

    Raises:
        DataError: If the data is invalid; the message names the file, and the pixel if one is
            wrong.
        NoSuchSplitError: If there is no such split.
    """
    folder = Path(data).expanduser()
    pairs = find_tfds_pairs(data, split) or find_pairs(folder, split)
    found = find_labels(pairs, progress)
    meaning = meaning or meaning_of(found, pairs, read_entries(folder), labels or Labels())
    refuse_unknown(found, meaning)
    return PairSource(str(folder), pairs, meaning, pixels_by_class(found, meaning))
