"""The intersection over union of rotated boxes: exact, differentiable, with static shapes.

One box is moved into the frame of the other, which is then the rectangle -a..a, -b..b. The area of
the intersection is the integral of -y dx around the first box with both coordinates clipped to the
rectangle. Along an edge, this is a sum over three parts: y below, within and above. All terms are
continuous, so that rounding cannot add or remove a corner, as in methods that collect corners.

Where the area has a kink, for example for equal boxes, the gradient is the mean of those at both
sides; hence equal boxes have no gradient of the angle. The functions take NumPy arrays with `numpy`
as `xp`, and tensors with `keras.ops`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

_SMALLEST = 1e-12  # px: differences below it count as 0
_SMALLEST_AREA = 1e-16  # px²: its square, in gradients, is not yet 0 in float32


def iou_of(
    boxes: Any, others: Any, xp: Any, constant: Any = lambda x: x, one_sided: bool = False
) -> Any:
    """Returns the intersection over union of pairs of boxes.

    Args:
        boxes: array or tensor (..., 5), floating-point.
        others: array or tensor (..., 5).
        xp: module. `numpy` or `keras.ops`, as the type of the boxes.
        constant: function. Stops the gradient. Defaults to the identity.
        one_sided: bool. As in `rotated_iou`.

    Returns:
        Array or tensor (...).
    """
    x, y, w, h, angle = (boxes[..., index] for index in range(5))
    other_x, other_y, other_w, other_h, other_angle = (others[..., index] for index in range(5))
    w, h, other_w, other_h = (xp.maximum(side, 0) for side in (w, h, other_w, other_h))
    x, y = _turned(x - other_x, y - other_y, other_angle, xp)
    turn = angle - other_angle
    shared = intersection(x, y, w, h, turn, other_w, other_h, xp, constant)
    if one_sided:
        same = (x == 0) & (y == 0) & (turn == 0) & (w == other_w) & (h == other_h)
        slope = constant((w * w + h * h) / 2)
        shared = shared - xp.where(same, slope * (turn - constant(turn)), 0)
    union = w * h + other_w * other_h - shared
    return shared / xp.maximum(union, _SMALLEST_AREA)


def _turned(x: Any, y: Any, angle: Any, xp: Any) -> tuple[Any, Any]:
    """Returns coordinates in a frame that is turned by an angle."""
    cos, sin = xp.cos(angle), xp.sin(angle)
    return cos * x + sin * y, cos * y - sin * x


def intersection(
    x: Any, y: Any, w: Any, h: Any, turn: Any, other_w: Any, other_h: Any, xp: Any, constant: Any
) -> Any:
    """Returns the area of the intersection of boxes with boxes at (0, 0) with an angle of 0."""
    cos, sin = xp.cos(turn), xp.sin(turn)
    a, b = other_w / 2, other_h / 2
    along, across = (w / 2 * cos, w / 2 * sin), (-h / 2 * sin, h / 2 * cos)
    corners: Sequence[tuple[Any, Any]] = [
        (x + i * along[0] + j * across[0], y + i * along[1] + j * across[1])
        for i, j in ((1, -1), (1, 1), (-1, 1), (-1, -1))
    ]
    area: Any = 0
    for index, (start, factor) in enumerate(zip(corners, (2, -2, -2, 2))):
        side = along if index % 2 else across
        area = area - _below(*start, factor * side[0], factor * side[1], a, b, xp, constant)
    # Boxes apart have exactly 0, and no gradient: the sides of either are a separating line.
    own_x, own_y = _turned(x, y, turn, xp)
    near = (
        (abs(x) < a + abs(along[0]) + abs(across[0]))
        & (abs(y) < b + abs(along[1]) + abs(across[1]))
        & (abs(own_x) < w / 2 + abs(a * cos) + abs(b * sin))
        & (abs(own_y) < h / 2 + abs(a * sin) + abs(b * cos))
    )
    return xp.where(near, xp.maximum(area, 0), 0)


def _below(x: Any, y: Any, dx: Any, dy: Any, a: Any, b: Any, xp: Any, constant: Any) -> Any:
    """Returns the integral of clip(y, -b, b) dx over the part of an edge in -a..a.

    Positions on the edge are in 0..1, from (x, y) to (x + dx, y + dy).
    """
    upright = abs(dx) < _SMALLEST
    divisor = xp.where(upright, 1, dx)
    ends = (-a - x) / divisor, (a - x) / divisor
    first = xp.where(upright, 0, _clip(xp.where(dx > 0, ends[0], ends[1]), 0, 1, xp))
    last = xp.where(upright, 1, _clip(xp.where(dx > 0, ends[1], ends[0]), first, 1, xp))
    share = xp.where(upright, xp.where(abs(x) < a, 1.0, xp.where(abs(x) == a, 0.5, 0.0)), 1.0)

    # The integral is continuous in where y is clipped, which therefore needs no gradient.
    level = abs(dy) < _SMALLEST
    divisor = xp.where(level, 1, dy)
    ends = (-b - y) / divisor, (b - y) / divisor
    enters, leaves = constant(xp.minimum(*ends)), constant(xp.maximum(*ends))
    enters, leaves = (_clip(each, first, last, xp) for each in (enters, leaves))
    total: Any = 0
    for start, end in ((first, enters), (enters, leaves), (leaves, last)):
        middle = y + (start + end) / 2 * dy
        total = total + (end - start) * _clip(middle, -b, b, xp)
    return share * dx * total


def _clip(value: Any, low: Any, high: Any, xp: Any) -> Any:
    """Clips; at a limit, the gradient is divided between value and limit on all backends."""
    if xp is np:  # without a gradient, in half the time
        return np.minimum(np.maximum(value, low), high)
    value = xp.where(value == low, (value + low) / 2, xp.where(value < low, low, value))
    return xp.where(value == high, (value + high) / 2, xp.where(value > high, high, value))
