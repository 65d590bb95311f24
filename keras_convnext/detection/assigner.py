"""Which box each anchor or proposal is trained to find: open-mmlab/mmdetection, MaxIoUAssigner."""

from typing import Any, NamedTuple

from keras import ops

NEGATIVE, IGNORED = -1, -2


class Overlaps(NamedTuple):
    """Thresholds of the intersection over union.

    Args:
        positive: float. From which a candidate is positive.
        negative: float. Below which it is negative; between both it is ignored.
        rescue: float or None. The best candidates of each box are positive from this one on. None
            means that they need `positive` as others do.
    """

    positive: float
    negative: float
    rescue: float | None


def assigned(ious: Any, is_box: Any, is_candidate: Any, overlaps: Overlaps) -> Any:
    """Assigns candidates to boxes by intersection over union.

    Args:
        ious: tensor (N, M, K). Of M boxes with K candidates.
        is_box: bool tensor (N, M). False for padding.
        is_candidate: bool tensor (N, K). False for candidates that are not used.
        overlaps: Overlaps.

    Returns:
        int32 tensor (N, K). The index of the box, `NEGATIVE` or `IGNORED`.
    """
    used = ops.logical_and(is_box[:, :, None], is_candidate[:, None, :])
    ious = ops.where(used, ious, -1.0)  # (N, M, K)
    best = ops.max(ious, axis=1)  # (N, K)
    box = ops.cast(ops.argmax(ious, axis=1), "int32")
    found = ops.where(
        best >= overlaps.positive, box, ops.where(best < overlaps.negative, NEGATIVE, IGNORED)
    )
    if overlaps.rescue is not None:
        of_box = ops.max(ious, axis=2, keepdims=True)  # (N, M, 1)
        is_best = ops.logical_and(ious == of_box, of_box >= overlaps.rescue)
        indices = ops.arange(ops.shape(ious)[1], dtype="int32")[None, :, None]
        rescued = ops.max(ops.where(is_best, indices, -1), axis=1)  # of several, the last box
        found = ops.where(rescued >= 0, rescued, found)
    return ops.where(is_candidate, found, IGNORED)
