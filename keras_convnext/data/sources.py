"""Which images are meant: a folder, shards, or a name."""

import glob
import os
import tarfile
import zipfile
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from keras_convnext.data.errors import DataError
from keras_convnext.data.folders import open_folder, subfolders
from keras_convnext.data.shards import is_shard, open_shards
from keras_convnext.data.source import Source
from keras_convnext.data.splits import split_word
from keras_convnext.data.tables import TABLES, open_table
from keras_convnext.data.tfds_source import open_prepared, open_tfds, paths_alike
from keras_convnext.picture_files import SUFFIXES, is_picture, kinds_of_files, walk


def open_source(
    data: str | Path,
    split: str | None = None,
    *,
    classes: Sequence[str] | None = None,
    first_label: int | None = None,
) -> Source:
    """Opens a split of images with labels, wherever they lie.

    Example:

    ```python
    source = open_source("photos", "train")  # photos/train/<class>/*.jpg
    source = open_source("imagenet2012", "validation")  # by its name in TensorFlow Datasets
    for encoded, label, epoch, position in source.stream(seed=0, batch=256):
        ...
    ```

    Args:
        data: str or path. One of:
            - a folder of class folders, `root/<class>/*.jpg`, or of one such folder a split,
              `root/train/<class>/*.jpg`. The classes are the sorted names of the folders.
            - a folder of TFRecord or ArrayRecord shards, or a pattern such as
              `shards/train-*`: records as the ImageNet scripts write them (`image/encoded`,
              `image/class/label`) or TensorFlow Datasets does (`image`, `label`).
            - a CSV file of paths and labels, and of splits if it has a column for them:
              `path,label,split`. Paths are relative to the file.
            - a folder that TensorFlow Datasets has prepared.
            - where no such file or folder exists, the name of a dataset in TensorFlow Datasets,
              `cifar10` or `imagenet_v2/matched-frequency:3.0.0`; `tfds:cifar10` says so for sure.
              It is downloaded and prepared if need be.
        split: str or None. `"train"`, `"validation"`, `"test"`, or as the data calls it; part of
            one, `"train[:10%]"`, where TensorFlow Datasets keeps it. For `"validation"`, `"test"`
            does if there is no other. Defaults to None: the only one, or validation.
        classes: sequence of str or None. For shards: the names of the classes, in the order of
            their labels. Defaults to None: the lines of `classes.txt` or `labels.txt` beside the
            shards, or ImageNet-1K's if the records carry its WordNet identifiers. For a CSV file:
            the labels, in order. Defaults to None: sorted.
        first_label: int or None. For shards: the label of the first class. Defaults to None: what
            the first line of the list says (`1:tench`), else 1 where the label is
            `image/class/label`, as the ImageNet scripts write it, and 0 where it is `label`.

    Returns:
        Source.

    Raises:
        DataError: If there is no such data or split, or something is wrong with it.
        ImportError: If reading it needs an optional package that is not installed.
    """
    if not isinstance(data, str | Path):
        raise DataError(
            "Data is one folder, file or name. For a list of files, write a CSV file of their "
            f"paths and labels, and name that. Received: {type(data).__name__}"
        )
    text = str(data)
    if text.startswith("tfds:"):
        return open_tfds(text.removeprefix("tfds:"), split)
    path = Path(data).expanduser()
    exists = os.path.exists(path)  # False of a name that is too long, where `pathlib` raises
    if glob.has_magic(text) and not exists:
        paths = [Path(match) for match in glob.glob(str(path), recursive=True)]
        paths = [match for match in paths if match.is_file()]
        if not paths:
            raise DataError(f"No file has a name like that. Received: {text}")
        _refuse_other_files(paths[0])
        return open_shards(paths, text, split, classes, first_label)
    if os.path.isfile(path):
        if path.suffix.lower() in TABLES:
            return open_table(path, split, classes)
        _refuse_other_files(path)
        return open_shards([path], text, split, classes, first_label)
    if not exists:
        if path.is_absolute() or text.startswith("."):
            alike = ", ".join(paths_alike(path)) or "nothing"
            raise DataError(f"There is no such file or folder; alike is {alike}. Received: {text}")
        return open_tfds(text, split)
    if (path / "dataset_info.json").is_file():
        return open_prepared(path, split)
    # Not every folder below is looked into: classes may have thousands of files each.
    for folders in ([path], [path / name for name in subfolders(path) if split_word(name)]):
        files = [file for folder in folders for file in folder.iterdir() if is_shard(file)]
        if files:
            return open_shards(files, text, split, classes, first_label)
    if source := open_folder(path, split):
        return source
    raise _no_images(path)


def _refuse_other_files(path: Path) -> None:
    """Refuses what people have besides folders and shards, and says what to do with it."""
    if is_shard(path):
        return
    if is_picture(path.name):
        raise DataError(
            "A picture has no label by itself. Sort pictures into a folder for each class, or list "
            f"them with their labels in a CSV file; `predict` classifies one. Received: {path}"
        )
    if zipfile.is_zipfile(path) or tarfile.is_tarfile(path):
        raise DataError(f"An archive: unpack it, and name the folder. Received: {path}")


def _no_images(path: Path) -> DataError:
    loose = [entry.name for entry in path.iterdir() if is_picture(entry.name)]
    if loose:
        return DataError(
            f"The images have no labels: {len(loose):,} lie in the folder itself, such as "
            f"{loose[0]!r}. Put them into a folder for each class, or list them with their labels "
            f"in a CSV file. Received: {path}"
        )
    others = kinds_of_files(entry.name for entry in islice(walk(path), 10_000))
    return DataError(
        f"A folder without images; it has {others}. It holds class folders of images "
        f"({', '.join(SUFFIXES)}), or train/ and val/ of such, or *.tfrecord* or *.array_record* "
        f"shards. Received: {path}"
    )
