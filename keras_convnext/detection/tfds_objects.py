"""Reads objects from TensorFlow Datasets, such as `coco/2017`. They have boxes, but no masks."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import tensorflow as tf

from keras_convnext.data.errors import DataError
from keras_convnext.data.stored import Stored, content, title
from keras_convnext.data.tfds_source import builder_of_folder, prepared_builder, record_files
from keras_convnext.detection.checks import Fault, Size, checked_annotation, some_of
from keras_convnext.detection.objects import Annotation, Objects, Picture
from keras_convnext.detection.picture_sizes import size_of_picture

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

_CROWDS = ("is_crowd", "is_difficult")


class _Features(NamedTuple):
    """Names of the features with the image, and with the box, class and crowds of objects."""

    image: str
    box: str
    label: str
    crowd: str


def read_tfds(data: str, split: str, *, skip_broken: bool = False) -> Objects:
    """Reads a split of a dataset. All of its records are read once.

    Args:
        data: str. A folder that TensorFlow Datasets has prepared, or the name of a dataset.
        split: str. "train", "validation" or "test".
        skip_broken: bool. As in `read_coco`.

    Raises:
        DataError: If there is no such dataset, or it has no boxes, or an object is broken.
        NoSuchSplitError: If there is no such split.
        ImportError: If tensorflow-datasets is not installed.
    """
    path = Path(data).expanduser()
    is_folder = (path / "dataset_info.json").is_file()
    builder = builder_of_folder(path) if is_folder else prepared_builder(data.removeprefix("tfds:"))
    features, classes = _features(builder, data)
    _, records = record_files(builder, data, split)
    tolerated: Counter[str] = Counter()
    broken: list[str] = []
    pictures = []
    for number in range(len(records)):
        stored = Stored(records, number, features.image)
        size = size_of_picture(content(stored), title(stored))
        example = tf.train.Example.FromString(records[number]).features.feature
        found = _objects(example, features, len(classes), size, number, broken, tolerated)
        pictures.append(Picture(number, stored, *size, tuple(found)))
    if broken and not skip_broken:
        raise DataError(
            f"{len(broken)} objects are broken: {some_of(broken)}. Skip them with skip_broken. "
            f"Received: {data}"
        )
    return Objects(
        "TensorFlow Datasets", Path(data), pictures, classes, tuple(range(len(classes))), tolerated
    )


def _features(builder: "tfds.core.DatasetBuilder", name: str) -> tuple[_Features, tuple[str, ...]]:
    """Returns the names of the features, and those of the classes."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    images = [key for key in features if isinstance(features[key], tfds.features.Image)]
    for key in features:
        own = getattr(features[key], "feature", None)
        if not isinstance(own, tfds.features.FeaturesDict):
            continue
        boxes, labels = (
            [each for each in own if isinstance(own[each], kind)]
            for kind in (tfds.features.BBoxFeature, tfds.features.ClassLabel)
        )
        if len(images) == 1 and len(boxes) == 1 and "label" in labels:
            crowd = next((each for each in _CROWDS if each in own), "")
            named = _Features(images[0], f"{key}/{boxes[0]}", f"{key}/label", f"{key}/{crowd}")
            return named, tuple(own["label"].names)
    raise DataError(
        "Detection needs a dataset with one image and the boxes and labels of its objects. "
        f"Received: {name} with {', '.join(features)}"
    )


def _objects(
    example: Any,
    features: _Features,
    classes: int,
    size: Size,
    number: int,
    broken: list[str],
    tolerated: Counter[str],
) -> Iterator[Annotation]:
    shares = list(example[features.box].float_list.value)
    labels = list(example[features.label].int64_list.value)
    crowds = list(example[features.crowd].int64_list.value) or [0] * len(labels)
    if len(shares) != 4 * len(labels) or len(crowds) != len(labels):
        broken.append(f"record {number} has {len(labels)} labels and {len(shares)} sides of boxes")
        return
    known = {label: label for label in range(classes)}
    for index, (label, crowd) in enumerate(zip(labels, crowds)):
        top, left, bottom, right = shares[4 * index : 4 * index + 4]
        box = [left * size.width, top * size.height,
               (right - left) * size.width, (bottom - top) * size.height]  # fmt: skip
        own = {"id": index, "category_id": label, "bbox": box, "iscrowd": crowd}
        try:
            yield checked_annotation(own, size, known, tolerated)
        except Fault as fault:
            broken.append(f"object {index} of record {number} {fault}")
            tolerated["broken objects skipped"] += 1
