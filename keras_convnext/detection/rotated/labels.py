"""Reads label files of rotated objects: those of DOTA, and those of YOLO-OBB.

Files may come from strangers: they are bounded, and every fault names the file and the line.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from keras_convnext.data.errors import DataError
from keras_convnext.printable import printable

_LARGEST = 64 * 2**20  # bytes; the largest label file of DOTA-v2.0 has 2 MB
_FARTHEST = 1e6  # px
Point = tuple[float, float]
_HEADERS = ("imagesource:", "gsd:")


class Line(NamedTuple):
    """A line of a label file.

    Args:
        number: int. From 1 on.
        name: str. Name of the class, or its index in YOLO-OBB files.
        points: tuple of eight floats.
        difficulty: int.
    """

    number: int
    name: str
    points: tuple[float, ...]
    difficulty: int


def dota_lines(path: Path) -> list[Line]:
    """Reads a label file of DOTA: `x1 y1 x2 y2 x3 y3 x4 y4 class difficulty`.

    Lines `imagesource:` and `gsd:` are skipped. The difficulty may be missing. Names of classes may
    contain spaces.

    Raises:
        DataError: If the file or a line is malformed.
    """
    found = []
    for number, text in _lines(path):
        if text.lower().startswith(_HEADERS):
            continue
        parts = text.split()
        points = _numbers(parts[:8], path, number)
        rest = parts[8:]
        if not rest:
            raise broken(path, number, f"the name of the class is missing: {text[:60]}")
        difficulty = 0
        if len(rest) > 1 and rest[-1].isdecimal():
            difficulty = int(rest.pop()[:6])
        found.append(Line(number, " ".join(rest), points, difficulty))
    return found


def yolo_lines(path: Path, height: int, width: int) -> list[Line]:
    """Reads a label file of YOLO-OBB: `class x1 y1 x2 y2 x3 y3 x4 y4`, in shares of the image.

    Raises:
        DataError: If the file or a line is malformed.
    """
    found = []
    for number, text in _lines(path):
        name, *rest = text.split()
        if len(rest) != 8:
            raise broken(
                path, number, f"a class and 8 numbers are expected, and there are {len(rest)}"
            )
        points = _numbers(rest, path, number)
        scaled = tuple(each * (height if i % 2 else width) for i, each in enumerate(points))
        found.append(Line(number, name, scaled, 0))
    return found


def fault_of(line: Line, classes: Mapping[str, int], height: int, width: int) -> str | None:
    """Returns what is wrong with an object, or None."""
    if line.name not in classes:
        known = ", ".join(list(classes)[:20])
        return f"unknown class {printable(line.name[:40])}; the classes are {printable(known)}"
    if max(map(abs, line.points)) > _FARTHEST:
        return "points are more than 1,000,000 px away"
    xs, ys = line.points[::2], line.points[1::2]
    if max(xs) <= 0 or min(xs) >= width or max(ys) <= 0 or min(ys) >= height:
        return f"the object is outside of the image, which has {width} x {height} px"
    if _crosses_itself(line.points):
        return "the sides of the quadrilateral cross: its points are not in order"
    return None


def reaches_outside(line: Line, height: int, width: int) -> bool:
    """Whether some of the points are outside of the image."""
    xs, ys = line.points[::2], line.points[1::2]
    return min(xs) < 0 or max(xs) > width or min(ys) < 0 or max(ys) > height


def broken(path: Path, line: int, reason: str) -> DataError:
    """Returns the error for a line."""
    return DataError(f"Line {line}: {printable(reason)} (file: {printable(path)})")


def _lines(path: Path) -> list[tuple[int, str]]:
    if path.stat().st_size > _LARGEST:
        raise DataError(f"A label file has at most 64 MB (file: {printable(path)})")
    try:
        lines = path.read_text("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DataError(f"The file is not UTF-8 text: {error} (file: {printable(path)})") from error
    return [(number, text) for number, line in enumerate(lines, 1) if (text := line.strip())]


def _numbers(parts: list[str], path: Path, number: int) -> tuple[float, ...]:
    try:
        found = tuple(float(each) for each in parts)
    except ValueError:
        found = ()
    if len(found) != 8 or not all(map(math.isfinite, found)):
        raise broken(path, number, f"8 coordinates are expected: {' '.join(parts)[:60]}")
    return found


def _crosses_itself(points: tuple[float, ...]) -> bool:
    """Whether two opposite sides of a quadrilateral cross."""
    a, b, c, d = zip(points[::2], points[1::2])
    return _cross((a, b), (c, d)) or _cross((b, c), (d, a))


def _cross(one: tuple[Point, Point], other: tuple[Point, Point]) -> bool:
    return _are_apart(one, other) and _are_apart(other, one)


def _are_apart(side: tuple[Point, Point], points: tuple[Point, Point]) -> bool:
    """Whether two points are on different sides of a line."""
    (x, y), (to_x, to_y) = side
    one, other = ((to_x - x) * (v - y) - (to_y - y) * (u - x) for u, v in points)
    return one * other < 0
