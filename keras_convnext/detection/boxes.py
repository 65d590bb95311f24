"""Boxes as (x1, y1, x2, y2) in pixels: areas, overlaps, clipping, and their deltas.

Coordinates are continuous: a box that covers the first pixel is (0, 0, 1, 1). All functions work
on the last axis and broadcast over the others.
"""

import math
from typing import Any

from keras import ops

# Of the logarithm of the ratio of two sides: open-mmlab/mmdetection, delta_xywh_bbox_coder.py.
LARGEST_RATIO = abs(math.log(16 / 1000))


def area(boxes: Any) -> Any:
    """Returns the areas of boxes (..., 4), of shape (...)."""
    x1, y1, x2, y2 = ops.unstack(boxes, 4, axis=-1)
    return (x2 - x1) * (y2 - y1)


def pairwise_iou(boxes: Any, others: Any) -> Any:
    """Returns the intersection over union of each box with each of the others.

    Args:
        boxes: tensor (..., A, 4).
        others: tensor (..., B, 4).

    Returns:
        Tensor (..., A, B). Two boxes without area have 0.
    """
    x1, y1, x2, y2 = (each[..., :, None] for each in ops.unstack(boxes, 4, axis=-1))
    u1, v1, u2, v2 = (each[..., None, :] for each in ops.unstack(others, 4, axis=-1))
    # Coordinate by coordinate: an innermost axis of two would take three times as long.
    width = ops.maximum(ops.minimum(x2, u2) - ops.maximum(x1, u1), 0)
    height = ops.maximum(ops.minimum(y2, v2) - ops.maximum(y1, v1), 0)
    intersection = width * height
    union = area(boxes)[..., :, None] + area(others)[..., None, :] - intersection
    return _ratio(intersection, union)


def iou(boxes: Any, others: Any) -> Any:
    """Returns the intersection over union of pairs of boxes (..., 4), of shape (...)."""
    intersection = _intersection(boxes, others)
    return _ratio(intersection, area(boxes) + area(others) - intersection)


def generalized_iou(boxes: Any, others: Any, epsilon: float = 1e-6) -> Any:
    """Returns the generalized intersection over union of pairs of boxes (..., 4), in -1..1.

    It subtracts the share of the smallest box around both that neither of them covers.

    References:
        Rezatofighi et al., "Generalized Intersection over Union", arXiv 1902.09630.
    """
    intersection = _intersection(boxes, others)
    union = ops.maximum(area(boxes) + area(others) - intersection, epsilon)
    around = ops.concatenate(
        [
            ops.minimum(boxes[..., :2], others[..., :2]),
            ops.maximum(boxes[..., 2:], others[..., 2:]),
        ],
        axis=-1,
    )
    enclosing = ops.maximum(area(around), epsilon)
    return intersection / union - (enclosing - union) / enclosing


def clipped(boxes: Any, sizes: Any) -> Any:
    """Clips boxes to images.

    Args:
        boxes: tensor (N, ..., 4).
        sizes: tensor (N, 2). Height and width of each image.

    Returns:
        Tensor (N, ..., 4).
    """
    limits = ops.cast(ops.flip(sizes, axis=-1), boxes.dtype)  # (N, 2): width and height
    limits = ops.concatenate([limits, limits], axis=-1)
    shape = (-1,) + (1,) * (len(boxes.shape) - 2) + (4,)
    return ops.minimum(ops.maximum(boxes, 0), ops.reshape(limits, shape))


def encoded(boxes: Any, references: Any, stds: tuple[float, ...] = (1, 1, 1, 1)) -> Any:
    """Returns the deltas that turn references, such as anchors or proposals, into boxes.

    The deltas are the shift of the center in sides of the reference, and the logarithms of the
    ratios of the sides, divided by `stds`: Girshick et al., arXiv 1311.2524, appendix C.

    Args:
        boxes: tensor (..., 4).
        references: tensor (..., 4).
        stds: four floats. Defaults to ones.

    Returns:
        Tensor (..., 4).
    """
    centers, sides = _centers_and_sides(boxes)
    from_centers, from_sides = _centers_and_sides(references)
    deltas = ops.concatenate(
        [(centers - from_centers) / from_sides, ops.log(sides / from_sides)], axis=-1
    )
    return deltas / ops.convert_to_tensor(stds, deltas.dtype)


def decoded(deltas: Any, references: Any, stds: tuple[float, ...] = (1, 1, 1, 1)) -> Any:
    """Returns the boxes of which `encoded` returns these deltas.

    Sides grow or shrink by a factor of 62.5 at most.
    """
    deltas = deltas * ops.convert_to_tensor(stds, deltas.dtype)
    from_centers, from_sides = _centers_and_sides(references)
    centers = from_centers + deltas[..., :2] * from_sides
    ratios = ops.clip(deltas[..., 2:], -LARGEST_RATIO, LARGEST_RATIO)
    halves = from_sides * ops.exp(ratios) / 2
    return ops.concatenate([centers - halves, centers + halves], axis=-1)


def _centers_and_sides(boxes: Any) -> tuple[Any, Any]:
    first, last = boxes[..., :2], boxes[..., 2:]
    return (first + last) / 2, last - first


def _intersection(boxes: Any, others: Any) -> Any:
    first = ops.maximum(boxes[..., :2], others[..., :2])
    last = ops.minimum(boxes[..., 2:], others[..., 2:])
    sides = ops.maximum(last - first, 0)
    return sides[..., 0] * sides[..., 1]


def _ratio(intersection: Any, union: Any) -> Any:
    """Divides, and returns 0 for two boxes without area."""
    return intersection / ops.where(union > 0, union, ops.ones_like(union))
