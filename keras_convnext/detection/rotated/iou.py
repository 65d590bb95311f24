"""The intersection over union of rotated boxes, on tensors."""

from typing import Any

import keras
from keras import ops

from keras_convnext.detection.rotated.intersection import iou_of


def rotated_iou(boxes: Any, others: Any, *, one_sided: bool = False) -> Any:
    """Returns the intersection over union of pairs of rotated boxes.

    Computed in float32 under any precision policy, or in float64 for boxes in float64.

    Example:

    ```python
    rotated_iou([[50.0, 50, 40, 20, 0]], [[50.0, 50, 40, 20, 1.5708]])  # [0.3333]
    ```

    Args:
        boxes: tensor (..., 5). cx, cy, w, h in pixels, and the angle in radians.
        others: tensor (..., 5). Broadcast with `boxes`.
        one_sided: bool. For equal boxes, whether the gradient of the angle is -(w² + h²) / 2 times
            that of the intersection, as in the implementation of lilanxiao/Rotated_IoU and mmcv,
            instead of 0. Defaults to False.

    Returns:
        Tensor (...), in 0..1. Always finite; two boxes without area have 0.
    """
    boxes, others = (_at_least_float32(each) for each in (boxes, others))
    return iou_of(boxes, others, ops, ops.stop_gradient, one_sided)


def pairwise_rotated_iou(boxes: Any, others: Any) -> Any:
    """Returns the intersection over union of each rotated box with each of the others.

    Args:
        boxes: tensor (..., A, 5).
        others: tensor (..., B, 5).

    Returns:
        Tensor (..., A, B), as from `rotated_iou`.
    """
    boxes, others = (_at_least_float32(each) for each in (boxes, others))
    return rotated_iou(boxes[..., :, None, :], others[..., None, :, :])


def _at_least_float32(boxes: Any) -> Any:
    is_double = keras.backend.standardize_dtype(getattr(boxes, "dtype", "float32")) == "float64"
    return ops.cast(boxes, "float64" if is_double else "float32")
