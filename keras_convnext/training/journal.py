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

import keras
import numpy as np
import tensorflow as tf

from keras_convnext.classification.recipes import Recipe
from keras_convnext.printable import PrintableMessage
from keras_convnext.training.layout import Layout
from keras_convnext.training.state import Progress, save_state, state_of, write_whole

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
        progress: Progress. The progress of the run, updated in place.
        updates_per_epoch: int. Weight updates per epoch.
        validation: tuple (dataset, number of batches).
        keep: function. Takes a path and saves the model's current weights there.
    """

    def __init__(
        self,
        output: Path,
        recipe: Recipe,
        layout: Layout,
        progress: Progress,
        updates_per_epoch: int,
        validation: tuple[tf.data.Dataset | tf.distribute.DistributedDataset, int],
        keep: Callable[[Path], None],
    ) -> None:
        super().__init__()
        self.output = output
        self.recipe = recipe
        self.layout = layout
        self.progress = progress
        self.updates_per_epoch = updates_per_epoch
        self.validation = validation
        self.keep = keep
        self.updates = recipe.epochs * updates_per_epoch
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
        within = self.progress.updates % self.updates_per_epoch
        if self._is_asked_to_stop():
            self.model.stop_training = True
            if within:
                self.save()
        elif within and self.recipe.save_steps and within % self.recipe.save_steps == 0:
            self.save()

    def _on_non_finite_loss(self, loss: float) -> str:
        return (
            f"The loss is {loss} after update {self.progress.updates:,}. The last good state is "
            f"in {self.output / 'checkpoints'}, but resuming from it gives the same loss. Start "
            "again in a new folder with a lower learning_rate, clip_norm=1 or precision=float32. "
            f"Received: learning_rate={self.recipe.learning_rate}, clip_norm="
            f"{self.recipe.clip_norm}, precision={self.recipe.precision}"
        )

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Evaluates, logs and saves, unless the epoch was interrupted."""
        if self.progress.updates % self.updates_per_epoch:
            return
        began, updates_then = self._began
        images = (self.progress.updates - updates_then) * self.recipe.batch_size
        speed = images / (time.perf_counter() - began)
        row: dict[str, float] = {"epoch": epoch + 1, "update": self.progress.updates}
        row.update(_rounded({"learning_rate": self.model.optimizer.learning_rate}))
        measured = self.model.get_metrics_result()
        row.update(_rounded({name: measured[name] for name in ("loss", "accuracy")}))
        row.update(self._evaluate(RAW))
        if self.recipe.ema_decay is not None:
            with averaged_weights(self.model):
                row.update(self._evaluate(EMA))
        self.progress.rows.append(row)
        logs.update(row, images_per_second=speed)
        self.save()

    def _is_asked_to_stop(self) -> bool:
        """Whether any machine has received a signal: all machines must stop together."""
        if self.layout.processes > 1:
            strategy = self.model.distribute_strategy
            asked = strategy.run(_sum_over_machines, (tf.constant(int(self.signal is not None)),))
            if int(strategy.experimental_local_results(asked)[0]):
                self.signal = self.signal or signal.SIGTERM
        return self.signal is not None

    def _evaluate(self, kind: str) -> dict[str, float]:
        batches, steps = self.validation
        measured = self.model.evaluate(batches, steps=steps, verbose=0, return_dict=True)
        accuracy = float(measured["accuracy"])
        if accuracy > self.progress.best.get(kind, -1.0):
            self.progress.best[kind] = accuracy
            if self.layout.is_chief:
                self.keep(self.output / f"best{'_ema' * (kind == EMA)}.keras")
        measured["loss"] = measured.pop("cross_entropy")
        return {f"val_{kind}{name}": value for name, value in _rounded(measured).items()}

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
def averaged_weights(model: keras.Model) -> Iterator[None]:
    """Replaces the model's weights with their moving averages within a `with` block."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    weights = [keras.ops.convert_to_numpy(weight) for weight in model.trainable_variables]
    try:
        for weight, average in zip(model.trainable_variables, optimizer.averages):
            weight.assign(keras.ops.convert_to_numpy(average))
        yield
    finally:
        for weight, value in zip(model.trainable_variables, weights):
            weight.assign(value)
