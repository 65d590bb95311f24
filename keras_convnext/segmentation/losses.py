"""What a segmenter minimizes."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from keras_convnext.segmentation.recipes import Loss
from keras_convnext.training.task import Metric, Objective

MEAN_IOU = Metric("mean_iou", percent=True)
NO_CLASS = -1  # target of pixels that have no class


class PixelCrossEntropy(keras.losses.Loss):
    """Cross-entropy of the pixels with a class, of the logits and of the auxiliary logits.

    Args:
        auxiliary_weight: float. Weight of the loss of each output after the first.
        average: str. "all" divides by the number of all pixels, "valid" by that of pixels with a
            class, in the batch of all devices.
        class_weights: array (classes,) or None. Weight of each class. Defaults to None, for 1.
    """

    def __init__(
        self, auxiliary_weight: float, average: str, class_weights: np.ndarray | None = None
    ) -> None:
        super().__init__(name="pixel_cross_entropy")
        self.auxiliary_weight = auxiliary_weight
        self.average = average
        self.class_weights = class_weights

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the loss of each image.

        Args:
            y_true: int32 tensor (N, H, W). Classes, or `NO_CLASS`.
            y_pred: tensor (N, H, W, classes), or a list of them. Logits.

        Returns:
            Tensor (N,).
        """
        outputs = y_pred if isinstance(y_pred, list | tuple) else [y_pred]
        y_true = ops.cast(y_true, "int32")  # Keras makes them floats
        has_class = ops.not_equal(y_true, NO_CLASS)
        classes = ops.where(has_class, y_true, 0)
        weights = ops.cast(has_class, outputs[0].dtype)  # (N, H, W)
        images = ops.shape(y_true)[0]
        pixels = ops.cast(ops.size(y_true), weights.dtype)
        divisor = pixels if self.average == "all" else _mean_over_devices(ops.sum(weights))
        if self.class_weights is not None:
            weights *= ops.take(ops.convert_to_tensor(self.class_weights, weights.dtype), classes)
        scale = ops.cast(images, weights.dtype) / ops.maximum(divisor, 1)
        losses = [
            ops.sum(
                weights * ops.sparse_categorical_crossentropy(classes, logits, from_logits=True),
                axis=(1, 2),
            )
            * scale
            for logits in outputs
        ]
        return losses[0] + sum(self.auxiliary_weight * loss for loss in losses[1:])


def _mean_over_devices(value: Any) -> Any:
    if not tf.distribute.has_strategy() or tf.distribute.in_cross_replica_context():
        return value
    context = tf.distribute.get_replica_context()
    return context.all_reduce(tf.distribute.ReduceOp.MEAN, value)


def balancing_weights(pixels: Sequence[int] | np.ndarray, exponent: float) -> np.ndarray | None:
    """Returns the weight of each class, whose mean over the pixels is 1; None for equal weights.

    Args:
        pixels: ints. Pixels of each class in the data. Classes without any have weight 1.
        exponent: float. Weights are proportional to `share ** -exponent`.
    """
    if not exponent:
        return None
    shares = np.asarray(pixels, np.float64) / np.sum(pixels)
    occurs = shares > 0
    weights = np.ones(len(shares))
    weights[occurs] = shares[occurs] ** -exponent
    weights[occurs] /= np.sum(shares[occurs] * weights[occurs])
    return weights


def objective(own: Loss, size: int, pixels: Sequence[int] | np.ndarray) -> Objective:
    """Returns the loss of a recipe.

    Args:
        own: Loss. The fields of the recipe.
        size: int. Side of the crops.
        pixels: ints. Pixels of each class in the data.
    """
    weights = balancing_weights(pixels, own.class_balance)
    loss = PixelCrossEntropy(own.auxiliary_weight, own.average, weights)
    return Objective(loss, [], tf.TensorSpec((size, size), tf.int32))
