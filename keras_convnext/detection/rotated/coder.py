"""Deltas between horizontal anchors and rotated boxes, by the convention of the angle.

References:
    open-mmlab/mmrotate, DeltaXYWHAOBBoxCoder, and its copy in Xuyihaoby/rotate_detection.
"""

import math
from typing import Any, NamedTuple

from keras import ops

LARGEST_RATIO = abs(math.log(16 / 1000))  # of the logarithm of the ratio of two sides


class Coder(NamedTuple):
    """How the deltas of a convention are defined.

    Args:
        start: float or None. Angles are brought to this and half a turn more; None for OpenCV's,
            which are left as they are.
        unit: float. Radians of a delta of 1.
        swaps: bool. Whether the sides are exchanged to have a smaller delta of the angle; decoded
            boxes are then described with the longer side as w.
        clips: bool. Whether the centers of predicted boxes are clipped to the image.
    """

    start: float | None
    unit: float
    swaps: bool
    clips: bool


# The first as in Xuyihaoby/rotate_detection ("v2") and mmrotate, the others as in mmrotate.
CODERS = {
    "le135": Coder(-math.pi / 4, math.pi, swaps=False, clips=False),
    "le90": Coder(-math.pi / 2, 1.0, swaps=True, clips=True),
    "oc": Coder(None, 1.0, swaps=False, clips=True),
}


def encoded(boxes: Any, anchors: Any, coder: Coder) -> Any:
    """Returns the deltas that turn anchors into boxes.

    The deltas are the shift of the center in sides of the anchor and in its direction, the
    logarithms of the ratios of the sides, and the angle between both in units of the coder.

    Args:
        boxes: tensor (..., 5). In the convention of the coder.
        anchors: tensor (..., 5).
        coder: Coder.

    Returns:
        Tensor (..., 5).
    """
    x, y, w, h, angle = ops.unstack(boxes, 5, axis=-1)
    from_x, from_y, from_w, from_h, from_angle = ops.unstack(anchors, 5, axis=-1)
    cos, sin = ops.cos(from_angle), ops.sin(from_angle)
    dx = (cos * (x - from_x) + sin * (y - from_y)) / from_w
    dy = (cos * (y - from_y) - sin * (x - from_x)) / from_h
    turn = _in_range(angle - from_angle, coder)
    if coder.swaps:
        other = _in_range(angle - from_angle + math.pi / 2, coder)
        stays = ops.abs(turn) < ops.abs(other)
        w, h = ops.where(stays, w, h), ops.where(stays, h, w)
        turn = ops.where(stays, turn, other)
    deltas = [dx, dy, ops.log(w / from_w), ops.log(h / from_h), turn / coder.unit]
    return ops.stack(deltas, axis=-1)


def decoded(deltas: Any, anchors: Any, coder: Coder) -> Any:
    """Returns the boxes of which `encoded` returns these deltas.

    Sides grow or shrink by a factor of 62.5 at most. Without `swaps`, h may be longer than w.
    """
    dx, dy, dw, dh, turn = ops.unstack(deltas, 5, axis=-1)
    from_x, from_y, from_w, from_h, from_angle = ops.unstack(anchors, 5, axis=-1)
    cos, sin = ops.cos(from_angle), ops.sin(from_angle)
    x = from_x + cos * dx * from_w - sin * dy * from_h
    y = from_y + sin * dx * from_w + cos * dy * from_h
    w = from_w * ops.exp(ops.clip(dw, -LARGEST_RATIO, LARGEST_RATIO))
    h = from_h * ops.exp(ops.clip(dh, -LARGEST_RATIO, LARGEST_RATIO))
    angle = _in_range(from_angle + coder.unit * turn, coder)
    if coder.swaps:
        is_long = w > h
        w, h = ops.where(is_long, w, h), ops.where(is_long, h, w)
        angle = ops.where(is_long, angle, _in_range(angle + math.pi / 2, coder))
    return ops.stack([x, y, w, h, angle], axis=-1)


def _in_range(angle: Any, coder: Coder) -> Any:
    if coder.start is None:
        return angle
    return angle - ops.stop_gradient(ops.floor((angle - coder.start) / math.pi)) * math.pi
