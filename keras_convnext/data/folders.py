"""Folders of class folders, as torchvision's ImageFolder takes them."""

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_convnext.data.errors import DataError
from keras_convnext.data.source import Source
from keras_convnext.data.splits import resolve_split, split_word

EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".gif")  # that TensorFlow decodes
# Images too, but not for TensorFlow: to leave them out unsaid would train on something else.
_OTHER_EXTENSIONS = (".webp", ".tif", ".tiff", ".ppm", ".pgm", ".heic", ".avif", ".jp2")
_LISTERS = 16  # threads, as most of a listing is waiting for the file system


class FolderSource(Source):
    """Images in one folder a class; the classes are the sorted names of the folders."""

    def __init__(self, folder: Path, split: str, classes: Sequence[str]) -> None:
        self._folder = folder
        with ThreadPoolExecutor(_LISTERS) as pool:
            listings = list(pool.map(_list_images, (folder / name for name in classes)))
        empty = [path for _, lengths, empty in listings for path in empty]
        if empty:
            others = f", and {len(empty) - 1:,} others" * (len(empty) > 1)
            raise DataError(f"An image file of no bytes at all: {empty[0]}{others}")
        self._counts = np.array([len(lengths) for _, lengths, _ in listings], np.int64)
        self._class_ends = np.cumsum(self._counts)
        # Fourteen million names as Python strings are a gigabyte more than as one of bytes.
        self._names = b"".join(names for names, _, _ in listings)
        lengths = np.concatenate([lengths for _, lengths, _ in listings])
        self._name_ends = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        super().__init__(str(folder), split, classes, len(lengths))

    def counts(self) -> np.ndarray:
        """Returns the number of images of each class."""
        return self._counts

    def name_of(self, index: int) -> str:
        """Returns the path of image `index`."""
        folder = self.classes[np.searchsorted(self._class_ends, index, side="right")]
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
        return FolderSource(folder, alone, folders)
    found = resolve_split(split, splits, folder)
    classes = subfolders(folder / found)
    training = next((name for name in splits if split_word(name) == "train"), None)
    if training and training != found:
        known = subfolders(folder / training)
        unknown = sorted(set(classes) - set(known))
        if unknown:
            raise DataError(
                f"{folder / found} has the class {unknown[0]!r}, which {folder / training} lacks: "
                "a model trained on the one cannot be right on the other. "
                f"Received: {len(unknown)} such classes of {len(classes)}"
            )
        classes = known
    return FolderSource(folder / found, found, classes)


def subfolders(folder: Path) -> list[str]:
    """Returns the sorted names of the folders in a folder, hidden ones left out."""
    with os.scandir(folder) as entries:
        return sorted(
            entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")
        )


def _has_images(folder: Path) -> bool:
    return any(_images(folder))


def _images(folder: Path) -> Iterable[os.DirEntry[str]]:
    """Walks over the images in a folder and those below it, in no order."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            name = entry.name.lower()
            if name.endswith(EXTENSIONS) and entry.is_file():
                yield entry
            elif name.endswith(_OTHER_EXTENSIONS):
                raise DataError(
                    f"TensorFlow does not decode such files; make JPEG or PNG of them: {entry.path}"
                )
            elif entry.is_dir():
                yield from _images(Path(entry.path))


def _list_images(folder: Path) -> tuple[bytes, np.ndarray, list[str]]:
    """Returns the sorted names in one string, their lengths, and the paths of empty files."""
    # A class of the training images need not have any among the others.
    images = list(_images(folder)) if folder.is_dir() else []
    empty = sorted(image.path for image in images if not image.stat().st_size)
    start = len(os.fsencode(folder)) + 1
    names = sorted(os.fsencode(image.path)[start:] for image in images)
    return b"".join(names), np.array([len(name) for name in names], np.uint32), empty
