"""Opens folders of images with rotated objects: DOTA's, and those of YOLO-OBB."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from keras_convnext.class_list import read_class_list
from keras_convnext.data.errors import DataError, NoSuchSplitError
from keras_convnext.detection.rotated.labels import (
    Line,
    broken,
    dota_lines,
    fault_of,
    reaches_outside,
    yolo_lines,
)
from keras_convnext.detection.rotated.objects import (
    DOTA,
    RotatedObject,
    RotatedObjects,
    RotatedPicture,
)
from keras_convnext.detection.rotated.scenes import size_of
from keras_convnext.detection.yolo_names import names_in_yaml
from keras_convnext.picture_files import walk_pictures
from keras_convnext.printable import printable

_WORDS = {
    "train": ("train",), "validation": ("val", "validation", "valid"), "test": ("test",),
}  # fmt: skip
_IS_DOTA = 8  # names of its classes: then others are mistakes
_DOTA_LABELS = ("labelTxt", "labelTxt-v1.0", "labelTxt-v1.5", "labelTxt-v2.0")


class _Folders(NamedTuple):
    images: Path
    labels: Path | None
    is_yolo: bool


def open_rotated(
    data: str | Path,
    split: str,
    classes: Sequence[str] | None = None,
    *,
    skip_broken: bool = False,
    needs_labels: bool = True,
) -> RotatedObjects:
    """Opens a split of images with rotated objects.

    Example:

    ```python
    open_rotated("DOTA", "train").summary()
    ```

    Args:
        data: str or path. A folder of DOTA: with `images` and `labelTxt` in it, which are the split
            "train", or in subfolders `train`, `val` and `test`; or a folder of YOLO-OBB, with
            `images/train`, `labels/train`, and so on.
        split: str. "train", "validation" or "test".
        classes: sequence of str or None. Names of the classes. Defaults to None, for those of
            `classes.txt` or, with YOLO-OBB, of the YAML file in the folder; or else the version of
            DOTA that has all names in the labels, or the names themselves.
        skip_broken: bool. Whether broken objects are skipped instead of refused. Defaults to False.
        needs_labels: bool. Whether each image must have a label file. Defaults to True.

    Returns:
        `RotatedObjects`.

    Raises:
        DataError: If there is nothing at `data`, or a file or an object is broken; the message
            names the file and the line.
        NoSuchSplitError: If there is no such split.
    """
    root = Path(data).expanduser()
    if not root.is_dir():
        raise DataError(f"There is no such folder. Received: {printable(root)}")
    folders = _folders_of(root, split)
    paths = sorted(
        (Path(entry.path) for entry in walk_pictures(folders.images)), key=lambda path: path.name
    )
    if not paths:
        raise DataError(f"There are no images. Received: {printable(folders.images)}")
    sizes = [size_of(path) for path in paths]
    lines = dict(_read(folders, paths, sizes, needs_labels))
    names = _classes_of(root, classes, folders.is_yolo, lines, skip_broken)
    labels = {name: index for index, name in enumerate(names)}
    if folders.is_yolo:  # which names classes by their index in its own list
        own = _listed(root, is_yolo=True) or names
        labels = {str(index): labels[name] for index, name in enumerate(own) if name in labels}
    tolerated: Counter[str] = Counter()
    pictures = [
        RotatedPicture(
            path, *size, tuple(_objects(*lines[path], labels, size, skip_broken, tolerated))
        )
        for path, size in zip(paths, sizes)
    ]
    kind = "YOLO-OBB" if folders.is_yolo else "DOTA"
    return RotatedObjects(kind, root, pictures, names, dict(tolerated))


def _folders_of(root: Path, split: str) -> _Folders:
    for word in _WORDS[split]:
        if (root / "images" / word).is_dir():
            labels = root / "labels" / word
            return _Folders(root / "images" / word, labels if labels.is_dir() else None, True)
        if (root / word / "images").is_dir():
            return _beside(root / word)
    if split == "train" and (root / "images").is_dir():
        return _beside(root)
    words = _WORDS[split]
    raise NoSuchSplitError(
        f"There is no split {split!r}, such as {words[0]}/images or images/{words[0]}. "
        f"Received: {printable(root)}"
    )


def _beside(folder: Path) -> _Folders:
    for name in _DOTA_LABELS:
        # The archives of later versions have a folder of the same name as the archive.
        for labels in (folder / name / name, folder / name / "labelTxt", folder / name):
            if labels.is_dir():
                return _Folders(folder / "images", labels, False)
    if (folder / "labels").is_dir():
        return _Folders(folder / "images", folder / "labels", True)
    return _Folders(folder / "images", None, False)


def _read(
    folders: _Folders, paths: Sequence[Path], sizes: Sequence[tuple[int, int]], needs_labels: bool
) -> Iterator[tuple[Path, tuple[Path, list[Line]]]]:
    """Yields each image with its label file and the lines in it."""
    for path, size in zip(paths, sizes):
        file = None if folders.labels is None else folders.labels / f"{path.stem}.txt"
        if file is None or not file.is_file():
            # YOLO-OBB has no files for images without objects.
            if needs_labels and not (folders.is_yolo and file is not None):
                where = file or folders.images.with_name("labelTxt") / f"{path.stem}.txt"
                raise DataError(
                    f"The label file {printable(where)} is missing (file: {printable(path)})"
                )
            yield path, (path, [])
        elif folders.is_yolo:
            yield path, (file, yolo_lines(file, *size))
        else:
            yield path, (file, dota_lines(file))


def _classes_of(
    root: Path,
    classes: Sequence[str] | None,
    is_yolo: bool,
    lines: Mapping[Path, tuple[Path, list[Line]]],
    skip_broken: bool,
) -> tuple[str, ...]:
    if classes is not None:
        return tuple(classes)
    if listed := _listed(root, is_yolo):
        return listed
    if is_yolo:
        raise DataError(
            "There is no list of classes: add data.yaml with `names:`, or classes.txt. "
            f"Received: {printable(root)}"
        )
    names = {line.name for _, own in lines.values() for line in own}
    for own in DOTA.values():
        if names <= set(own):
            return own
    known = set(DOTA["2.0"])
    if len(names & known) < _IS_DOTA:
        return tuple(sorted(names))
    for file, own_lines in lines.values():
        for line in own_lines:
            if line.name not in known and not skip_broken:
                name = f"the class {line.name[:40]!r} is not in DOTA, but others are"
                raise broken(file, line.number, f"{name}. List all in classes.txt, one a line")
    return DOTA["2.0"]


def _listed(root: Path, is_yolo: bool) -> tuple[str, ...]:
    """Returns the classes in `classes.txt` or in the first YAML file of YOLO-OBB, or none."""
    if (root / "classes.txt").is_file():
        names = (each.strip() for each in read_class_list(root / "classes.txt"))
        return tuple(name for name in names if name)
    files = sorted([*root.glob("*.yaml"), *root.glob("*.yml")]) if is_yolo else []
    return names_in_yaml(files[0]) if files else ()


def _objects(
    file: Path,
    lines: Sequence[Line],
    labels: Mapping[str, int],
    size: tuple[int, int],
    skip_broken: bool,
    tolerated: Counter[str],
) -> Iterator[RotatedObject]:
    for line in lines:
        fault = fault_of(line, labels, *size)
        if fault is not None:
            if not skip_broken:
                raise broken(file, line.number, f"{fault}. Skip such objects with skip_broken=true")
            tolerated["broken objects skipped"] += 1
            continue
        if reaches_outside(line, *size):
            tolerated["objects that reach outside"] += 1
        yield RotatedObject(labels[line.name], line.points, line.difficulty)
