"""A model that `fit` can train on several machines."""

from collections.abc import Iterator

import keras
import tensorflow as tf

Batch = tuple[tf.Tensor, ...]  # images, labels and weights


class FittedModel(keras.Model):
    """A model whose `fit` and `evaluate` work under MultiWorkerMirroredStrategy too.

    Keras' own fail there (keras issue 20585) in two places, and both are left out here: it builds
    what is not built by an average of the workers' first batches, and averages scalars over the
    workers as if they were batches. So call `build_for` after `compile`.
    """

    def build_for(self, specs: tuple[tf.TensorSpec, ...]) -> None:
        """Makes the variables of loss, metrics and optimizer.

        Args:
            specs: tuple of tf.TensorSpec. Of a batch, as `fit` gets it.
        """
        with self.distribute_strategy.scope():
            self._symbolic_build(data_batch=specs)

    def train_step(self, data: Batch) -> dict[str, tf.Tensor]:
        """Makes one step and returns the metrics."""
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
        """Leaves out what `build_for` has done."""
