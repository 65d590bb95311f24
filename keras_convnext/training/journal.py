"""Evaluation, logs, checkpoints and interruption of a run, as a callback of `fit`."""

import csv
import io
import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_convnext.printable import PrintableMessage
from keras_convnext.training.fitted import FittedModel
from keras_convnext.training.layout import Layout
from keras_convnext.training.length import Length
from keras_convnext.training.recipe import Recipe
from keras_convnext.training.state import Progress, save_state, state_of, write_whole
from keras_convnext.training.task import Metric

RAW, EMA = "", "ema_"  # prefixes of the metrics of the weights and of their moving average


class Interrupted(PrintableMessage):
    """The run was stopped by a signal, has saved its state, and can be resumed.

    Args:
        message: str. The message.
        signal: signal.Signals. The signal that stopped it.
    """

    def __init__(self, message: str, signal: signal.Signals) -> None:
        super().__init__(message)
        self.signal = signal


class NonFiniteLossError(PrintableMessage, ArithmeticError):
    """The loss is NaN or infinite."""


class Journal(keras.callbacks.Callback):
    """Writes the log, the checkpoints and the best weights of a run.

    Args:
        output: path. The folder of the run.
        recipe: Recipe. The recipe.
        layout: Layout. How the batch is distributed.
        length: Length. The length of the run in updates.
        progress: Progress. The progress of the run, updated in place.
        metric: Metric. What the best weights are selected by.
        evaluate: function or None. Measures the model's current weights; None does not validate.
        keep: function. Takes a path and saves the model's current weights there.
    """

    def __init__(
        self,
        output: Path,
        recipe: Recipe,
        layout: Layout,
        length: Length,
        progress: Progress,
        metric: Metric,
        evaluate: Callable[[], Mapping[str, float]] | None,
        keep: Callable[[Path], None],
    ) -> None:
        super().__init__()
        self.output = output
        self.recipe = recipe
        self.layout = layout
        self.length = length
        self.progress = progress
        self.metric = metric
        self.evaluate = evaluate
        self.keep = keep
        self.signal: signal.Signals | None = None
        self._batches = 0
        self._measured: list[np.ndarray] = []

    def resume_metrics(self) -> None:
        """Makes the metrics continue from their current values, which `fit` would reset."""
        self._measured = [keras.ops.convert_to_numpy(v) for v in self._metric_variables()]

    def _metric_variables(self) -> list[keras.Variable]:
        return [variable for metric in self.model.metrics for variable in metric.variables]

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Restores the metrics of an epoch that was interrupted."""
        for variable, value in zip(self._metric_variables(), self._measured):
            variable.assign(value)
        self._measured = []
        self._began = time.perf_counter(), self.progress.updates

    def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:
        """Counts updates, checks the loss, saves checkpoints, and handles signals."""
        loss = logs.get("loss", 0.0)
        if not math.isfinite(loss):
            raise NonFiniteLossError(self._on_non_finite_loss(loss))
        self._batches += 1
        if self._batches % self.layout.accumulated:
            return
        self.progress.updates += 1
        within = self._within()
        often = self.recipe.schedule.save_updates
        if self._is_asked_to_stop():
            self.model.stop_training = True
            if within:
                self.save()
        elif within and often and within % often == 0:
            self.save()

    def _within(self) -> int:
        """Number of updates since the last evaluation; 0 if one is due."""
        if self.progress.updates == self.length.updates:
            return 0
        return self.progress.updates % self.length.evaluation

    def _on_non_finite_loss(self, loss: float) -> str:
        return (
            f"The loss is {loss} after update {self.progress.updates:,}. The last good state is "
            f"in {self.output / 'checkpoints'}, but resuming from it gives the same loss. Start "
            "again in a new folder with a lower learning_rate, clip_norm=1 or precision=float32. "
            f"Received: learning_rate={self.recipe.optimizer.learning_rate}, clip_norm="
            f"{self.recipe.optimizer.clip_norm}, precision={self.recipe.batch.precision}"
        )

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Evaluates, logs and saves, unless the epoch was interrupted."""
        if self._within():
            return
        began, updates_then = self._began
        examples = (self.progress.updates - updates_then) * self.recipe.batch.batch_size
        speed = examples / (time.perf_counter() - began)
        row = {
            **self._position(),
            **_rounded({"learning_rate": self.model.optimizer.learning_rate}),
        }
        measured = self.model.get_metrics_result()
        logged = ("loss", self.metric.name, *self.metric.logged)
        row |= _rounded({name: measured[name] for name in logged if name in measured})
        row |= self._validated(RAW)
        if self.recipe.optimizer.ema_decay is not None:
            with averaged_weights(self.model):
                row |= self._validated(EMA)
        self.progress.rows.append(row)
        logs.update(row, images_per_second=speed)
        self.save()

    def _position(self) -> dict[str, float]:
        epochs, rest = divmod(self.progress.updates, self.length.epoch)
        epoch = epochs + round(rest / self.length.epoch, 3) if rest else epochs
        return {"epoch": epoch, "update": self.progress.updates}

    def _is_asked_to_stop(self) -> bool:
        """Whether any machine has received a signal: all machines must stop together."""
        if self.layout.processes > 1:
            strategy = self.model.distribute_strategy
            asked = strategy.run(_sum_over_machines, (tf.constant(int(self.signal is not None)),))
            if int(strategy.experimental_local_results(asked)[0]):
                self.signal = self.signal or signal.SIGTERM
        return self.signal is not None

    def _validated(self, kind: str) -> dict[str, float]:
        """Measures the current weights, and keeps them if they are the best so far."""
        if self.evaluate is None:
            return {}
        measured = _rounded(self.evaluate())
        value, best = measured[self.metric.name], self.progress.best.get(kind)
        if math.isfinite(value) and (best is None or self._is_better(value, best)):
            self.progress.best[kind] = value
            if self.layout.is_chief:
                self.keep(self.output / f"best{'_ema' * (kind == EMA)}.keras")
        return {f"val_{kind}{name}": value for name, value in measured.items()}

    def _is_better(self, value: float, best: float) -> bool:
        return value > best if self.metric.higher_is_better else value < best

    def save(self) -> None:
        """Saves the state of the run and rewrites the log."""
        values = state_of(self.model)
        if self.layout.is_chief:
            save_state(self.output / "checkpoints", values, self.progress)
            self.write_log()

    def write_log(self) -> None:
        """Rewrites `log.csv` from the rows in the progress."""
        if not self.progress.rows or not self.layout.is_chief:
            return
        text = io.StringIO()
        writer = csv.DictWriter(text, list(self.progress.rows[-1]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.progress.rows)
        write_whole(self.output / "log.csv", lambda part: part.write_text(text.getvalue(), "utf-8"))

    @contextmanager
    def stopping_on(self, *signals: signal.Signals) -> Iterator[None]:
        """Makes the first signal save and stop at the next update instead of immediately."""

        def note(number: int, frame: FrameType | None) -> None:
            self.signal = signal.Signals(number)
            for other, handler in before.items():  # a second signal stops immediately
                signal.signal(other, handler)

        before = {}
        try:
            for number in signals:
                before[number] = signal.signal(number, note)
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _sum_over_machines(value: tf.Tensor) -> tf.Tensor:
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, value)


def _rounded(measured: Mapping[str, float | tf.Tensor]) -> dict[str, float]:
    """Rounds values to seven digits, the precision of float32."""
    return {name: float(f"{float(value):.7g}") for name, value in measured.items()}


@contextmanager
def averaged_weights(model: FittedModel) -> Iterator[None]:
    """Replaces the model's weights with their moving averages within a `with` block."""
    optimizer: Any = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    weights, averages = [*model.trainable_variables], [*optimizer.averages]
    if model.statistics:
        weights += model.statistics.weights
        averages += model.statistics.averages
    values = [keras.ops.convert_to_numpy(weight) for weight in weights]
    try:
        for weight, average in zip(weights, averages):
            weight.assign(keras.ops.convert_to_numpy(average))
        yield
    finally:
        for weight, value in zip(weights, values):
            weight.assign(value)
