"""ImageNet-ReaL: the validation images of ImageNet-1K with all labels that are right.

The release is `real.json` of google-research/reassessed-imagenet: for each image, in the order of
their names, the list of its right classes, which is empty for images that are to be skipped. The
images are those of ImageNet-1K. TensorFlow Datasets has both as `imagenet2012_real`.
"""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tensorflow as tf

from keras_convnext.data.errors import DataError
from keras_convnext.data.records import RecordSource
from keras_convnext.data.source import Source
from keras_convnext.data.tfds_source import builder_of_folder, prepared_builder, record_files
from keras_convnext.picture_files import walk_pictures
from keras_convnext.pictures import name_of

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

_IMAGES, _CLASSES = 50_000, 1000
_LABELS = "real.json"
_LARGEST = 4 * 2**20  # bytes; the published file has 388,478
_MOST_LABELS = 100  # of one image; the published lists have at most 9
_STEM = "ILSVRC2012_val_"
_NAME = re.compile(rf"{_STEM}(\d{{8}})\.jpe?g", re.IGNORECASE)
_AT_ONCE = 256  # records
_NAMES = tuple(f"{_STEM}{number:08}" for number in range(1, _IMAGES + 1))

# For each image, the indices of its right classes, filled up with -1.
Answers = np.ndarray  # int64 (50000, most right classes of an image)


def open_reassessed(data: str | Path) -> tuple[Source, Answers]:
    """Opens the validation images of ImageNet-1K with their reassessed labels.

    Args:
        data: str or path. A folder of the validation images, in class folders or not, with
            `real.json` in it or beside it; or the name of the dataset in TensorFlow Datasets, or a
            folder that these have prepared.

    Returns:
        The source, in which the label of an image is its number, counted from 0; and for each
        number the indices of its right classes, filled up with -1.

    Raises:
        DataError: If the images or the labels are missing or invalid.
        ImportError: If the data is a name, and tensorflow-datasets is not installed.
    """
    text = str(data)
    folder = Path(data).expanduser()
    if text.startswith("tfds:") or not os.path.exists(folder):
        name = text.removeprefix("tfds:")
        return _open_builder(prepared_builder(name), name)
    if not os.path.isdir(folder):
        raise DataError(
            "The data must be the folder of the validation images of ImageNet-1K. "
            f"Received: {folder}"
        )
    if (folder / "dataset_info.json").is_file():
        return _open_builder(builder_of_folder(folder), text)
    answers = _read_labels(folder)
    return _NumberedFolder(folder), answers


class _NumberedFolder(Source):
    """The validation images in a folder and its subfolders, each with its number as its label."""

    def __init__(self, folder: Path) -> None:
        paths: dict[int, str] = {}
        for entry in walk_pictures(folder):
            match = _NAME.fullmatch(entry.name)
            number = int(match[1]) if match else 0
            if not 1 <= number <= _IMAGES:
                raise DataError(
                    f"The validation images of ImageNet-1K are named {_STEM}00000001.JPEG to "
                    f"{_STEM}{_IMAGES:08}.JPEG. Received: {name_of(entry.path)}"
                )
            if number in paths:
                raise DataError(
                    f"Two images have the number {number}: {name_of(paths[number])} and "
                    f"{name_of(entry.path)}"
                )
            paths[number] = entry.path
        self._numbers = np.array(sorted(paths), np.int64)
        self._paths = [paths[number] for number in sorted(paths)]
        super().__init__(str(folder), "validation", _NAMES, len(paths))

    def labels(self) -> np.ndarray:
        """Returns the number of each image, counted from 0."""
        return self._numbers - 1

    def find(self, indices: np.ndarray) -> list[bytes]:
        """Returns the paths of the files."""
        return [os.fsencode(self._paths[index]) for index in indices]

    def parse(self, found: tf.Tensor, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Adds the numbers to the paths."""
        return found, tf.gather(tf.constant(self._numbers - 1), indices)

    def load(self, parsed: tf.Tensor) -> tf.Tensor:
        """Reads a file."""
        return tf.io.read_file(parsed)

    def name_of(self, index: int) -> str:
        """Returns the path of image `index`."""
        return self._paths[index]


def _read_labels(folder: Path) -> Answers:
    places = [folder / _LABELS, folder.absolute().parent / _LABELS]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise DataError(
            f"The labels are missing. Download {_LABELS} from "
            "https://github.com/google-research/reassessed-imagenet into the folder of the images "
            f"or beside it. Received: {folder}"
        )
    if path.stat().st_size > _LARGEST:
        raise DataError(
            f"The list of labels has at most {_LARGEST >> 20} MB, and this file has "
            f"{path.stat().st_size >> 20:,} MB. Received: {path}"
        )
    try:
        lists = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"The list of labels is not JSON: {error}. Received: {path}") from error
    if not isinstance(lists, list) or len(lists) != _IMAGES:
        has = f"{len(lists):,}" if isinstance(lists, list) else "no list of"
        raise DataError(
            f"The file must have a list of labels for each of the {_IMAGES:,} images. "
            f"Received: {has} lists in {path}"
        )
    for number, labels in enumerate(lists, 1):
        if not isinstance(labels, list) or not all(map(_is_class, labels)):
            raise DataError(
                f"The labels of an image must be a list of numbers from 0 to {_CLASSES - 1}. "
                f"Received: {str(labels)[:80]} for image {number:,} in {path}"
            )
    return _filled(lists, str(path))


def _is_class(label: object) -> bool:
    return type(label) is int and 0 <= label < _CLASSES


def _filled(lists: Sequence[Sequence[int]], name: str) -> Answers:
    most = max(map(len, lists))
    if most > _MOST_LABELS:
        raise DataError(
            f"An image has at most {_MOST_LABELS} labels. Received: {most:,} for one in {name}"
        )
    answers = np.full((len(lists), max(most, 1)), -1, np.int64)
    for row, labels in zip(answers, lists):
        row[: len(labels)] = labels
    return answers


def _open_builder(builder: "tfds.core.DatasetBuilder", name: str) -> tuple[Source, Answers]:
    if "real_label" not in builder.info.features:
        raise DataError(
            "The dataset with reassessed labels is imagenet2012_real. "
            f"Received: {name} with {', '.join(builder.info.features)}"
        )
    split, files = record_files(builder, name, None)
    source = RecordSource(name, split, _NAMES, files, _parse)
    lists: list[list[int]] = [[] for _ in _NAMES]
    features = {
        "file_name": tf.io.FixedLenFeature((), tf.string),
        "real_label": tf.io.RaggedFeature(tf.int64),
    }
    for start in range(0, source.size, _AT_ONCE):
        indices = np.arange(start, min(start + _AT_ONCE, source.size))
        parsed = tf.io.parse_example(source.find(indices), features)
        numbers = _numbers(parsed["file_name"]).numpy()
        for number, labels in zip(numbers, parsed["real_label"].to_list()):
            if not 0 <= number < _IMAGES or not all(map(_is_class, labels)):
                raise DataError(
                    f"Images must have numbers from 1 to {_IMAGES:,} in their names, and labels "
                    f"from 0 to {_CLASSES - 1}. Received: number {number + 1:,} with labels "
                    f"{str(labels)[:80]} in {name}"
                )
            lists[number] = labels
    return source, _filled(lists, name)


def _parse(records: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    features = {key: tf.io.FixedLenFeature((), tf.string) for key in ("image", "file_name")}
    parsed = tf.io.parse_example(records, features)
    return parsed["image"], _numbers(parsed["file_name"])


def _numbers(names: tf.Tensor) -> tf.Tensor:
    """Returns the numbers of images, counted from 0, from their names."""
    return tf.strings.to_number(tf.strings.substr(names, len(_STEM), 8), tf.int64) - 1
