"""A model for `fit` on several devices and machines."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import tensorflow as tf

from keras_convnext.training.statistics import AveragedStatistics

Batch = tuple[tf.Tensor, ...]  # images, labels and weights


class FittedModel(keras.Model):
    """A model whose `fit` and `evaluate` also work under MultiWorkerMirroredStrategy.

    `keras.Model` fails there (keras issue 20585) in two places, which this class avoids: it builds
    variables from an average of the workers' first batches, and it averages scalars over the
    workers as if they were batches. Call `build_for` after `compile`.

    With `keras.Model`, all devices of a strategy draw the same random numbers. Call
    `separate_devices` before `fit` to prevent that.
    """

    combine: Callable[[tf.Tensor, Any, Any], tf.Tensor] | None = None
    statistics: AveragedStatistics | None = None

    def build_for(self, specs: tuple[tf.TensorSpec, ...]) -> None:
        """Creates the variables of loss, metrics and optimizer.

        Args:
            specs: tuple of tf.TensorSpec. The specs of a batch, as passed to `fit`.
        """
        with self.distribute_strategy.scope():
            self._symbolic_build(data_batch=specs)

    def separate_devices(self) -> None:
        """Gives each device its own random numbers, such as those of dropout and drop path.

        The seed generators of the first device stay as they are, and determine those of the other
        devices. Call this when they are equal on all devices: after creation, or after a state has
        been restored, which contains those of the first device.
        """
        strategy = self.distribute_strategy
        devices = strategy.num_replicas_in_sync
        generators = [each for layer in self._flatten_layers() for each in layer._seed_generators]

        def separate() -> None:
            if device := int(tf.distribute.get_replica_context().replica_id_in_sync_group):
                for generator in generators:
                    seed, draws = tf.unstack(generator.state.value)
                    seeds = tf.random.experimental.stateless_split([seed, 0], devices)
                    generator.state.assign([seeds[device, 0], draws])

        if devices > 1:
            strategy.run(separate)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> tf.Tensor:
        """Returns the loss, in training with what `Objective.combine` adds."""
        if len(self.outputs) > 1:  # Keras would apply it to each output
            loss = self.loss(y, y_pred, sample_weight) + sum(self.losses)
        else:
            loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        return self.combine(loss, x, y_pred) if self.combine and training else loss

    def train_step(self, data: Batch) -> dict[str, tf.Tensor]:
        """Runs one training step and returns the metrics."""
        metrics = super().train_step(data)
        if self.statistics:
            self.statistics.update(self.optimizer)
        return self._as_batch(metrics)

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
