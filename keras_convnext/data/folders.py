"""Folders of class folders, as torchvision's ImageFolder takes them."""

import os
import unicodedata
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_convnext.data.errors import DataError, DataWarning
from keras_convnext.data.source import Source
from keras_convnext.data.splits import resolve_split, split_word
from keras_convnext.picture_files import is_hidden, is_picture, walk, walk_pictures
from keras_convnext.pictures import name_of

_LISTERS = 16  # threads, as most of a listing is waiting for the file system


class FolderSource(Source):
    """Images in one folder a class.

    Args:
        folder: path. Where the folders are.
        split: str. What it is called.
        classes: mapping. The name of each class, in order, and that of its folder.
    """

    def __init__(self, folder: Path, split: str, classes: Mapping[str, str]) -> None:
        self._folder = folder
        self._folders = list(classes.values())
        with ThreadPoolExecutor(_LISTERS) as pool:
            listings = list(pool.map(_list_images, (folder / name for name in self._folders)))
        empty = [path for _, lengths, empty in listings for path in empty]
        if empty:
            others = f", and {len(empty) - 1:,} others" * (len(empty) > 1)
            raise DataError(f"An image file of no bytes at all: {name_of(empty[0])}{others}")
        self._counts = np.array([len(lengths) for _, lengths, _ in listings], np.int64)
        self._class_ends = np.cumsum(self._counts)
        # Fourteen million names as Python strings are a gigabyte more than as one of bytes.
        self._names = b"".join(names for names, _, _ in listings)
        lengths = np.concatenate([lengths for _, lengths, _ in listings])
        self._name_ends = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        super().__init__(str(folder), split, list(classes), len(lengths))

    def counts(self) -> np.ndarray:
        """Returns the number of images of each class."""
        return self._counts

    def name_of(self, index: int) -> str:
        """Returns the path of image `index`."""
        folder = self._folders[np.searchsorted(self._class_ends, index, side="right")]
        name = self._names[self._name_ends[index] : self._name_ends[index + 1]]
        return os.path.join(self._folder, folder, os.fsdecode(name))

    def find(self, indices: np.ndarray) -> list[bytes]:
        """Returns the paths of the files."""
        return [os.fsencode(self.name_of(index)) for index in indices]

    def parse(self, found: tf.Tensor, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Adds to the paths the places of their folders among the classes."""
        labels = tf.searchsorted(self._class_ends, indices, side="right", out_type=tf.int64)
        return found, labels

    def load(self, parsed: tf.Tensor) -> tf.Tensor:
        """Reads a file."""
        return tf.io.read_file(parsed)


def open_folder(folder: Path, split: str | None) -> FolderSource | None:
    """Opens `folder/<class>/...` or `folder/<split>/<class>/...`, or returns None if it is neither.

    Where there is a training split, its classes are those of the others too, so that labels agree.

    Raises:
        DataError: If there are no images, a class that training lacks, or no such split.
    """
    folders = subfolders(folder)
    splits = [name for name in folders if split_word(name) and subfolders(folder / name)]
    if not splits:
        if not any(_has_images(folder / name) for name in folders):
            return None
        alone = split_word(folder.name) or "train"
        resolve_split(split, [alone], folder)
        return FolderSource(folder, alone, class_folders(folder))
    found = resolve_split(split, splits, folder)
    classes = class_folders(folder / found)
    training = next((name for name in splits if split_word(name) == "train"), None)
    if training and training != found:
        known = class_folders(folder / training)
        unknown = sorted(set(classes) - set(known))
        if unknown:
            raise DataError(
                f"{folder / found} has the class {unknown[0]!r}, which {folder / training} lacks: "
                "a model trained on the one cannot be right on the other. "
                f"Received: {len(unknown)} such classes of {len(classes)}"
            )
        classes = {name: classes.get(name, name) for name in known}
    return FolderSource(folder / found, found, classes)


def subfolders(folder: Path) -> list[str]:
    """Returns the sorted names of the folders in a folder, without those that systems hide."""
    with os.scandir(folder) as entries:
        return sorted(
            entry.name for entry in entries if entry.is_dir() and not is_hidden(entry.name)
        )


def class_folders(folder: Path) -> dict[str, str]:
    """Finds the classes: of each the name and the folder, in the order of the names.

    A folder of other files than images, such as checkpoints, is no class; an empty one is. Names
    are in Unicode's composed form, so that folders from macOS and from elsewhere are the same
    class.

    Raises:
        DataError: If names are not text, or two are the same.
    """
    names = subfolders(folder)
    with ThreadPoolExecutor(_LISTERS) as pool:
        are_classes = list(pool.map(_is_class, (folder / name for name in names)))
    left_out = [name for name, is_class in zip(names, are_classes) if not is_class]
    if left_out:
        others = f", nor for {len(left_out) - 1:,} others" * (len(left_out) > 1)
        warnings.warn(
            f"A folder without images is not taken for a class: {name_of(folder / left_out[0])}"
            f"{others}",
            DataWarning,
            stacklevel=2,
        )
    classes: dict[str, str] = {}
    for name in (name for name, is_class in zip(names, are_classes) if is_class):
        composed = unicodedata.normalize("NFC", name)
        if name_of(name) != name:  # a class is a line of classes.txt
            raise DataError(
                "The name of a class is text on one line: rename the folder. "
                f"Received: {name_of(folder / name)}"
            )
        if composed in classes:
            raise DataError(
                "Two folders have the same name, once with composed and once with combining "
                f"characters: merge them. Received: {folder / name}"
            )
        classes[composed] = name
    if len(classes) == 1:
        _refuse_wrapper(folder, *classes.values())
    return dict(sorted(classes.items()))


def _refuse_wrapper(folder: Path, name: str) -> None:
    """Refuses one class that holds the folders of several, as archives are often unpacked."""
    only = folder / name
    inside = [each for each in subfolders(only) if _has_images(only / each)]
    if len(inside) > 1 and not any(map(is_picture, os.listdir(only))):
        raise DataError(
            f"The classes are one folder deeper, such as {inside[0]!r}: name that folder, {only}. "
            f"Received: {folder}"
        )


def _is_class(folder: Path) -> bool:
    empty = True
    for entry in walk(folder):
        if is_picture(entry.name):
            return True
        empty = False
    return empty


def _has_images(folder: Path) -> bool:
    return any(True for _ in walk_pictures(folder))


def _list_images(folder: Path) -> tuple[bytes, np.ndarray, list[str]]:
    """Returns the sorted names in one string, their lengths, and the paths of empty files."""
    # A class of the training images need not have any among the others.
    images = list(walk_pictures(folder)) if folder.is_dir() else []
    empty = []
    for image in images:
        try:
            if not image.stat().st_size:
                empty.append(image.path)
        except OSError as error:
            raise DataError(
                "A link to nothing, or a file that was just deleted. "
                f"Received: {name_of(image.path)}"
            ) from error
        if image.name.lower().endswith((".heic", ".heif")) and not find_spec("pillow_heif"):
            raise DataError(
                "HEIC pictures need pillow-heif: pip install pillow-heif. "
                f"Received: {name_of(image.path)}"
            )
    start = len(os.fsencode(folder)) + 1
    names = sorted(os.fsencode(image.path)[start:] for image in images)
    return b"".join(names), np.array([len(name) for name in names], np.uint32), sorted(empty)
