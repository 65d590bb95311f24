"""The names and colors of classes: `classes.json`, `classes.txt`, and those of known data sets."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from keras_convnext.class_list import read_class_list
from keras_convnext.data.errors import DataError
from keras_convnext.pictures import name_of
from keras_convnext.segmentation.masks import Color

_LARGEST = 2**22  # bytes of classes.json
_NO_CLASS = re.compile(r"(?i)void|ignored?|unlabell?ed|unknown")

VOC = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip
CITYSCAPES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign",
    "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle",
    "bicycle",
)  # fmt: skip
# The labels that become classes, in order: mcordts/cityscapesScripts, helpers/labels.py.
CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)


class Entry(NamedTuple):
    """A label in the order of the labels.

    Args:
        name: str. Name of the class.
        color: tuple of int or None. Red, green and blue in masks with colors.
        ignored: bool. Whether its pixels have no class.
    """

    name: str
    color: Color | None = None
    ignored: bool = False


def read_entries(folder: Path) -> list[Entry]:
    """Reads the classes of a folder; without a list of them, there are none.

    `classes.json` is a list of objects with `name` and, optionally, `color` (a list of three
    integers in 0..255) and `ignored` (true for labels without a class). `classes.txt` has a name
    per line; the names void, ignore, unlabeled and unknown are ignored.

    Raises:
        DataError: If the list is invalid.
        ClassListError: If `classes.txt` is larger than 16 MB or not UTF-8 text.
    """
    if (path := folder / "classes.json").is_file():
        return _checked(_read_json(path), path)
    if (path := folder / "classes.txt").is_file():
        names = [line.strip() for line in read_class_list(path)]
        while names and not names[-1]:
            names.pop()
        return _checked(
            [Entry(name, None, bool(_NO_CLASS.fullmatch(name))) for name in names], path
        )
    return []


def _read_json(path: Path) -> list[Entry]:
    if path.stat().st_size > _LARGEST:
        raise DataError(f"A list of classes has at most {_LARGEST >> 20} MB. Received: {path}")
    try:
        rows = json.loads(path.read_text("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"The list of classes is not JSON: {error}. Received: {path}") from error
    if not isinstance(rows, list):
        raise DataError(
            'The list of classes must be a list such as [{"name": "road", "color": [128, 64, 128]}'
            f"]. Received: {name_of(path)}"
        )
    return [_entry(row, number, path) for number, row in enumerate(rows)]


def _entry(row: Any, number: int, path: Path) -> Entry:
    if isinstance(row, str):
        row = {"name": row}
    name, color, ignored = (
        (row.get("name"), row.get("color"), row.get("ignored", False))
        if isinstance(row, dict)
        else (None, None, False)
    )
    is_color = color is None or (
        isinstance(color, list)
        and len(color) == 3
        and all(type(level) is int and 0 <= level <= 255 for level in color)
    )
    if not isinstance(name, str) or not is_color or not isinstance(ignored, bool):
        raise DataError(
            f"Entry {number} of the list of classes must have a name, and possibly a color of "
            "three integers in 0..255, and ignored as true or false. "
            f"Received: {name_of(path)}"
        )
    return Entry(name, None if color is None else (color[0], color[1], color[2]), ignored)


def _checked(entries: Sequence[Entry], path: Path) -> list[Entry]:
    for what in ("name", "color"):
        seen: set[object] = set()
        for value in (getattr(each, what) for each in entries):
            if value is not None and value in seen:
                raise DataError(f"Two classes have the {what} {value!r}. Received: {name_of(path)}")
            seen.add(value)
    if not any(not each.ignored for each in entries):
        raise DataError(f"The list contains no classes. Received: {name_of(path)}")
    if "" in (each.name for each in entries):
        raise DataError(f"A class has no name. Received: {name_of(path)}")
    return list(entries)
