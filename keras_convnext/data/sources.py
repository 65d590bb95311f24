"""Which images are meant: a folder, shards, or a name."""

import glob
from collections.abc import Sequence
from pathlib import Path

from keras_convnext.data.errors import DataError
from keras_convnext.data.folders import EXTENSIONS, open_folder, subfolders
from keras_convnext.data.shards import is_shard, open_shards
from keras_convnext.data.source import Source
from keras_convnext.data.splits import split_word
from keras_convnext.data.tfds_source import open_prepared, open_tfds, paths_alike


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
            - a folder that TensorFlow Datasets has prepared.
            - where no such file or folder exists, the name of a dataset in TensorFlow Datasets,
              `cifar10` or `imagenet_v2/matched-frequency:3.0.0`; `tfds:cifar10` says so for sure.
              It is downloaded and prepared if need be.
        split: str or None. `"train"`, `"validation"`, `"test"`, or as the data calls it; part of
            one, `"train[:10%]"`, where TensorFlow Datasets keeps it. For `"validation"`, `"test"`
            does if there is no other. Defaults to None: the only one, or validation.
        classes: sequence of str or None. For shards: the names of the classes, in the order of
            their labels. Defaults to None: the lines of `classes.txt` or `labels.txt` beside the
            shards, or ImageNet-1K's if the records carry its WordNet identifiers.
        first_label: int or None. For shards: the label of the first class. Defaults to None: what
            the first line of the list says (`1:tench`), else 1 where the label is
            `image/class/label`, as the ImageNet scripts write it, and 0 where it is `label`.

    Returns:
        Source.

    Raises:
        DataError: If there is no such data or split, or something is wrong with it.
        ImportError: If reading it needs an optional package that is not installed.
    """
    text = str(data)
    if text.startswith("tfds:"):
        return open_tfds(text.removeprefix("tfds:"), split)
    path = Path(data).expanduser()
    if glob.has_magic(text) and not path.exists():
        paths = [Path(match) for match in glob.glob(str(path), recursive=True)]
        paths = [match for match in paths if match.is_file()]
        if not paths:
            raise DataError(f"No file has a name like that. Received: {text}")
        return open_shards(paths, text, split, classes, first_label)
    if path.is_file():
        return open_shards([path], text, split, classes, first_label)
    if not path.exists():
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
    raise DataError(
        f"A folder without images. It holds class folders of {', '.join(EXTENSIONS)} files, or "
        f"train/ and val/ of such, or *.tfrecord* or *.array_record* shards. Received: {text}"
    )
