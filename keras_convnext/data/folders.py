"""Folders with one subfolder per class, as in torchvision's `ImageFolder`."""

import os
import unicodedata
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_convnext.data.errors import DataError, DataWarning
from keras_convnext.data.source import Source
from keras_convnext.data.splits import resolve_split, split_word
from keras_convnext.picture_files import (
    about_loops,
    is_folder,
    is_hidden,
    is_picture,
    walk,
    walk_pictures,
)
from keras_convnext.pictures import name_of

_LISTERS = 16  # threads: listing mostly waits for the file system


class FolderSource(Source):
    """Images in one folder per class.

    Args:
        folder: path. The folder that contains the class folders.
        split: str. Name of the split.
        classes: mapping from class names, in order, to the names of their folders.
    """

    def __init__(self, folder: Path, split: str, classes: Mapping[str, str]) -> None:
        self._folder = folder
        self._folders = list(classes.values())
        with ThreadPoolExecutor(_LISTERS) as pool:
            listings = list(pool.map(_list_images, (folder / name for name in self._folders)))
        if loops := [path for listing in listings for path in listing.loops]:
            warnings.warn(about_loops(loops), DataWarning, stacklevel=3)
        empty = [path for listing in listings for path in listing.empty]
        if empty:
            others = f", and {len(empty) - 1:,} others" * (len(empty) > 1)
            raise DataError(
                f"An image file is empty: {name_of(empty[0])}{others}. Restore or delete it"
            )
        self._counts = np.array([len(listing.lengths) for listing in listings], np.int64)
        self._class_ends = np.cumsum(self._counts)
        # Fourteen million Python strings take a gigabyte more than one bytes object.
        self._names = b"".join(listing.names for listing in listings)
        lengths = np.concatenate([listing.lengths for listing in listings])
        self._name_ends = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        super().__init__(str(folder), split, list(classes), len(lengths))

    def labels(self) -> np.ndarray:
        """Returns the class of each image."""
        return np.repeat(np.arange(len(self._counts)), self._counts)

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
        """Adds the labels to the paths."""
        labels = tf.searchsorted(self._class_ends, indices, side="right", out_type=tf.int64)
        return found, labels

    def load(self, parsed: tf.Tensor) -> tf.Tensor:
        """Reads a file."""
        return tf.io.read_file(parsed)


def open_folder(folder: Path, split: str | None) -> FolderSource | None:
    """Opens `folder/<class>/...` or `folder/<split>/<class>/...`, or returns None if it is neither.

    If there is a training split, the other splits use its classes, so that labels agree.

    Raises:
        DataError: If there are no images, the split does not exist, or it has a class that is
            missing from the training split.
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
                f"The class {unknown[0]!r} in {folder / found} is missing from "
                f"{folder / training}: a model cannot predict a class it was not trained on. "
                f"Received: {len(unknown)} such classes of {len(classes)}"
            )
        classes = {name: classes.get(name, name) for name in known}
    return FolderSource(folder / found, found, classes)


def subfolders(folder: Path) -> list[str]:
    """Returns the sorted names of the subfolders, without hidden and system folders."""
    with os.scandir(folder) as entries:
        return sorted(
            entry.name for entry in entries if is_folder(entry) and not is_hidden(entry.name)
        )


def _broken_links(folder: Path) -> list[str]:
    """Returns the links in a folder that lead nowhere, or to a folder that contains them."""
    with os.scandir(folder) as entries:
        return [
            entry.path
            for entry in entries
            if entry.is_symlink() and not is_folder(entry) and not os.path.isfile(entry.path)
        ]


def class_folders(folder: Path) -> dict[str, str]:
    """Returns a dict from class names to folder names, sorted by class name.

    A folder that contains only other files than images, such as checkpoints, is not a class; an
    empty folder is. Class names are in Unicode's composed form (NFC), so that folders written on
    macOS and on other systems are the same class.

    Raises:
        DataError: If a name is not printable text, or two names are equal.
    """
    names = subfolders(folder)
    with ThreadPoolExecutor(_LISTERS) as pool:
        are_classes = list(pool.map(_is_class, (folder / name for name in names)))
    left_out = [name for name, is_class in zip(names, are_classes) if not is_class]
    if left_out:
        others = f" and {len(left_out) - 1:,} others" * (len(left_out) > 1)
        warnings.warn(
            f"Skipped folders without images: {name_of(folder / left_out[0])}{others}",
            DataWarning,
            stacklevel=2,
        )
    if loops := _broken_links(folder):
        warnings.warn(about_loops(loops), DataWarning, stacklevel=2)
    classes: dict[str, str] = {}
    for name in (name for name, is_class in zip(names, are_classes) if is_class):
        composed = unicodedata.normalize("NFC", name)
        if name_of(name) != name:  # classes.txt has one class per line
            raise DataError(
                "A class name must be printable text on one line. Rename the folder. "
                f"Received: {name_of(folder / name)}"
            )
        if composed in classes:
            raise DataError(
                "Two folders have the same name, one with composed and one with combining "
                f"characters. Merge them. Received: {folder / name}"
            )
        classes[composed] = name
    if len(classes) == 1:
        _refuse_wrapper(folder, *classes.values())
    return dict(sorted(classes.items()))


def _refuse_wrapper(folder: Path, name: str) -> None:
    """Refuses a single folder that contains the class folders, as often in unpacked archives."""
    only = folder / name
    inside = [each for each in subfolders(only) if _has_images(only / each)]
    if len(inside) > 1 and not any(map(is_picture, os.listdir(only))):
        raise DataError(
            f"The class folders, such as {inside[0]!r}, are one level deeper. Pass {only} instead. "
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


class _Listing(NamedTuple):
    """The images of a class.

    Args:
        names: bytes. Their sorted names in one string.
        lengths: uint32 array. The length of each name.
        empty: list of str. Paths of empty files.
        loops: list of str. Paths of links that were not followed.
    """

    names: bytes
    lengths: np.ndarray
    empty: list[str]
    loops: list[str]


def _list_images(folder: Path) -> _Listing:
    empty: list[str] = []
    loops: list[str] = []
    # A class in the training split may have no images in other splits.
    images = list(walk_pictures(folder, loops)) if folder.is_dir() else []
    for image in images:
        try:
            if not image.stat().st_size:
                empty.append(image.path)
        except OSError as error:
            raise DataError(
                "An image file is a broken link or was just deleted. "
                f"Received: {name_of(image.path)}"
            ) from error
        if image.name[-5:].lower() in (".heic", ".heif") and not find_spec("pillow_heif"):
            raise DataError(
                "HEIC images need pillow-heif: pip install pillow-heif. "
                f"Received: {name_of(image.path)}"
            )
    start = len(os.fsencode(folder)) + 1
    names = sorted(os.fsencode(image.path)[start:] for image in images)
    lengths = np.array([len(name) for name in names], np.uint32)
    return _Listing(b"".join(names), lengths, sorted(empty), loops)
