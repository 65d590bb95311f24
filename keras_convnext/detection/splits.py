"""Opens a split of images with objects, in the format that the data has."""

from pathlib import Path

from keras_convnext.data.errors import DataError, NoSuchSplitError
from keras_convnext.detection.coco import read_coco
from keras_convnext.detection.objects import Objects
from keras_convnext.detection.voc import is_voc, read_voc
from keras_convnext.detection.yolo import is_yolo, read_yolo
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
            `annotations.json`; and likewise with "val", "valid" or "validation". Or a folder of
            YOLO, with `data.yaml` or `classes.txt`, and `images/train` beside `labels/train` or
            `train/images` beside `train/labels`. Or a folder of Pascal VOC, with `Annotations`,
            `JPEGImages` and `ImageSets/Main`, or with XML files beside the images in `train`. Or
            a folder or the name of a dataset of TensorFlow Datasets, such as "coco/2017".
        split: str. "train", "validation" or "test".
        skip_broken: bool. As in `read_coco`.

    Raises:
        DataError: As in `read_coco`, or if there is nothing at `data`.
        NoSuchSplitError: If there is no such split.
        ImportError: If tensorflow-datasets is needed and not installed.
    """
    path = Path(data).expanduser()
    if path.is_file():
        if split != "train":
            raise NoSuchSplitError(
                f"A file has the split 'train' only. Received: {printable(path)}"
            )
        return read_coco(path, skip_broken=skip_broken)
    if not path.is_dir() and (path.is_absolute() or str(data).startswith(".")):
        raise DataError(f"There is no such file or folder. Received: {printable(path)}")
    if not path.is_dir() or (path / "dataset_info.json").is_file():
        from keras_convnext.detection.tfds_objects import read_tfds  # which imports TensorFlow

        return read_tfds(str(data), split, skip_broken=skip_broken)
    names = [pattern.format(word=word) for word in _WORDS[split] for pattern in _FILES]
    if split == "train":
        names += ["annotations.json", "_annotations.coco.json"]
    for name in names:
        if (path / name).is_file():
            return read_coco(path / name, skip_broken=skip_broken)
    if is_yolo(path):
        return read_yolo(path, split, skip_broken=skip_broken)
    if is_voc(path):
        return read_voc(path, split, skip_broken=skip_broken)
    raise NoSuchSplitError(
        f"There are no annotations of the split {split!r}: of COCO, such as {names[0]} or "
        f"{names[2]}; of YOLO, images/ beside labels/; or of Pascal VOC, Annotations/. "
        f"Received: {printable(path)}"
    )
