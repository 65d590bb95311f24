"""Opens labeled images from a folder, shards, a table or a dataset name."""

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
    """Opens a split of labeled images from a folder, file or dataset name.

    Example:

    ```python
    source = open_source("photos", "train")  # photos/train/<class>/*.jpg
    source = open_source("imagenet2012", "validation")  # from TensorFlow Datasets
    for encoded, label, epoch, position in source.stream(seed=0, batch=256):
        ...
    ```

    Args:
        data: str or path. One of:
            - a folder of class folders, `root/<class>/*.jpg`, or of one such folder per split,
              `root/train/<class>/*.jpg`. The classes are the sorted folder names.
            - a folder of TFRecord or ArrayRecord shards, or a pattern such as `shards/train-*`.
              Records have the features of the ImageNet scripts (`image/encoded`,
              `image/class/label`) or of TensorFlow Datasets (`image`, `label`).
            - a CSV file with columns for paths, labels and, optionally, splits:
              `path,label,split`. Paths are relative to the file.
            - a folder prepared by TensorFlow Datasets.
            - if no such file or folder exists, the name of a dataset in TensorFlow Datasets, such
              as `cifar10` or `imagenet_v2/matched-frequency:3.0.0`; `tfds:cifar10` never means a
              folder. The dataset is downloaded and prepared if needed.
        split: str or None. `"train"`, `"validation"`, `"test"`, or the data's own name for it; for
            TensorFlow Datasets also part of a split, such as `"train[:10%]"`. `"test"` is used for
            `"validation"` if there is no validation split. Defaults to None, for the only split or
            else validation.
        classes: sequence of str or None. For shards, the class names in the order of their labels;
            defaults to the lines of `classes.txt` or `labels.txt` in their folder, or to the
            classes of ImageNet-1K if the records contain its WordNet identifiers. For a CSV file,
            the labels in order; defaults to sorted labels.
        first_label: int or None. For shards, the label of the first class. Defaults to None, for
            the number in the first line of the list (`1:tench`), else 1 for records with
            `image/class/label`, as written by the ImageNet scripts, and 0 for those with `label`.

    Returns:
        A `Source`.

    Raises:
        DataError: If the data or split does not exist or is invalid.
        ImportError: If an optional package is needed but not installed.
    """
    if not isinstance(data, str | Path):
        raise DataError(
            "data must be one folder, file or dataset name. For a list of files, write their paths "
            f"and labels to a CSV file and pass that. Received: data of type {type(data).__name__}"
        )
    text = str(data)
    if text.startswith("tfds:"):
        return open_tfds(text.removeprefix("tfds:"), split)
    path = Path(data).expanduser()
    exists = os.path.exists(path)  # False if the name is too long, where `pathlib` raises
    if glob.has_magic(text) and not exists:
        paths = [Path(match) for match in glob.glob(str(path), recursive=True)]
        paths = [match for match in paths if match.is_file()]
        if not paths:
            raise DataError(f"No file matches the pattern. Received: {text}")
        _refuse_other_files(paths[0])
        return open_shards(paths, text, split, classes, first_label)
    if os.path.isfile(path):
        if path.suffix.lower() in TABLES:
            return open_table(path, split, classes)
        _refuse_other_files(path)
        return open_shards([path], text, split, classes, first_label)
    if not exists:
        if path.is_absolute() or text.startswith("."):
            alike = ", ".join(paths_alike(path)) or "none"
            raise DataError(
                f"There is no such file or folder. Similar names: {alike}. Received: {text}"
            )
        return open_tfds(text, split)
    if (path / "dataset_info.json").is_file():
        return open_prepared(path, split)
    # Only split folders are searched: class folders may contain thousands of files each.
    for folders in ([path], [path / name for name in subfolders(path) if split_word(name)]):
        files = [file for folder in folders for file in folder.iterdir() if is_shard(file)]
        if files:
            return open_shards(files, text, split, classes, first_label)
    if source := open_folder(path, split):
        return source
    raise _no_images(path)


# Lists and containers of images in other formats, models, documents and videos.
_NO_SHARDS = {
    ".txt", ".lst", ".json", ".jsonl", ".ndjson", ".xml", ".yaml", ".yml", ".xlsx", ".xls", ".md",
    ".html", ".parquet", ".arrow", ".feather", ".npz", ".npy", ".h5", ".hdf5", ".mat", ".pkl",
    ".pickle", ".pt", ".pth", ".safetensors", ".keras", ".bin", ".onnx", ".lmdb", ".mdb", ".db",
    ".py", ".pdf", ".mp4", ".avi", ".mov",
}  # fmt: skip


def _refuse_other_files(path: Path) -> None:
    """Refuses pictures and archives with a message about what to do instead."""
    if is_shard(path):
        return
    if is_picture(path.name):
        raise DataError(
            "A single image has no label. Sort images into one folder per class, or list them with "
            f"their labels in a CSV file. To classify an image, use `predict`. Received: {path}"
        )
    if zipfile.is_zipfile(path) or tarfile.is_tarfile(path):
        raise DataError(f"This is an archive. Unpack it, and pass the folder. Received: {path}")
    if path.suffix.lower() in _NO_SHARDS:
        raise DataError(
            f"A {path.suffix} file is neither an image nor a shard of images. Pass a folder with "
            f"one folder per class, or list paths and labels in a CSV file. Received: {path}"
        )


def _no_images(path: Path) -> DataError:
    loose = [entry.name for entry in path.iterdir() if is_picture(entry.name)]
    if loose:
        return DataError(
            f"The images have no labels: {len(loose):,} are directly in the folder, such as "
            f"{loose[0]!r}. Sort them into one folder per class, or list them with their labels in "
            f"a CSV file. Received: {path}"
        )
    others = kinds_of_files(entry.name for entry in islice(walk(path), 10_000))
    return DataError(
        f"The folder contains no images; it contains {others}. Expected one folder per class with "
        f"images ({', '.join(SUFFIXES)}), or train/ and val/ with such folders, or *.tfrecord* or "
        f"*.array_record* shards. Received: {path}"
    )
