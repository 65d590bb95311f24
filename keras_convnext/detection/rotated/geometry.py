"""Rotated boxes as (cx, cy, w, h, angle): conventions of the angle, corners, and transformations.

Coordinates are continuous, in pixels, with the y axis down: a positive angle, in radians, turns
clockwise on the screen. The side w points in the direction of the angle. The functions take and
return NumPy arrays, and work on the last axis.

References:
    open-mmlab/mmrotate, mmrotate/core/bbox/transforms.py (0.3.4).
    Xuyihaoby/rotate_detection, whose "v2" is "le135" here, and whose "v1" is "oc".
"""

import math

import numpy as np

# The lowest angle of each convention. In "le135" and "le90", w is the longer side, and angles range
# over half a turn. "oc" is OpenCV's: angles are in (0, 90] degrees, and either side may be longer.
CONVENTIONS = {"le135": -math.pi / 4, "le90": -math.pi / 2, "oc": 0.0}


def to_convention(boxes: np.ndarray, convention: str = "le135") -> np.ndarray:
    """Describes boxes by another convention of the angle.

    Args:
        boxes: array (..., 5). In any convention.
        convention: str. A key of `CONVENTIONS`. Defaults to "le135".

    Returns:
        Array (..., 5), of the same rectangles.
    """
    cx, cy, w, h, angle = np.moveaxis(np.asarray(boxes), -1, 0)
    if convention == "oc":
        quarters = np.ceil(angle / (math.pi / 2)) - 1
        swaps = quarters % 2 == 1
        angle = angle - quarters * (math.pi / 2)  # (0, 90]
    else:
        swaps = h > w
        angle = in_half_turn(np.where(swaps, angle + math.pi / 2, angle), CONVENTIONS[convention])
    return np.stack([cx, cy, np.where(swaps, h, w), np.where(swaps, w, h), angle], axis=-1)


def in_half_turn(angle: np.ndarray, start: float) -> np.ndarray:
    """Returns the angles plus multiples of half a turn, from `start` on."""
    found = (angle - start) % math.pi + start
    return np.where(found >= start + math.pi, start, found)  # a remainder may be rounded up


def to_points(boxes: np.ndarray) -> np.ndarray:
    """Returns the corners of boxes (..., 5), of shape (..., 4, 2).

    The first two corners are the ends of the side in the direction of the angle that is above it
    for an angle of 0: upper left and upper right; then lower right and lower left.
    """
    boxes = np.asarray(boxes)
    center, (w, h, angle) = boxes[..., None, :2], np.moveaxis(boxes[..., 2:], -1, 0)
    along = np.stack([np.cos(angle), np.sin(angle)], axis=-1) * (w / 2)[..., None]
    across = np.stack([-np.sin(angle), np.cos(angle)], axis=-1) * (h / 2)[..., None]
    around = np.stack([-along - across, along - across, along + across, across - along], axis=-2)
    return center + around


def half_extents(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns half of the width and of the height of the horizontal boxes around boxes (..., 5)."""
    _, _, w, h, angle = np.moveaxis(np.asarray(boxes), -1, 0)
    cos, sin = np.abs(np.cos(angle)), np.abs(np.sin(angle))
    return (w * cos + h * sin) / 2, (w * sin + h * cos) / 2


def from_points(points: np.ndarray, convention: str = "le135") -> np.ndarray:
    """Returns the boxes of quadrilaterals, which need not be rectangles.

    The sides are the lengths of the first two edges, the angle is that of the longer one, and the
    center is halfway between the first and the third point.

    Args:
        points: array (..., 4, 2). In the order around the quadrilateral.
        convention: str. A key of `CONVENTIONS`. Defaults to "le135".

    Returns:
        Array (..., 5).
    """
    points = np.asarray(points)
    first, second = points[..., 1, :] - points[..., 0, :], points[..., 2, :] - points[..., 1, :]
    w, h = np.hypot(*np.moveaxis(first, -1, 0)), np.hypot(*np.moveaxis(second, -1, 0))
    longer = np.where((w >= h)[..., None], first, second)
    center = (points[..., 0, :] + points[..., 2, :]) / 2
    sides = np.stack([np.maximum(w, h), np.minimum(w, h)], axis=-1)
    angle = np.arctan2(longer[..., 1], longer[..., 0])[..., None]
    return to_convention(np.concatenate([center, sides, angle], axis=-1), convention)


def flipped(boxes: np.ndarray, size: tuple[float, float], axis: str) -> np.ndarray:
    """Mirrors boxes together with their image.

    Args:
        boxes: array (..., 5).
        size: tuple (height, width) of the image.
        axis: str. "horizontal", "vertical", or "diagonal" for both.

    Returns:
        Array (..., 5), with angles outside of any convention.
    """
    boxes = np.array(boxes)
    height, width = size
    if axis in ("horizontal", "diagonal"):
        boxes[..., 0] = width - boxes[..., 0]
        boxes[..., 4] = math.pi - boxes[..., 4]
    if axis in ("vertical", "diagonal"):
        boxes[..., 1] = height - boxes[..., 1]
        boxes[..., 4] = -boxes[..., 4]
    return boxes


def resized(boxes: np.ndarray, x_factor: float, y_factor: float) -> np.ndarray:
    """Resizes boxes together with their image.

    With two different factors, rectangles become parallelograms, whose boxes are those of
    `from_points`.
    """
    if x_factor == y_factor:
        return np.asarray(boxes) * np.array([x_factor] * 4 + [1], np.asarray(boxes).dtype)
    points = to_points(boxes)
    return from_points(points * np.array([x_factor, y_factor], points.dtype))


def turned(boxes: np.ndarray, angle: float, center: tuple[float, float]) -> np.ndarray:
    """Rotates boxes about a point, clockwise on the screen, by an angle in radians."""
    boxes = np.array(boxes)
    x, y = boxes[..., 0] - center[0], boxes[..., 1] - center[1]
    boxes[..., 0] = center[0] + math.cos(angle) * x - math.sin(angle) * y
    boxes[..., 1] = center[1] + math.sin(angle) * x + math.cos(angle) * y
    boxes[..., 4] += angle
    return boxes
