"""Images and masks, in files or in the records of TensorFlow Datasets."""

from pathlib import Path
from typing import NamedTuple

import tensorflow as tf

from keras_convnext.data.errors import DataError
from keras_convnext.data.record_files import RecordFiles
from keras_convnext.pictures import name_of


class Stored(NamedTuple):
    """An encoded image in a record, which is a `tf.train.Example`.

    Args:
        records: RecordFiles. The files of the split.
        number: int. Number of the record.
        feature: str. Its feature.
    """

    records: RecordFiles
    number: int
    feature: str


File = str | Stored


def title(file: File | Path | bytes) -> str:
    """Returns the name of a file for messages."""
    if isinstance(file, Stored):
        return name_of(f"{file.feature} of {file.records.place(file.number)}")
    return name_of(file)


def content(file: File | Path) -> bytes:
    """Reads a file.

    Raises:
        DataError: If it cannot be read.
    """
    if isinstance(file, Stored):
        example = tf.train.Example.FromString(file.records[file.number])
        values = example.features.feature[file.feature].bytes_list.value
        if len(values) != 1:
            raise DataError(f"A record has no such feature. Received: {title(file)}")
        return bytes(values[0])
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise DataError(
            f"The file cannot be read: {error.strerror}. Received: {title(file)}"
        ) from error
