"""Reads objects from Pascal VOC's XML files, one for each image.

Files may come from strangers: they are bounded, and those that define entities are refused.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from keras_convnext.class_list import read_class_list
from keras_convnext.data.errors import DataError, NoSuchSplitError
from keras_convnext.detection.checks import Fault, Size, checked_annotation, some_of
from keras_convnext.detection.objects import Annotation, Objects, Picture
from keras_convnext.detection.picture_sizes import size_of_picture
from keras_convnext.picture_files import is_picture
from keras_convnext.printable import printable

_WORDS = {"train": ("train",), "validation": ("val", "valid", "validation"), "test": ("test",)}
_LARGEST = 16 * 2**20  # bytes of a file
_DEEPEST = 16  # elements within each other
CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)  # fmt: skip


class _File(NamedTuple):
    path: Path
    root: Element


def is_voc(folder: Path) -> bool:
    """Whether a folder has `Annotations`, or XML files beside images for a split."""
    if (folder / "Annotations").is_dir():
        return True
    return any(
        next((folder / word).glob("*.xml"), None) is not None
        for words in _WORDS.values()
        for word in words
    )


def read_voc(folder: Path, split: str, *, skip_broken: bool = False) -> Objects:
    """Reads a split of images with boxes. Difficult objects count as crowds.

    Args:
        folder: path. With `Annotations`, `JPEGImages`, and lists of names in `ImageSets/Main`; or
            with XML files beside the images in `train`, `valid` and `test`.
        split: str. "train", "validation" or "test".
        skip_broken: bool. As in `read_coco`.

    Raises:
        DataError: If a file or an object is broken; the message names both.
        NoSuchSplitError: If there is no such split.
    """
    files = [_File(path, _tree(path)) for path in _files_of(folder, split)]
    classes = _classes_of(folder, files)
    labels = {name: index for index, name in enumerate(classes)}
    tolerated: Counter[str] = Counter()
    broken: list[str] = []
    pictures = []
    for file in files:
        path = _picture_of(file, folder)
        size = size_of_picture(path)
        own = tuple(_objects(file, size, labels, broken, tolerated))
        pictures.append(Picture(file.path.stem, path, *size, own))
    if broken and not skip_broken:
        raise DataError(
            f"{len(broken)} objects are broken: {some_of(broken)}. Repair them, or skip them with "
            f"skip_broken (folder: {printable(folder)})"
        )
    return Objects("Pascal VOC", folder, pictures, classes, tuple(range(len(classes))), tolerated)


def _files_of(folder: Path, split: str) -> list[Path]:
    annotations = folder / "Annotations"
    if not annotations.is_dir():
        for word in _WORDS[split]:
            if found := sorted((folder / word).glob("*.xml")):
                return found
    elif (folder / "ImageSets" / "Main").is_dir():
        for word in _WORDS[split]:
            listed = folder / "ImageSets" / "Main" / f"{word}.txt"
            if listed.is_file():
                return [_listed(annotations, name, listed) for name in read_class_list(listed)]
    elif split == "train" and (found := sorted(annotations.glob("*.xml"))):
        return found
    raise NoSuchSplitError(
        f"There are no annotations of the split {split!r}, such as "
        f"ImageSets/Main/{_WORDS[split][0]}.txt. Received: {printable(folder)}"
    )


def _listed(annotations: Path, line: str, listed: Path) -> Path:
    name = line.split()[0] if line.split() else ""
    path = annotations / f"{name}.xml"
    if not name or "\0" in name or path.parent != annotations or not path.is_file():
        raise DataError(
            f"There is no Annotations/{printable(name[:200])}.xml (file: {printable(listed)})"
        )
    return path


def _classes_of(folder: Path, files: list[_File]) -> tuple[str, ...]:
    """Returns the names of `classes.txt`, or those in all files of the folder."""
    if (folder / "classes.txt").is_file():
        listed = read_class_list(folder / "classes.txt")
        return tuple(name for each in listed if (name := each.strip()))
    names = {name for file in files for name in _names(file.root)}
    if names == set(CLASSES):  # which are thousands of files
        return CLASSES
    known = {file.path for file in files}
    others = [path for each in ("*", "Annotations/*") for path in folder.glob(f"{each}.xml")]
    others += [path for words in _WORDS.values() for word in words
               for path in (folder / word).glob("*.xml")]  # fmt: skip
    for path in others:
        if path not in known:
            names.update(_names(_tree(path)))
    if not names:
        raise DataError(f"No file has an object with a name. Received: {printable(folder)}")
    return tuple(sorted(names))


def _names(root: Element) -> Iterator[str]:
    for each in root.findall("object"):
        if name := _text(each, "name"):
            yield name


def _picture_of(file: _File, folder: Path) -> Path:
    """Returns the image of a file: the one that it names, or the one of the same name."""
    is_devkit = file.path.parent.name == "Annotations"
    images = folder / "JPEGImages" if is_devkit else file.path.parent
    if is_devkit and not images.is_dir():
        images = folder / "images"
    named = Path(_text(file.root, "filename") or "").name
    same = [images / f"{file.path.stem}{suffix}" for suffix in (".jpg", ".jpeg", ".png", ".JPG")]
    for path in ([images / named] if named and "\0" not in named else []) + same:
        if is_picture(path.name) and path.is_file():
            return path
    raise DataError(
        f"The image {printable(named or same[0].name)} is not in {printable(images)} "
        f"(file: {printable(file.path)})"
    )


def _objects(
    file: _File,
    size: Size,
    labels: Mapping[str, int],
    broken: list[str],
    tolerated: Counter[str],
) -> Iterator[Annotation]:
    ids = {label: label for label in labels.values()}
    for number, each in enumerate(file.root.findall("object"), 1):
        try:
            _check_size(file.root, size)
            yield checked_annotation({"id": number, **_object(each, labels)}, size, ids, tolerated)
        except Fault as fault:
            broken.append(f"object {number} of {printable(file.path)} {fault}")
            tolerated["broken objects skipped"] += 1


def _check_size(root: Element, size: Size) -> None:
    """Refuses a file for an image of another size; some programs write 0.

    Raises:
        Fault: If it is of another size.
    """
    own = root.find("size")
    if own is None:
        return
    height, width = (_number(_text(own, name)) or 0 for name in ("height", "width"))
    if height and width and (height, width) != size:
        raise Fault(
            f"is of an image of {width:g} x {height:g} pixels, which has {size.width} x "
            f"{size.height}"
        )


def _object(each: Element, labels: Mapping[str, int]) -> dict[str, Any]:
    """Returns an object in COCO's format.

    Raises:
        Fault: If it is not one.
    """
    name = _text(each, "name") or ""
    if name not in labels:
        raise Fault(f"has the unknown class {printable(name[:50])!r}")
    box = each.find("bndbox")
    corners = [
        None if box is None else _number(_text(box, key))
        for key in ("xmin", "ymin", "xmax", "ymax")
    ]
    left, top, right, bottom = corners
    if left is None or top is None or right is None or bottom is None:
        raise Fault("needs a bndbox with the numbers xmin, ymin, xmax and ymax")
    # Pixels are counted from 1, and the last one belongs to the box.
    left, top = left - 1, top - 1
    return {
        "category_id": labels[name],
        "bbox": [left, top, right - left, bottom - top],
        "iscrowd": int(_text(each, "difficult") == "1"),
    }


def _text(parent: Element, name: str) -> str | None:
    found = parent.find(name)
    return None if found is None or found.text is None else found.text.strip()


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _tree(path: Path) -> Element:
    """Parses an XML file without definitions of entities, which could be of any size.

    Raises:
        DataError: If it is damaged, too large or too deep, or not of VOC.
    """
    if path.stat().st_size > _LARGEST:
        raise DataError(f"The file has more than {_LARGEST:,} bytes (file: {printable(path)})")
    builder, parser = TreeBuilder(), expat.ParserCreate()
    depth = 0

    def refuse(*_: Any) -> None:
        raise DataError(f"XML with a DOCTYPE is not read (file: {printable(path)})")

    def start(name: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _DEEPEST:
            raise DataError(f"The elements are nested too deep (file: {printable(path)})")
        builder.start(name, attributes)

    def end(name: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(name)

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(path.read_bytes(), True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"This is not XML: {error} (file: {printable(path)})") from error
    root = builder.close()
    if root.tag != "annotation":
        raise DataError(
            "A file of Pascal VOC begins with <annotation>. "
            f"Received: <{printable(root.tag[:50])}> (file: {printable(path)})"
        )
    return root
