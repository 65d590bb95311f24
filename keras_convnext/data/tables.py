"""CSV files of paths and labels."""

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_convnext.data.errors import DataError
from keras_convnext.data.source import Source
from keras_convnext.data.splits import resolve_split, split_word
from keras_convnext.pictures import name_of

TABLES = (".csv", ".tsv")
# Accepted column names, in lower case.
_PATHS = (
    "path", "file", "filename", "file_name", "filepath", "file_path", "image", "images", "img",
    "image_path", "image_id",
)  # fmt: skip
_LABELS = ("label", "labels", "class", "class_name", "target", "category", "y")
_SPLITS = ("split", "subset", "set", "fold")


class TableSource(Source):
    """Images listed by path and label.

    Args:
        name, split, classes: as in `Source`.
        paths: sequence of str. Paths of the images.
        labels: int array of the same length. Indices into `classes`.
    """

    def __init__(
        self,
        name: str,
        split: str,
        classes: Sequence[str],
        paths: Sequence[str],
        labels: np.ndarray,
    ) -> None:
        super().__init__(name, split, classes, len(paths))
        self._paths = paths
        self._labels = labels.astype(np.int64)

    def labels(self) -> np.ndarray:
        """Returns the class of each image."""
        return self._labels

    def name_of(self, index: int) -> str:
        """Returns the path of image `index`."""
        return self._paths[index]

    def find(self, indices: np.ndarray) -> list[bytes]:
        """Returns the paths of the files."""
        return [os.fsencode(self._paths[index]) for index in indices]

    def parse(self, found: tf.Tensor, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Adds the labels to the paths."""
        return found, tf.gather(self._labels, indices)

    def load(self, parsed: tf.Tensor) -> tf.Tensor:
        """Reads a file."""
        return tf.io.read_file(parsed)


def open_table(path: Path, split: str | None, classes: Sequence[str] | None) -> TableSource:
    """Opens a CSV file with a header and columns for path, label and, optionally, split.

    The classes are the sorted labels of the training images; if all are numbers, they are sorted as
    numbers.

    Raises:
        DataError: If columns, images or classes are missing.
    """
    rows = _rows(path)
    columns: dict[str, int] = {}
    for place, name in enumerate(rows[0]):
        columns.setdefault(name.strip().lower(), place)
    file_column = _column(columns, _PATHS, path)
    label_column = _column(columns, _LABELS, path)
    split_column = next((columns[name] for name in _SPLITS if name in columns), None)
    splits: dict[str, list[tuple[str, str]]] = {}
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(rows[0]):
            raise DataError(
                f"Row {number} has {len(row)} fields, but the header has {len(rows[0])}. "
                f"Received: {path}"
            )
        if not row[file_column].strip() or not row[label_column].strip():
            raise DataError(f"Row {number} has no path or no label. Received: {path}")
        of_split = splits.setdefault("train" if split_column is None else row[split_column], [])
        of_split.append((os.path.join(path.parent, row[file_column]), row[label_column]))
    if not splits:
        raise DataError(f"The table lists no images. Received: {path}")
    found = resolve_split(split, list(splits), path)
    if classes is None:
        training = next((name for name in splits if split_word(name) == "train"), found)
        classes = _sorted({label for _, label in splits[training]})
    places = {name: place for place, name in enumerate(classes)}
    files, labels = zip(*splits[found])
    unknown = [label for label in labels if label not in places]
    if unknown:
        raise DataError(
            f"The split {found!r} has the class {unknown[0]!r}, which is not one of the "
            f"{len(places):,} known classes. Received: {path}"
        )
    _refuse_missing(files, path)
    return TableSource(str(path), found, classes, files, np.array([places[x] for x in labels]))


def _rows(path: Path) -> list[list[str]]:
    try:
        text = path.read_text("utf-8-sig")
        dialect = csv.Sniffer().sniff(text[:8192].partition("\n")[0], ",;\t")
    except UnicodeDecodeError as error:
        raise DataError(f"A CSV file must be UTF-8 text. Received: {path}") from error
    except csv.Error as error:
        raise DataError(
            "A CSV file must have a header with column names, such as path,label. "
            f"Received: {name_of(text[:60].partition(chr(10))[0])!r} in {path}"
        ) from error
    try:
        rows = [row for row in csv.reader(io.StringIO(text), dialect) if row]
    except csv.Error as error:
        raise DataError(f"Not a CSV file: {error}. Received: {path}") from error
    return rows


def _column(columns: dict[str, int], names: Sequence[str], path: Path) -> int:
    for name in names:
        if name in columns:
            return columns[name]
    raise DataError(
        f"The CSV file needs a column with one of these names: {', '.join(names)}. "
        f"Received: {name_of(', '.join(columns))} in {path}"
    )


def _sorted(labels: set[str]) -> list[str]:
    if all(label.strip().isdecimal() for label in labels):
        return sorted(labels, key=int)
    return sorted(labels)


def _refuse_missing(files: Sequence[str], path: Path) -> None:
    missing = [file for file in files if not os.path.isfile(file)]
    if missing:
        others = f", and {len(missing) - 1:,} others" * (len(missing) > 1)
        raise DataError(
            "Files listed in the CSV file do not exist (paths are relative to its folder): "
            f"{name_of(missing[0])}{others}. Received: {path}"
        )
