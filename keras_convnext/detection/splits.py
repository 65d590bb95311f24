"""Finds the COCO files of the splits in a folder."""

from pathlib import Path

from keras_convnext.data.errors import DataError, NoSuchSplitError
from keras_convnext.detection.coco import read_coco
from keras_convnext.detection.objects import Objects
from keras_convnext.printable import printable

_WORDS = {
    "train": ("train2017", "train2014", "train"),
    "validation": ("val2017", "val2014", "validation", "valid", "val"),
    "test": ("test",),
}
_FILES = (
    "annotations/instances_{word}.json",
    "annotations/{word}.json",
    "{word}/_annotations.coco.json",
    "{word}/annotations.json",
    "{word}.json",
)


def open_objects(data: str | Path, split: str, *, skip_broken: bool = False) -> Objects:
    """Opens a split of images with objects.

    Args:
        data: str or path. A COCO file of instances, which is the split "train"; or a folder with
            `annotations/instances_train2017.json` beside `train2017/`, as in COCO; with
            `train/_annotations.coco.json`; or with `train.json`, `annotations/train.json` or
            `annotations.json`; and likewise with "val", "valid" or "validation".
        split: str. "train", "validation" or "test".
        skip_broken: bool. As in `read_coco`.

    Raises:
        DataError: As in `read_coco`, or if there is nothing at `data`.
        NoSuchSplitError: If there is no such split.
    """
    path = Path(data).expanduser()
    if path.is_file():
        if split != "train":
            raise NoSuchSplitError(
                f"A file has the split 'train' only. Received: {printable(path)}"
            )
        return read_coco(path, skip_broken=skip_broken)
    if not path.is_dir():
        raise DataError(f"There is no such file or folder. Received: {printable(path)}")
    names = [pattern.format(word=word) for word in _WORDS[split] for pattern in _FILES]
    if split == "train":
        names += ["annotations.json", "_annotations.coco.json"]
    for name in names:
        if (path / name).is_file():
            return read_coco(path / name, skip_broken=skip_broken)
    raise NoSuchSplitError(
        f"There are no annotations of the split {split!r}, such as {names[0]} or {names[2]}. "
        f"Received: {printable(path)}"
    )
