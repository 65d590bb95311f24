"""Averages weights that are not trained, such as the statistics of batch normalization."""

from typing import Any

import keras
import tensorflow as tf


class AveragedStatistics:
    """The moving averages of the weights of a model that are not trained.

    The optimizer averages the trained weights. These are averaged with the same decay, once per
    update, as timm's `ModelEma` averages everything in the state of a network.

    Args:
        model: keras.Model. Compiled, in the scope of its strategy.
        decay: float. Decay of the averages.
        accumulated: int. Batches per update.
    """

    def __init__(self, model: keras.Model, decay: float, accumulated: int) -> None:
        self.weights: list[keras.Variable] = model.non_trainable_weights
        self.averages = [
            keras.Variable(
                keras.ops.convert_to_numpy(weight),  # a variable would be shared, not copied
                trainable=False,
                aggregation="mean",
                name=weight.name,
            )
            for weight in self.weights
        ]
        self._amount = 1 - decay
        self._accumulated = accumulated

    def update(self, optimizer: Any) -> None:
        """Moves the averages if the last batch has completed an update."""
        batches = getattr(optimizer, "inner_optimizer", optimizer)._iterations
        is_last = tf.equal(batches.value % self._accumulated, 0)
        amount = tf.where(is_last, self._amount, 0.0)  # no branch: devices exchange values here
        for weight, average in zip(self.weights, self.averages):
            average.assign_add((weight - average) * tf.cast(amount, average.dtype))
