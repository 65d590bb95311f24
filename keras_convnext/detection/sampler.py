"""The share of candidates that a step trains on: open-mmlab/mmdetection, RandomSampler."""

from typing import Any, NamedTuple

from keras import ops

from keras_convnext.detection.assigner import NEGATIVE


class Samples(NamedTuple):
    """Sampled candidates, positive ones first.

    Args:
        indices: int32 tensor (N, S). Of the candidates; arbitrary for padding.
        boxes: int32 tensor (N, S). Index of the box of each positive; 0 for others.
        is_positive: bool tensor (N, S).
        is_sample: bool tensor (N, S). False for padding.
    """

    indices: Any
    boxes: Any
    is_positive: Any
    is_sample: Any


def sampled(assigned: Any, draws: Any, count: int, positive_share: float) -> Samples:
    """Samples candidates at random: positives up to a share, and negatives for the rest.

    Args:
        assigned: int32 tensor (N, K). From `assigned`.
        draws: float tensor (N, K). Independent and uniform in [0, 1). Of the positives, and of the
            negatives, those with the largest draws are taken.
        count: int. Candidates to sample.
        positive_share: float. The largest share of positives.

    Returns:
        `Samples` of `count`.
    """
    positive, order_of_positives = _drawn(assigned >= 0, draws, int(count * positive_share))
    negative, order_of_negatives = _drawn(assigned == NEGATIVE, draws, count)
    positives = ops.minimum(positive, int(count * positive_share))  # (N, 1)
    negatives = ops.minimum(negative, count - positives)
    slot = ops.arange(count, dtype="int32")[None]  # (1, S)
    is_positive = slot < positives
    is_sample = slot < positives + negatives
    of_positive = _at(order_of_positives, ops.broadcast_to(slot, ops.shape(is_positive)))
    of_negative = _at(order_of_negatives, slot - positives)
    indices = ops.where(is_positive, of_positive, of_negative)
    boxes = ops.maximum(ops.take_along_axis(assigned, indices, axis=1), 0)
    return Samples(indices, ops.where(is_positive, boxes, 0), is_positive, is_sample)


def _drawn(chosen: Any, draws: Any, most: int) -> tuple[Any, Any]:
    """Returns how many are chosen, (N, 1), and the indices of the first of them, (N, most)."""
    count = ops.sum(ops.cast(chosen, "int32"), axis=1, keepdims=True)
    available = ops.shape(chosen)[1]  # a tensor in a graph of TensorFlow
    most = min(most, available) if isinstance(available, int) else ops.minimum(most, available)
    _, order = ops.top_k(ops.where(chosen, draws, -1.0), most)
    return count, ops.cast(order, "int32")


def _at(order: Any, positions: Any) -> Any:
    last = ops.shape(order)[1] - 1
    return ops.take_along_axis(order, ops.clip(positions, 0, last), axis=1)
