"""Proposals: the regions that the region proposal network finds likely to contain an object."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from keras import ops

from keras_convnext.detection import boxes as box_ops
from keras_convnext.detection.anchors import pyramid_anchors
from keras_convnext.detection.nms import kept

IOU_THRESHOLD = 0.7


class Proposals(NamedTuple):
    """Regions, best first.

    Args:
        boxes: tensor (N, P, 4). 0 for padding.
        scores: tensor (N, P). Probability of an object; -1 for padding.
    """

    boxes: Any
    scores: Any


def proposed(
    objectness: Sequence[Any], deltas: Sequence[Any], sizes: Any, before: int, after: int
) -> Proposals:
    """Selects proposals: the best anchors of each level, decoded and clipped, without duplicates.

    Non-maximum suppression takes place within each level.

    Args:
        objectness: tensors (N, H, W, 3). Logits of the anchors of each level.
        deltas: tensors (N, H, W, 12). Deltas of these anchors.
        sizes: tensor (N, 2). Height and width of each image.
        before: int. Anchors of each level that are decoded.
        after: int. Proposals to return.

    Returns:
        `Proposals` of `after` regions.

    References:
        open-mmlab/mmdetection, mmdet/models/dense_heads/rpn_head.py.
    """
    objectness, deltas = ([ops.cast(x, "float32") for x in each] for each in (objectness, deltas))
    levels = [
        _of_level(*of_level, sizes, before)
        for of_level in zip(objectness, deltas, pyramid_anchors(objectness))
    ]
    samples = ops.shape(sizes)[0]
    # Padding, for fewer anchors or many duplicates.
    levels.append((ops.zeros((samples, after, 4)), ops.full((samples, after), -1.0)))
    boxes, scores = (ops.concatenate(each, axis=1) for each in zip(*levels))
    scores, best = ops.top_k(scores, after)
    boxes = ops.take_along_axis(boxes, best[..., None], axis=1)
    return Proposals(ops.where(scores[..., None] < 0, 0.0, boxes), scores)


def _of_level(
    objectness: Any, deltas: Any, anchors: Any, sizes: Any, before: int
) -> tuple[Any, Any]:
    samples, height, width, of_position = ops.shape(objectness)
    count = height * width * of_position
    most = min(before, count) if isinstance(count, int) else ops.minimum(before, count)
    scores, best = ops.top_k(ops.sigmoid(ops.reshape(objectness, (samples, count))), most)
    deltas = ops.reshape(deltas, (samples, count, 4))
    deltas = ops.take_along_axis(deltas, best[..., None], axis=1)
    boxes = box_ops.clipped(box_ops.decoded(deltas, ops.take(anchors, best, axis=0)), sizes)
    is_box = ops.all(boxes[..., 2:] > boxes[..., :2], axis=-1)
    is_kept = kept(boxes, is_box, IOU_THRESHOLD)
    return boxes, ops.where(is_kept, scores, -1.0)
