"""A model for `fit` on several machines."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

Batch = tuple[tf.Tensor, ...]  # images, labels and weights


class FittedModel(keras.Model):
    """A model whose `fit` and `evaluate` also work under MultiWorkerMirroredStrategy.

    `keras.Model` fails there (keras issue 20585) in two places, which this class avoids: it builds
    variables from an average of the workers' first batches, and it averages scalars over the
    workers as if they were batches. Call `build_for` after `compile`.
    """

    combine: Callable[[tf.Tensor, Any, Any], tf.Tensor] | None = None

    def build_for(self, specs: tuple[tf.TensorSpec, ...]) -> None:
        """Creates the variables of loss, metrics and optimizer.

        Args:
            specs: tuple of tf.TensorSpec. The specs of a batch, as passed to `fit`.
        """
        with self.distribute_strategy.scope():
            self._symbolic_build(data_batch=specs)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> tf.Tensor:
        """Returns the loss, in training with what `Objective.combine` adds."""
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        return self.combine(loss, x, y_pred) if self.combine and training else loss

    def train_step(self, data: Batch) -> dict[str, tf.Tensor]:
        """Runs one training step and returns the metrics."""
        return self._as_batch(super().train_step(data))

    def test_step(self, data: Batch) -> dict[str, tf.Tensor]:
        """Evaluates one batch and returns the metrics."""
        return self._as_batch(super().test_step(data))

    def _as_batch(self, metrics: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        if isinstance(self.distribute_strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return {name: tf.reshape(value, (1,)) for name, value in metrics.items()}
        return metrics

    def _maybe_symbolic_build(
        self, iterator: Iterator[Batch] | None = None, data_batch: Batch | None = None
    ) -> None:
        """Does nothing, because `build_for` has built everything."""
