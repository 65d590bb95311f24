"""The losses that a detector computes in its training network, as the engine takes them."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from keras_convnext.training.task import Objective


class TotalLoss(keras.losses.Loss):
    """The sum of the losses that the network computes.

    Args:
        count: int. The number of losses; the other outputs of the network are measured only.
    """

    def __init__(self, count: int) -> None:
        super().__init__(name="total_loss")
        self.count = count

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Returns the sum of the losses (N,) in outputs (N, losses and measured values)."""
        return ops.sum(y_pred[:, : self.count], axis=-1)


def objective(losses: Sequence[str], measured: Sequence[str] = ()) -> Objective:
    """Returns the sum of the losses to minimize, and each output of the network as a metric.

    Args:
        losses: sequence of str. Names of the losses, the first outputs of the network.
        measured: sequence of str. Names of the other outputs. Defaults to none.
    """

    def part(index: int) -> Callable[[Any, Any], Any]:
        return lambda true, outputs: outputs[:, index]

    names = [*(f"{name}_loss" for name in losses), *measured]
    metrics = [
        keras.metrics.MeanMetricWrapper(part(index), name=name) for index, name in enumerate(names)
    ]
    return Objective(TotalLoss(len(losses)), metrics, tf.TensorSpec(()))
