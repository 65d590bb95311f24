"""Reads objects from COCO's JSON files."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from keras_convnext.data.errors import DataError
from keras_convnext.detection.checks import Fault, Size, checked_annotation, is_whole, some_of
from keras_convnext.detection.objects import Annotation, Objects, Picture
from keras_convnext.printable import printable

_LISTS = ("images", "annotations", "categories")
MOST_PIXELS = 1 << 28  # of an image, whose masks are arrays


def read_coco(
    path: str | Path, images: str | Path | None = None, *, skip_broken: bool = False
) -> Objects:
    """Reads a COCO file of instances.

    Example:

    ```python
    objects = read_coco("coco/annotations/instances_val2017.json", "coco/val2017")
    print(objects.summary())
    ```

    Args:
        path: str or path. The JSON file.
        images: str, path or None. The folder of the images. Defaults to None, for that of the file,
            or the folder beside `annotations` that is named after the file, as in COCO's archives.
        skip_broken: bool. Whether broken annotations are skipped and counted, instead of raising an
            error. COCO's own training images have boxes without area. Defaults to False.

    Returns:
        `Objects`. Labels are in the order of the category ids.

    Raises:
        DataError: If the file is not such a file, an image is missing, or an annotation is broken.
            The message names the file, and the ids of image and annotation.
    """
    path = Path(path)
    content = _content_of(path)
    classes = _categories(content["categories"], path)
    labels = {number: label for label, number in enumerate(classes)}
    folder = _image_folder(path) if images is None else Path(images)
    pictures = _pictures(content["images"], folder, path)
    tolerated: Counter[str] = Counter()
    of_picture: dict[Any, list[Annotation]] = {each: [] for each in pictures}
    broken: list[str] = []
    for index, each in enumerate(content["annotations"]):
        if not isinstance(each, dict) or "image_id" not in each:
            raise DataError(f"Annotation {index} has no image_id (file: {path})")
        if not isinstance(each["image_id"], int | str) or each["image_id"] not in pictures:
            raise DataError(
                f"Annotation {printable(str(each.get('id')))} is of image "
                f"{printable(str(each['image_id']))}, which is not listed (file: {path})"
            )
        picture = pictures[each["image_id"]]
        try:
            own = checked_annotation(each, Size(picture.height, picture.width), labels, tolerated)
        except Fault as fault:
            where = (
                f"annotation {printable(str(each.get('id')))} of image {printable(str(picture.id))}"
            )
            broken.append(f"{where} {fault}")
            tolerated["broken annotations skipped"] += 1
            continue
        of_picture[picture.id].append(own)
    if broken and not skip_broken:
        raise DataError(
            f"{len(broken)} of {len(content['annotations'])} annotations are broken: "
            f"{some_of(broken)}. Repair them, or skip them with skip_broken "
            f"(file: {path})"
        )
    return Objects(
        "COCO",
        path,
        [each._replace(annotations=tuple(of_picture[each.id])) for each in pictures.values()],
        tuple(classes.values()),
        tuple(classes),
        tolerated,
    )


def _content_of(path: Path) -> dict[str, list[Any]]:
    try:
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"There is no such file. Received: {path}") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"This is not JSON, or it is truncated: {error} (file: {path})") from error
    if not isinstance(content, dict) or any(
        not isinstance(content.get(name), list) for name in _LISTS
    ):
        found = ", ".join(map(str, content)) if isinstance(content, dict) else "a list"
        raise DataError(
            f"A COCO file of instances has the lists {', '.join(_LISTS)}. "
            f"Received: {printable(found)[:200]} (file: {path})"
        )
    return content


def _categories(categories: list[Any], path: Path) -> dict[int, str]:
    """Returns the names by id, sorted by id."""
    names: dict[int, str] = {}
    for each in categories:
        number, name = (
            (each.get("id"), each.get("name")) if isinstance(each, dict) else (None, None)
        )
        if not is_whole(number) or not isinstance(name, str):
            raise DataError(
                "A category has a numeric id and a name. "
                f"Received: {printable(str(each))[:200]} (file: {path})"
            )
        if number in names:
            raise DataError(f"Two categories have the id {number} (file: {path})")
        names[number] = name
    if not names:
        raise DataError(f"There are no categories (file: {path})")
    return dict(sorted(names.items()))


def _image_folder(path: Path) -> Path:
    for prefix in ("instances_", "person_keypoints_"):
        beside = path.parent.parent / path.stem.removeprefix(prefix)
        if path.stem.startswith(prefix) and beside.is_dir():
            return beside
    beside = path.parent.parent / "images"
    return beside if path.parent.name == "annotations" and beside.is_dir() else path.parent


def _pictures(images: list[Any], folder: Path, path: Path) -> dict[Any, Picture]:
    pictures: dict[Any, Picture] = {}
    missing: list[str] = []
    listed: dict[Path, set[str]] = {}
    for index, each in enumerate(images):
        own = each if isinstance(each, dict) else {}
        number, name = own.get("id"), own.get("file_name")
        height, width = own.get("height"), own.get("width")
        if not isinstance(number, int | str) or not isinstance(name, str):
            raise DataError(f"Image {index} has no id and file_name (file: {path})")
        shown = printable(str(number))
        if number in pictures:
            raise DataError(f"Two images have the id {shown} (file: {path})")
        if (
            not (is_whole(height) and is_whole(width))
            or min(height, width) < 1
            or height * width > MOST_PIXELS
        ):
            raise DataError(
                f"Image {shown} needs a height and width of at most {MOST_PIXELS:,} pixels. "
                f"Received: {printable(str((height, width)))[:100]} (file: {path})"
            )
        parts = Path(name).parts
        if Path(name).is_absolute() or ".." in parts or not parts or "\0" in name:
            raise DataError(
                f"The file_name of image {shown} must be below the folder of the images. "
                f"Received: {printable(name)} (file: {path})"
            )
        file = folder / name
        if file.parent not in listed:
            exists = file.parent.is_dir()
            listed[file.parent] = set(os.listdir(file.parent)) if exists else set()
        if file.name not in listed[file.parent]:
            missing.append(f"{shown} ({printable(name)})")
        pictures[number] = Picture(number, file, height, width, ())
    if missing:
        raise DataError(
            f"{len(missing)} of {len(pictures)} images are not in {folder}: "
            f"{some_of(missing)} (file: {path})"
        )
    if not pictures:
        raise DataError(f"There are no images (file: {path})")
    return pictures
