"""Non-maximum suppression, by the exact greedy rule, with static shapes.

A box is suppressed if its intersection over union with a better box that is kept is above the
threshold. Equal scores are taken in the order of the boxes.
"""

from typing import Any, NamedTuple

import keras
from keras import ops

from keras_convnext.detection import boxes as box_ops


def kept(boxes: Any, is_box: Any, threshold: float) -> Any:
    """Returns which boxes of a sorted list are kept.

    The greedy result is the only one in which a box is kept if and only if no kept better box
    suppresses it. Starting with all boxes, the rule is applied until nothing changes. Each step
    settles at least one more box, and usually most of them.

    Args:
        boxes: tensor (N, K, 4), best box first.
        is_box: bool tensor (N, K). False for padding.
        threshold: float. Of the intersection over union.

    Returns:
        bool tensor (N, K).
    """
    count = ops.shape(boxes)[1]
    rank = ops.arange(count)
    is_better = rank[:, None] < rank[None, :]  # (K, K): row before column
    suppresses = ops.logical_and(box_ops.pairwise_iou(boxes, boxes) > threshold, is_better)
    suppresses = ops.cast(suppresses, "float32")  # (N, K, K)
    start = ops.cast(is_box, "float32")[:, None]  # (N, 1, K)

    def unsettled(now: Any, before: Any) -> Any:
        return ops.any(now != before)

    def step(now: Any, before: Any) -> tuple[Any, Any]:
        suppressed = ops.matmul(now, suppresses) > 0
        return ops.where(suppressed, 0.0, start), now

    now, _ = ops.while_loop(unsettled, step, (start, start - 1))
    return now[:, 0] > 0


class Selected(NamedTuple):
    """The best boxes of all classes.

    Args:
        boxes: tensor (N, D, 4). 0 for padding.
        scores: tensor (N, D). 0 for padding.
        labels: int32 tensor (N, D). -1 for padding.
        count: int32 tensor (N,). How many there are.
    """

    boxes: Any
    scores: Any
    labels: Any
    count: Any


def best_of_classes(
    boxes: Any, scores: Any, score_threshold: float, iou_threshold: float, most: int
) -> Selected:
    """Suppresses within each class, and returns the best boxes of all classes.

    Args:
        boxes: tensor (N, R, C, 4). Box of each region for each class.
        scores: tensor (N, R, C), not negative. Of these boxes.
        score_threshold: float. A score must be above it.
        iou_threshold: float. Of the intersection over union.
        most: int. Boxes to return.

    Returns:
        `Selected`, best box first.
    """
    regions, classes = scores.shape[1:]
    scores = ops.where(scores > score_threshold, scores, -1.0)
    samples = ops.shape(scores)[0]
    slots = ops.arange(most, dtype="int32")[None]  # (1, D)

    def step(slot: Any, state: tuple[Any, ...]) -> tuple[Any, ...]:
        left, found_boxes, found_scores, labels = state
        flat = ops.reshape(left, (samples, regions * classes))
        score, best = ops.top_k(flat, 1)  # (N, 1)
        best = ops.cast(best[:, 0], "int32")  # (N,)
        region, label = best // classes, best % classes
        of_class = ops.take_along_axis(boxes, label[:, None, None, None], axis=2)[:, :, 0]
        box = ops.take_along_axis(of_class, region[:, None, None], axis=1)  # (N, 1, 4)
        # Itself too, even without area.
        gone = ops.logical_or(
            box_ops.iou(of_class, box) > iou_threshold,
            ops.arange(regions, dtype="int32")[None] == region[:, None],
        )  # (N, R)
        is_class = ops.arange(classes, dtype="int32")[None] == label[:, None]  # (N, C)
        left = ops.where(ops.logical_and(gone[:, :, None], is_class[:, None, :]), -1.0, left)
        here = ops.logical_and(slots == slot, score > 0)  # (N, D)
        return (
            left,
            ops.where(here[..., None], box, found_boxes),
            ops.where(here, score, found_scores),
            ops.where(here, label[:, None], labels),
        )

    state = (
        scores,
        ops.zeros((samples, most, 4), boxes.dtype),
        ops.zeros((samples, most), scores.dtype),
        ops.full((samples, most), -1, "int32"),
    )
    if keras.config.backend() == "tensorflow":
        # A Python number would be a new graph for each value when executed eagerly.
        state = ops.fori_loop(ops.convert_to_tensor(0, "int32"), most, step, state)
    else:
        state = ops.fori_loop(0, most, step, state)
    _, found_boxes, found_scores, labels = state
    return Selected(
        found_boxes, found_scores, labels, ops.sum(ops.cast(labels >= 0, "int32"), axis=1)
    )
