"""The losses of detectors, each the sum over a batch divided as in mmdetection.

References:
    open-mmlab/mmdetection, mmdet/models/dense_heads/rpn_head.py, roi_heads/bbox_heads/bbox_head.py
    and roi_heads/mask_heads/fcn_mask_head.py.
"""

from typing import Any

from keras import ops

from keras_convnext.detection import boxes as box_ops
from keras_convnext.detection.sampler import Samples

GIOU_WEIGHT = 10.0


def proposal_losses(
    logits: Any, deltas: Any, anchors: Any, boxes: Any, samples: Samples, beta: float
) -> tuple[Any, Any]:
    """Returns the losses of the proposal head: binary cross-entropy, and L1 of the deltas.

    Args:
        logits: tensor (N, A). Of all anchors.
        deltas: tensor (N, A, 4).
        anchors: tensor (A, 4).
        boxes: tensor (N, M, 4). The objects.
        samples: Samples. Of the anchors.
        beta: float. Below which L1 is quadratic; 0 for never.

    Returns:
        Pair of scalars.
    """
    logits = ops.take_along_axis(logits, samples.indices, axis=1)  # (N, S)
    deltas = ops.take_along_axis(deltas, samples.indices[..., None], axis=1)  # (N, S, 4)
    anchors = ops.take(anchors, samples.indices, axis=0)
    own = ops.take_along_axis(boxes, samples.boxes[..., None], axis=1)
    targets = box_ops.encoded(own, anchors)
    targets = ops.where(samples.is_positive[..., None], targets, 0.0)
    is_positive = ops.cast(samples.is_positive, logits.dtype)
    is_sample = ops.cast(samples.is_sample, logits.dtype)
    # An image without either counts as one, as in mmdetection.
    positives = ops.maximum(ops.sum(is_positive, axis=1), 1)
    negatives = ops.maximum(ops.sum(is_sample - is_positive, axis=1), 1)
    count = ops.sum(positives + negatives)
    of_class = binary_cross_entropy(logits, is_positive) * is_sample
    of_box = smooth_l1(deltas - targets, beta) * is_positive[..., None]
    return ops.sum(of_class) / count, ops.sum(of_box) / count


def box_losses(
    logits: Any,
    deltas: Any,
    regions: Any,
    boxes: Any,
    labels: Any,
    samples: Samples,
    stds: tuple[float, ...],
    generalized: bool,
) -> tuple[Any, Any]:
    """Returns the losses of a box head: cross-entropy, and L1 of deltas or generalized IoU.

    Args:
        logits: tensor (N, S, classes + 1). Of the sampled regions.
        deltas: tensor (N, S, classes, 4).
        regions: tensor (N, S, 4).
        boxes: tensor (N, S, 4). The object of each region, if it is positive.
        labels: int tensor (N, S). Its class, or `classes` for the background.
        samples: Samples.
        stds: four floats. Of the deltas.
        generalized: bool. Whether boxes are compared by generalized IoU.

    Returns:
        Pair of scalars.
    """
    is_positive = ops.cast(samples.is_positive, logits.dtype)
    is_sample = ops.cast(samples.is_sample, logits.dtype)
    count = ops.maximum(ops.sum(is_sample), 1)
    likelihood = ops.take_along_axis(ops.log_softmax(logits), labels[..., None], axis=-1)[..., 0]
    of_class = -ops.sum(likelihood * is_sample) / count
    label = ops.minimum(labels, deltas.shape[2] - 1)[..., None, None]
    deltas = ops.take_along_axis(deltas, label, axis=2)[:, :, 0]  # (N, S, 4)
    if generalized:
        found = box_ops.decoded(deltas, regions, stds)
        error = GIOU_WEIGHT * (1 - box_ops.generalized_iou(found, boxes))
    else:
        targets = box_ops.encoded(boxes, regions, stds)
        targets = ops.where(samples.is_positive[..., None], targets, 0.0)
        error = ops.sum(ops.abs(deltas - targets), axis=-1)
    return of_class, ops.sum(error * is_positive) / count


def mask_loss(logits: Any, targets: Any, labels: Any, is_positive: Any) -> Any:
    """Returns the binary cross-entropy of the masks of the positive regions.

    Args:
        logits: tensor (N, P, 28, 28, classes).
        targets: tensor (N, P, 28, 28). 0 or 1.
        labels: int tensor (N, P).
        is_positive: bool tensor (N, P).

    Returns:
        Scalar, the mean over pixels and positive regions.
    """
    label = ops.clip(labels, 0, logits.shape[-1] - 1)[..., None, None, None]
    own = ops.take_along_axis(logits, label, axis=-1)[..., 0]  # (N, P, 28, 28)
    error = ops.mean(binary_cross_entropy(own, targets), axis=(2, 3))  # (N, P)
    is_positive = ops.cast(is_positive, error.dtype)
    return ops.sum(error * is_positive) / ops.maximum(ops.sum(is_positive), 1)


def binary_cross_entropy(logits: Any, targets: Any) -> Any:
    """Returns the binary cross-entropy of each logit."""
    return ops.softplus(logits) - logits * targets


def smooth_l1(difference: Any, beta: float) -> Any:
    """Returns the absolute values, or below `beta` a parabola: arXiv 1504.08083, equation 3."""
    size = ops.abs(difference)
    if not beta:
        return size
    return ops.where(size < beta, ops.square(size) / (2 * beta), size - beta / 2)
