"""What a `.keras` file records of its task, next to what Keras writes.

`train` adds the entry `keras_convnext.json` to the archive, which Keras ignores. Saving the model
again with `model.save` leaves it out.
"""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from keras_convnext.class_list import read_class_list
from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.keras_file import SUFFIX, read_entry

_ENTRY = "keras_convnext.json"


class Record(NamedTuple):
    """What a file records of its task.

    Args:
        task: str. Name of the task, or "" if nothing is recorded.
        classes: tuple of str. Names of the classes, in order.
        preprocessing: dict. How images were prepared for validation, such as their `size`.
    """

    task: str = ""
    classes: tuple[str, ...] = ()
    preprocessing: Mapping[str, Any] = {}


def add_record(path: str | Path, record: Record) -> None:
    """Adds the record to a `.keras` file that has none."""
    with zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as archive:
        archive.writestr(_ENTRY, json.dumps(record._asdict()))


def read_record(path: str | Path) -> Record:
    """Reads the record of a file; files without one have an empty record.

    Raises:
        CheckpointError: If the file or the record is damaged.
    """
    if Path(path).suffix != SUFFIX:
        return Record()
    found = read_entry(path, _ENTRY)
    if found is None:
        return Record()
    task, classes, preprocessing = (found.get(name) for name in Record._fields)
    if (
        not isinstance(task, str)
        or not isinstance(classes, list)
        or not all(isinstance(name, str) for name in classes)
        or not isinstance(preprocessing, dict)
    ):
        raise CheckpointError(
            f"Its {_ENTRY} is damaged. Download the file again, or train again (file: {path})"
        )
    return Record(task, tuple(classes), preprocessing)


def recorded_names(checkpoint: str | Path) -> tuple[str, ...]:
    """Returns the class names that `train` has recorded in a weight file or next to it.

    Raises:
        CheckpointError: If the file or its record is damaged.
        ClassListError: If `classes.txt` is larger than 16 MB or not UTF-8 text.
    """
    path = Path(checkpoint)
    if path.is_file() and (names := read_record(path).classes):
        return names
    beside = path.with_name("classes.txt")
    return tuple(read_class_list(beside)) if beside.is_file() else ()
