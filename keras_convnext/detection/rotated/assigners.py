"""Which rotated box each anchor is trained to find.

N is the number of images, M of boxes (padded), A of anchors. The results are as from
`detection.assigner.assigned`: the index of the box, `NEGATIVE` or `IGNORED`.
"""

from collections.abc import Sequence
from typing import Any

from keras import ops

from keras_convnext.detection.assigner import IGNORED, NEGATIVE, Overlaps, assigned
from keras_convnext.detection.rotated.iou import rotated_iou

NEAREST = 9  # anchors of each level that are candidates
_MARGIN = 0.01  # px by which the center of an anchor must be inside the box

# Xuyihaoby/rotate_detection and open-mmlab/mmrotate, configs of rotated RetinaNet. Both rescue the
# best anchors of each box from an overlap of 0 on; without any overlap, we rescue none.
OVERLAPS = Overlaps(positive=0.5, negative=0.4, rescue=1e-6)


def assigned_by_iou(boxes: Any, is_box: Any, anchors: Any, is_anchor: Any) -> Any:
    """Assigns anchors to boxes by intersection over union.

    Args:
        boxes: tensor (N, M, 5).
        is_box: bool tensor (N, M). False for padding.
        anchors: tensor (A, 5).
        is_anchor: bool tensor (N, A). False for anchors that are not used.

    Returns:
        int32 tensor (N, A).
    """
    # Box by box: intermediate results of all at once would not fit into memory.
    ious = ops.map(
        lambda own: rotated_iou(anchors[None], own[:, None]), ops.transpose(boxes, (1, 0, 2))
    )  # (M, N, A)
    return assigned(ops.transpose(ious, (1, 0, 2)), is_box, is_anchor, OVERLAPS)


def assigned_adaptively(boxes: Any, is_box: Any, levels: Sequence[Any], is_anchor: Any) -> Any:
    """Assigns anchors to boxes by adaptive training sample selection (ATSS).

    Candidates are the anchors of each level that are nearest to the center of the box. Of these,
    those are positive whose overlap with the box is at least the mean plus the standard deviation
    of the overlaps of all candidates, and whose center is inside the box. An anchor that is
    positive for several boxes gets the one with the highest overlap.

    Args:
        boxes: tensor (N, M, 5).
        is_box: bool tensor (N, M). False for padding.
        levels: tensors (A, 5). The anchors of each level of the pyramid.
        is_anchor: bool tensor (N, A). False for anchors that are not used.

    Returns:
        int32 tensor (N, A), of the anchors of all levels.

    References:
        Zhang et al., "Bridging the Gap Between Anchor-based and Anchor-free Detection", arXiv
        1912.02424, algorithm 1.
        open-mmlab/mmrotate, RotatedATSSAssigner.
    """
    candidates, first = [], 0
    for anchors in levels:
        count = ops.shape(anchors)[0]
        is_known = isinstance(count, int)
        nearest = min(NEAREST, count) if is_known else ops.minimum(NEAREST, count)
        dx = boxes[..., None, 0] - anchors[:, 0]
        dy = boxes[..., None, 1] - anchors[:, 1]
        _, own = ops.top_k(-(dx * dx + dy * dy), nearest)
        candidates.append(ops.cast(own, "int32") + first)
        first += count
    index = ops.concatenate(candidates, axis=-1)  # (N, M, K)
    every = ops.concatenate(levels, axis=0)  # (A, 5)
    samples, most, _ = ops.shape(index)
    chosen = ops.take(every, index, axis=0)  # (N, M, K, 5)
    ious = rotated_iou(chosen, boxes[:, :, None])
    mean = ops.mean(ious, axis=-1, keepdims=True)
    count = ops.cast(ops.shape(index)[-1], ious.dtype)
    deviation = ops.sqrt(
        ops.sum(ops.square(ious - mean), axis=-1, keepdims=True) / ops.maximum(count - 1, 1)
    )
    is_positive = ops.logical_and(ious >= mean + deviation, _is_inside(chosen, boxes[:, :, None]))
    is_positive = ops.logical_and(is_positive, is_box[..., None])

    # Of each anchor, the highest overlap, and then the first box that has it. An offset tells
    # candidates from anchors without any, for which backends differ.
    total = samples * first
    at = index + ops.arange(samples, dtype="int32")[:, None, None] * first
    at = ops.reshape(at, (-1,))
    marked = ops.reshape(ops.where(is_positive, 1.0 + ious, 0.0), (-1,))
    best = ops.segment_max(marked, at, num_segments=total)
    wins = ops.logical_and(marked >= 1, marked == ops.take(best, at))
    rank = most - ops.arange(most, dtype="int32")  # (M,): positive, and largest for the first box
    rank = ops.reshape(ops.broadcast_to(rank[None, :, None], ops.shape(index)), (-1,))
    highest = ops.segment_max(ops.where(wins, rank, 0), at, num_segments=total)
    found = ops.where(highest > 0, most - highest, NEGATIVE)
    found = ops.reshape(found, (samples, first))
    return ops.where(is_anchor, found, IGNORED)


def _is_inside(anchors: Any, boxes: Any) -> Any:
    x, y = anchors[..., 0] - boxes[..., 0], anchors[..., 1] - boxes[..., 1]
    cos, sin = ops.cos(boxes[..., 4]), ops.sin(boxes[..., 4])
    along, across = ops.abs(cos * x + sin * y), ops.abs(cos * y - sin * x)
    return ops.logical_and(
        along <= boxes[..., 2] / 2 - _MARGIN, across <= boxes[..., 3] / 2 - _MARGIN
    )
