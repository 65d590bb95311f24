"""The losses of rotated RetinaNets, of each anchor."""

from typing import Any

from keras import ops

from keras_convnext.detection.losses import binary_cross_entropy

ALPHA, GAMMA = 0.25, 2.0
SMALLEST_IOU = 1e-6  # below which there is no gradient
BOX_LOSSES = ("iou_log", "iou_linear", "iou_square", "kld", "l1")


def focal_loss(logits: Any, targets: Any) -> Any:
    """Returns the focal loss of each logit.

    Args:
        logits: tensor (...).
        targets: tensor (...). 0 or 1.

    References:
        Lin et al., "Focal Loss for Dense Object Detection", arXiv 1708.02002, equation 5.
    """
    probability = ops.sigmoid(logits)
    missing = targets * (1 - probability) + (1 - targets) * probability
    weight = targets * ALPHA + (1 - targets) * (1 - ALPHA)
    return weight * missing**GAMMA * binary_cross_entropy(logits, targets)


def iou_loss(iou: Any, kind: str = "log") -> Any:
    """Returns the loss of intersections over union.

    Args:
        iou: tensor (...). Of at least 1e-6: smaller values, as of boxes that are apart, have no
            gradient.
        kind: str. "log" for -ln(IoU), "linear" for 1 - IoU, or "square" for 1 - IoU². Defaults to
            "log".

    Returns:
        Tensor (...).

    References:
        open-mmlab/mmrotate, mmrotate/models/losses/rotated_iou_loss.py.
    """
    iou = ops.maximum(iou, SMALLEST_IOU)
    if kind == "log":
        return -ops.log(iou)
    return 1 - (iou if kind == "linear" else ops.square(iou))


def kld_loss(boxes: Any, targets: Any) -> Any:
    """Returns a loss in 0..1 of the Kullback-Leibler divergence of Gaussians in place of boxes.

    A box stands for the Gaussian with its center as the mean, and half of its sides as the standard
    deviations. Unlike the intersection, it has a gradient for boxes that are apart.

    Args:
        boxes: tensor (..., 5).
        targets: tensor (..., 5).

    Returns:
        Tensor (...): 1 - 1 / (1 + ln(1 + D)), for the divergence D of the target from the box.

    References:
        Yang et al., "Learning High-Precision Bounding Box for Rotated Object Detection via
        Kullback-Leibler Divergence", arXiv 2106.01883, equations 9 and 12.
        open-mmlab/mmrotate, mmrotate/models/losses/gaussian_dist_loss.py.
    """
    x, y, w, h, angle = ops.unstack(boxes, 5, axis=-1)
    to_x, to_y, to_w, to_h, to_angle = ops.unstack(targets, 5, axis=-1)
    w, h, to_w, to_h = (ops.clip(side, 1e-7, 1e7) for side in (w, h, to_w, to_h))
    cos, sin = ops.cos(angle), ops.sin(angle)
    x, y = to_x - x, to_y - y
    along, across = (cos * x + sin * y) / w, (cos * y - sin * x) / h
    cos, sin = ops.cos(to_angle - angle), ops.sin(to_angle - angle)
    shape = (
        ops.square(to_w / w * cos) + ops.square(to_h / w * sin)
        + ops.square(to_w / h * sin) + ops.square(to_h / h * cos)
    )  # fmt: skip
    divergence = 2 * (along * along + across * across) + shape / 2 - 1
    divergence = divergence + ops.log(w / to_w) + ops.log(h / to_h)
    # Rounding can make it slightly negative.
    return 1 - 1 / (1 + ops.log1p(ops.maximum(divergence, 0)))
