"""Cuts scenes and their objects into tiles, as DOTA_devkit does.

References:
    CAPTAIN-WHU/DOTA_devkit, ImgSplit.py, and the padding of ImgSplit_multi_process.py.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from keras_convnext.detection.rotated.objects import RotatedObject
from keras_convnext.detection.rotated.polygons import clipped, signed_area
from keras_convnext.segmentation.windows import starts

WHOLE_FROM = 0.7  # share of an object that a tile must have more of, to require it
PARTIAL = 2  # difficulty of others


class Tile(NamedTuple):
    """A part of a scene.

    Args:
        left: int. In pixels.
        top: int. In pixels.
        size: int. Side; tiles of smaller scenes are padded.
    """

    left: int
    top: int
    size: int

    def name(self, scene: str) -> str:
        """Returns the name of the tile, from which devkits find its place in the scene."""
        return f"{scene}__1__{self.left}___{self.top}"


def tiles_of(height: int, width: int, size: int, overlap: int) -> Iterator[list[Tile]]:
    """Yields the tiles of a scene, row by row.

    The last tile of a row or column ends with the scene, and so overlaps the one before by more.

    Args:
        height: int. Of the scene.
        width: int. Of the scene.
        size: int. Side of a tile.
        overlap: int. Of neighboring tiles.

    Raises:
        ValueError: If `overlap` is not in 0..size - 1.
    """
    if not 0 <= overlap < size:
        raise ValueError(f"overlap must be in 0..{size - 1}. Received: overlap={overlap}")
    lefts = starts(width, size, size - overlap)
    for top in starts(height, size, size - overlap):
        yield [Tile(left, top, size) for left in lefts]


def objects_in(
    tile: Tile, height: int, width: int, objects: Sequence[RotatedObject]
) -> list[RotatedObject]:
    """Returns the objects of a scene that are in a tile, in its coordinates.

    Whole objects are kept. Others are clipped: to four points, or to five, of which the two nearest
    become one; objects with more are left out. If the tile has 70% of an object or less, its
    difficulty is 2. Coordinates are cut to integers.

    Args:
        tile: Tile.
        height: int. Of the scene.
        width: int. Of the scene.
        objects: sequence of RotatedObject. Of the scene.
    """
    right = min(tile.left + tile.size, width - 1)
    bottom = min(tile.top + tile.size, height - 1)
    window = np.array(
        [[tile.left, tile.top], [right, tile.top], [right, bottom], [tile.left, bottom]]
    )
    points = np.array([each.points for each in objects], np.float64).reshape(-1, 4, 2)
    offset = window[0]
    near = (points.max(1) >= window[0]).all(1) & (points.min(1) <= window[2]).all(1)
    found = []
    for index in np.flatnonzero(near).tolist():
        own, each = points[index], objects[index]
        area = signed_area(own)
        if area == 0:
            continue
        if (own >= window[0]).all() and (own <= window[2]).all():
            found.append(_moved(each, own - offset, each.difficulty))
            continue
        vertices, (count,) = clipped(own[None] if area > 0 else own[None, ::-1], window[None])
        part = vertices[0, :count]
        share = signed_area(part) / abs(area) if count > 2 else 0
        if share <= 0 or not 4 <= count <= 5:
            continue
        if count == 5:
            part = _four_of_five(part)
        inside = np.trunc(_fitted(part, own) - offset)
        inside = np.clip(inside, 1, tile.size)
        found.append(_moved(each, inside, each.difficulty if share > WHOLE_FROM else PARTIAL))
    return found


def _moved(each: RotatedObject, points: np.ndarray, difficulty: int) -> RotatedObject:
    numbers = np.trunc(points).ravel().tolist()
    return RotatedObject(each.label, tuple(numbers), difficulty)


def _four_of_five(points: np.ndarray) -> np.ndarray:
    """Replaces the two nearest neighbors of five points by the point between them."""
    after = np.roll(points, -1, 0)
    first = int(np.argmin(np.hypot(*(after - points).T)))
    merged = points.copy()
    merged[first] = (points[first] + after[first]) / 2
    return np.delete(merged, (first + 1) % 5, 0)


def _fitted(points: np.ndarray, original: np.ndarray) -> np.ndarray:
    """Begins with the point with which the points are nearest to those of the original."""
    turns = [np.roll(points, -turn, 0) for turn in range(4)]
    return min(turns, key=lambda each: float(((each - original) ** 2).sum()))


def cut(pixels: np.ndarray, tile: Tile, first_row: int = 0) -> np.ndarray:
    """Returns the pixels of a tile, padded with black to its size.

    Args:
        pixels: uint8 array (H, W, 3). The scene, or rows of it.
        tile: Tile.
        first_row: int. Row of the scene that is the first of `pixels`. Defaults to 0.

    Returns:
        uint8 array (size, size, 3).
    """
    top = tile.top - first_row
    part = pixels[top : top + tile.size, tile.left : tile.left + tile.size]
    rows, columns = (tile.size - side for side in part.shape[:2])
    return np.pad(part, ((0, rows), (0, columns), (0, 0))) if rows or columns else part
