"""Reads objects from the text files of Ultralytics' YOLO: boxes, or polygons.

A line has the number of a class and a box (center x, center y, width, height) or a polygon (x1, y1,
x2, y2, ...), in shares of the width and height of the image. An image without objects has an empty
file, or none.
"""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from keras_convnext.class_list import read_class_list
from keras_convnext.data.errors import DataError, NoSuchSplitError
from keras_convnext.detection.checks import Fault, Size, checked_annotation, some_of
from keras_convnext.detection.objects import Annotation, Objects, Picture
from keras_convnext.detection.picture_sizes import size_of_picture
from keras_convnext.detection.yolo_names import names_in_yaml, values_in_yaml
from keras_convnext.picture_files import is_picture, walk_pictures
from keras_convnext.printable import printable

_KEYS = {"train": ("train",), "validation": ("val", "valid", "validation"), "test": ("test",)}
_LARGEST = 16 * 2**20  # bytes of a label file
_LARGEST_LIST = 256 * 2**20  # bytes of a list of images


def is_yolo(folder: Path) -> bool:
    """Whether a folder has `images` beside `labels`, itself or for a split."""
    parents = [folder, *(folder / word for words in _KEYS.values() for word in words)]
    return any((each / "images").is_dir() and (each / "labels").is_dir() for each in parents)


def read_yolo(folder: Path, split: str, *, skip_broken: bool = False) -> Objects:
    """Reads a split of images with objects.

    Args:
        folder: path. With `data.yaml`, or with `classes.txt` beside `images` and `labels`.
        split: str. "train", "validation" or "test".
        skip_broken: bool. As in `read_coco`.

    Raises:
        DataError: If a file or a line is broken; the message names both.
        NoSuchSplitError: If there is no such split.
    """
    yaml = next(iter(sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])), None)
    if (folder / "classes.txt").is_file():
        listed = read_class_list(folder / "classes.txt")
        classes = tuple(name for each in listed if (name := each.strip()))
    elif yaml is not None:
        classes = names_in_yaml(yaml)
    else:
        raise DataError(
            "There is no list of classes: add data.yaml with `names:`, or classes.txt. "
            f"Received: {printable(folder)}"
        )
    paths = _images_of(folder, yaml, split)
    tolerated: Counter[str] = Counter()
    broken: list[str] = []
    pictures, labelled = [], 0
    for path in paths:
        size = size_of_picture(path)
        file = labels_of(path)
        lines = _lines(file, tolerated)
        labelled += lines is not None
        found = list(_objects(lines or {}, size, len(classes), file, broken, tolerated))
        name = path.relative_to(folder.resolve()).as_posix()
        pictures.append(Picture(name, path, *size, tuple(found)))
    if not labelled:
        raise DataError(
            "No image has a label file, such as "
            f"{printable(labels_of(paths[0]))} (file: {printable(paths[0])})"
        )
    if broken and not skip_broken:
        raise DataError(
            f"{len(broken)} objects are broken: {some_of(broken)}. Repair them, or skip them with "
            f"skip_broken (folder: {printable(folder)})"
        )
    if labelled < len(paths):
        tolerated["images without a label file"] = len(paths) - labelled
    numbers = tuple(range(len(classes)))
    return Objects("YOLO", folder, pictures, classes, numbers, tolerated)


def labels_of(path: Path) -> Path:
    """Returns the label file of an image: in `labels` instead of the last folder `images`."""
    parts = list(path.parts)
    for index in range(len(parts) - 2, -1, -1):
        if parts[index] == "images":
            parts[index] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def _images_of(folder: Path, yaml: Path | None, split: str) -> list[Path]:
    """Returns the images of a split, sorted. All are below the folder.

    Raises:
        NoSuchSplitError: If there is no such split.
        DataError: If it is elsewhere or empty.
    """
    root, keys = folder.resolve(), _KEYS[split]
    values = values_in_yaml(yaml) if yaml is not None else {}
    named = next((values[key] for key in keys if values.get(key)), None)
    if named is not None:
        base = "".join(values.get("path", [])[:1])
        places = [_place(root, base, each) for each in named]
    else:
        folders = [root / "images" / key for key in keys] + [root / key / "images" for key in keys]
        places = [each for each in folders if each.is_dir()][:1]
        if not places and split == "train" and (root / "images").is_dir():
            places = [root / "images"]
    if not places:
        raise NoSuchSplitError(
            f"There are no images of the split {split!r}, such as images/{keys[0]}. "
            f"Received: {printable(folder)}"
        )
    paths = sorted({path for place in places for path in _below(place, root)})
    if not paths:
        raise DataError(f"There are no images of the split {split!r} in {printable(places[0])}")
    return paths


def _place(root: Path, base: str, name: str) -> Path:
    """Returns the folder or list that the YAML file names, which must be below the data's."""
    # The path is often that of another machine, and Roboflow writes ../train/images.
    names = [f"{base}/{name}", name, name.removeprefix("../")]
    for each in names:
        found = Path(root, each).resolve() if "\0" not in each else root
        if found.exists() and found.is_relative_to(root):
            return found
    raise DataError(
        "The images of data.yaml must be in the folder of that file. "
        f"Received: {printable(name)} (folder: {printable(root)})"
    )


def _below(place: Path, root: Path) -> Iterator[Path]:
    if place.is_dir():
        yield from (Path(entry.path) for entry in walk_pictures(place))
        return
    for number, text in _text_lines(place, _LARGEST_LIST):
        base = place.parent if text.startswith("./") else root
        path = Path(base, text).resolve() if "\0" not in text else root
        if not (is_picture(path.name) and path.is_file() and path.is_relative_to(root)):
            raise DataError(
                f"Line {number}: there is no such image in the folder of the data. "
                f"Received: {printable(text[:200])} (file: {printable(place)})"
            )
        yield path


def _lines(file: Path, tolerated: Counter[str]) -> dict[str, int] | None:
    """Returns the lines of a label file with their numbers, or None if there is no file."""
    if not file.is_file():
        return None
    lines: dict[str, int] = {}
    for number, text in _text_lines(file, _LARGEST):
        if text in lines:
            tolerated["repeated lines skipped"] += 1
        lines.setdefault(text, number)
    return lines


def _text_lines(file: Path, largest: int) -> list[tuple[int, str]]:
    if file.stat().st_size > largest:
        raise DataError(f"The file has more than {largest:,} bytes (file: {printable(file)})")
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"The file is not UTF-8 text: {error} (file: {printable(file)})") from error
    lines = enumerate(text.split("\n"), 1)
    return [(number, stripped) for number, line in lines if (stripped := line.strip())]


def _objects(
    lines: Mapping[str, int],
    size: Size,
    classes: int,
    file: Path,
    broken: list[str],
    tolerated: Counter[str],
) -> Iterator[Annotation]:
    labels = {number: number for number in range(classes)}
    for text, number in lines.items():
        try:
            yield checked_annotation({"id": number, **_object(text, size)}, size, labels, tolerated)
        except Fault as fault:
            broken.append(f"line {number} of {printable(file)} {fault}")
            tolerated["broken objects skipped"] += 1


def _object(text: str, size: Size) -> dict[str, Any]:
    """Returns the object of a line in COCO's format.

    Raises:
        Fault: If it is not one.
    """
    name, *rest = text.split()
    if not re.fullmatch(r"\d{1,9}", name):
        raise Fault(f"does not begin with the number of a class: {printable(text[:60])}")
    try:
        shares = [float(each) for each in rest]
    except ValueError:
        shares = []
    if not all(map(math.isfinite, shares)) or len(shares) < 4 or len(shares) % 2:
        raise Fault(
            f"needs four numbers of a box, or the pairs of a polygon: {printable(text[:60])}"
        )
    if max(map(abs, shares)) > 2:
        raise Fault(f"is not in shares of the image: {printable(text[:60])}")
    scaled = [share * (size.height if i % 2 else size.width) for i, share in enumerate(shares)]
    own: dict[str, Any] = {"category_id": int(name)}
    if len(scaled) == 4:
        x, y, width, height = scaled
        return {**own, "bbox": [x - width / 2, y - height / 2, width, height]}
    xs, ys = scaled[::2], scaled[1::2]
    box = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
    return {**own, "bbox": box, "segmentation": [scaled]}
