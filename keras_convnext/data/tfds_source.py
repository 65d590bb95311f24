"""Datasets from TensorFlow Datasets, with images as encoded files."""

import difflib
import importlib
import re
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from keras_convnext.data.errors import DataError, missing_extra
from keras_convnext.data.record_files import ArrayRecordFiles, Part, RecordFiles, TFRecordFiles
from keras_convnext.data.records import RecordSource
from keras_convnext.data.shards import example_parser
from keras_convnext.data.splits import resolve_split

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

_FILES: dict[str, type[RecordFiles]] = {"array_record": ArrayRecordFiles, "tfrecord": TFRecordFiles}
_DATASETS_OF_OURS = ("imagenet22k",)


def open_tfds(name: str, split: str | None) -> RecordSource:
    """Opens a dataset by its name in TensorFlow Datasets, and prepares it first if needed.

    Raises:
        DataError: If there is no such dataset, or it does not contain images with one label each.
        ImportError: If tensorflow-datasets is not installed.
    """
    return _open(prepared_builder(name), name, split)


def prepared_builder(name: str) -> "tfds.core.DatasetBuilder":
    """Returns the builder of a dataset that is prepared, and prepares it first if needed.

    Raises:
        DataError: If there is no such dataset.
        ImportError: If tensorflow-datasets is not installed.
    """
    builder = find_builder(name)
    if not builder.info.splits:
        try:
            # If it has to be written anyway, choose the format with random access.
            builder = _import_tfds(name).builder(name, file_format="array_record")
            builder.download_and_prepare()
        except AssertionError as error:  # raised if files must be downloaded manually
            raise DataError(f"{name} has not been prepared yet. {error}") from error
    return builder


def find_builder(name: str) -> "tfds.core.DatasetBuilder":
    """Returns the builder of a dataset. If it has not been prepared, `info.splits` is empty.

    Raises:
        DataError: If there is no such dataset.
        ImportError: If tensorflow-datasets is not installed.
    """
    tfds = _import_tfds(f"The folder {name} does not exist, and dataset names")
    plain = re.split("[:/]", name)[0]
    if plain in _DATASETS_OF_OURS:
        importlib.import_module(f"keras_convnext.data.{plain}")
    try:
        return tfds.builder(name)
    except (tfds.core.DatasetNotFoundError, AssertionError, ValueError) as error:
        known = [*tfds.list_builders(with_community_datasets=False), *_DATASETS_OF_OURS]
        if plain in known:  # the version or configuration does not exist
            raise DataError(f"{error}. Received: {name}") from error
        alike = difflib.get_close_matches(plain, known, cutoff=0.7) + paths_alike(Path(name))
        raise DataError(
            f"There is no file or folder {Path(name).absolute()}, and no dataset of this name in "
            f"TensorFlow Datasets. Similar names: {', '.join(alike) or 'none'}. Received: {name}"
        ) from error


def open_prepared(folder: Path, split: str | None) -> RecordSource:
    """Opens a folder that TensorFlow Datasets has prepared."""
    return _open(builder_of_folder(folder), str(folder), split)


def builder_of_folder(folder: Path) -> "tfds.core.DatasetBuilder":
    """Returns the builder of a folder that TensorFlow Datasets has prepared."""
    tfds = _import_tfds("Datasets prepared by TensorFlow Datasets")
    return tfds.builder_from_directory(folder)


def _import_tfds(purpose: str) -> ModuleType:
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise missing_extra("tensorflow-datasets", purpose) from error
    if not hasattr(tensorflow_datasets, "core"):  # it logs errors of its imports, and goes on
        raise ImportError(
            f"{purpose} need TensorFlow Datasets, which cannot be imported for the reason that it "
            "has logged. If this is the version of protobuf, as with TensorFlow before 2.20: pip "
            'install "tensorflow-metadata<1.18"',
            name="tensorflow-datasets",
        )
    return tensorflow_datasets


def paths_alike(path: Path) -> list[str]:
    """Returns the paths of files and folders with names similar to that of a missing path."""
    parent = path.absolute().parent
    names = [entry.name for entry in parent.iterdir()] if parent.is_dir() else []
    return [str(parent / name) for name in difflib.get_close_matches(path.name, names)]


def _open(builder: "tfds.core.DatasetBuilder", name: str, split: str | None) -> RecordSource:
    image, label = _keys(builder, name)
    classes = builder.info.features[label].names
    split, files = record_files(builder, name, split)
    return RecordSource(name, split, classes, files, example_parser(image, label))


def record_files(
    builder: "tfds.core.DatasetBuilder", name: str, split: str | None
) -> tuple[str, RecordFiles]:
    """Returns the name of a split, and its records.

    Raises:
        DataError: If the split does not exist or is empty, or the files cannot be read.
    """
    # TensorFlow Datasets itself resolves parts of a split, such as "train[:1%]".
    base, bracket, part = (split or "").partition("[")
    split = resolve_split(base or None, list(builder.info.splits), name) + bracket + part
    file_format = builder.info.file_format.value
    if file_format not in _FILES:
        raise DataError(
            "Only ArrayRecord and TFRecord files can be read. Prepare the dataset again with "
            f'file_format="array_record". Received: {file_format} in {builder.data_dir}'
        )
    instructions = builder.info.splits[split].file_instructions
    parts = [Part(Path(each.filename), each.skip, each.take) for each in instructions]
    if not parts:
        raise DataError(f"There are no images. Received: {name}, split {split!r}")
    return split, _FILES[file_format](parts)


def _keys(builder: "tfds.core.DatasetBuilder", name: str) -> tuple[str, str]:
    """Returns the names of the image and class features."""
    tfds = _import_tfds(name)
    features = builder.info.features
    images = [key for key in features if isinstance(features[key], tfds.features.Image)]
    labels = [key for key in features if isinstance(features[key], tfds.features.ClassLabel)]
    supervised = builder.info.supervised_keys
    if supervised and supervised[0] in images and supervised[1] in labels:
        return supervised[0], supervised[1]
    if len(images) != 1 or len(labels) != 1:
        raise DataError(
            "Classification needs a dataset with one image and one class label per example. "
            f"Received: {name} with {', '.join(features)}"
        )
    return images[0], labels[0]
