"""Checks an object of an image, in whatever format it was read."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeGuard

from keras_convnext.detection.masks import check_rle
from keras_convnext.detection.objects import Annotation
from keras_convnext.printable import printable

_MARGIN = 1.0  # pixels by which rounding may move a box or polygon out of the image
_SHOWN = 5  # items in a message


class Fault(Exception):
    """What is wrong with an annotation."""


class Size(NamedTuple):
    """Height and width of an image, in pixels."""

    height: int
    width: int


def some_of(items: Sequence[str]) -> str:
    """Returns the first items of a list for a message, and how many there are besides."""
    more = f", and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
    return f"{'; '.join(items[:_SHOWN])}{more}"


def checked_annotation(
    own: Mapping[str, Any], size: Size, labels: Mapping[int, int], tolerated: Counter[str]
) -> Annotation:
    """Checks an annotation in COCO's format.

    Args:
        own: dict. With `category_id`, `bbox` (x, y, width, height), and possibly `segmentation`,
            `iscrowd`, `area` and `id`.
        size: Size. Of the image.
        labels: dict. From category ids to labels.
        tolerated: Counter. What was changed is counted in it.

    Raises:
        Fault: If it is broken.
    """
    category = own.get("category_id")
    if not is_whole(category) or category not in labels:
        raise Fault(f"has the unknown category id {printable(str(category))[:50]}")
    box = _box(own.get("bbox"), size, tolerated)
    is_crowd = own.get("iscrowd", 0) in (1, True)
    shape = own.get("segmentation")
    if isinstance(shape, dict):
        _check_runs(shape, size)
    elif shape:
        shape = _polygons(shape, size, tolerated)
    else:
        shape = None
    number, area = own.get("id"), own.get("area")
    return Annotation(
        number if isinstance(number, int | str) else "",
        labels[category],
        box,
        shape,
        is_crowd,
        float(area) if _is_finite(area) and area >= 0 else None,
    )


def _box(box: Any, size: Size, tolerated: Counter[str]) -> tuple[float, float, float, float]:
    if not (isinstance(box, list) and len(box) == 4 and all(map(_is_finite, box))):
        raise Fault(f"needs a bbox of four numbers. Received: {printable(str(box))[:100]}")
    x, y, width, height = map(float, box)
    if width <= 0 or height <= 0:
        raise Fault(f"has a bbox without area. Received: {box}")
    corners = (x, y, x + width, y + height)
    right, bottom = float(size.width), float(size.height)
    inside = (max(x, 0.0), max(y, 0.0), min(x + width, right), min(y + height, bottom))
    beyond = max(abs(one - other) for one, other in zip(corners, inside))
    if beyond > _MARGIN or inside[0] >= inside[2] or inside[1] >= inside[3]:
        raise Fault(
            f"has a bbox outside of the image of {size.width} x {size.height} pixels. "
            f"Received: {box}"
        )
    if beyond > 0:
        tolerated["boxes clipped by up to a pixel"] += 1
    return inside


def _polygons(shape: Any, size: Size, tolerated: Counter[str]) -> list[list[float]]:
    if not isinstance(shape, list):
        raise Fault("has a segmentation that is neither polygons nor run lengths")
    polygons = []
    for polygon in shape:
        if not isinstance(polygon, list) or len(polygon) % 2 or not all(map(_is_finite, polygon)):
            raise Fault("has a polygon that is not a list of pairs of numbers")
        if len(polygon) < 6:
            raise Fault(f"has a polygon of {len(polygon) // 2} points, which needs three")
        limits = (float(size.width), float(size.height)) * (len(polygon) // 2)
        inside = [min(max(float(v), 0.0), limit) for v, limit in zip(polygon, limits)]
        beyond = max(abs(one - other) for one, other in zip(polygon, inside))
        if beyond > _MARGIN:
            raise Fault(f"has a polygon that reaches {beyond:.1f} pixels out of the image")
        if beyond > 0:
            tolerated["polygons clipped by up to a pixel"] += 1
        polygons.append(inside)
    return polygons


def _check_runs(shape: Mapping[str, Any], size: Size) -> None:
    if shape.get("size") != [size.height, size.width]:
        raise Fault(
            f"has run lengths of the size {printable(str(shape.get('size')))[:50]}, but the image "
            f"has {[size.height, size.width]}"
        )
    try:
        check_rle(shape)
    except ValueError as error:
        raise Fault(f"is damaged: {error}") from error


def is_whole(value: Any) -> TypeGuard[int]:
    """Whether a value is a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: Any) -> TypeGuard[float]:
    try:
        return isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:  # of a whole number that no float can hold
        return False
