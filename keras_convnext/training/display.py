"""Displays a run: a progress bar, curves for TensorBoard, and a plot at the end."""

import importlib.util
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import keras
import tensorflow as tf
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

from keras_convnext.printable import printable
from keras_convnext.progress import TransientProgress
from keras_convnext.training.journal import Journal
from keras_convnext.training.task import Metric


class ProgressBar(keras.callbacks.Callback):
    """Shows a progress bar with speed and remaining time, and a line for each epoch.

    Args:
        console: rich.console.Console. The output. Only the lines are printed if it is not a
            terminal.
        journal: Journal. The journal of the run, which must precede this in the callbacks.
    """

    def __init__(self, console: Console, journal: Journal) -> None:
        super().__init__()
        self.console = console
        self.journal = journal
        self._bar = TransientProgress(
            TextColumn("{task.description}"),
            BarColumn(None),
            TextColumn("{task.fields[speed]:,.0f} images/s"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._bar.add_task("", total=journal.length.updates, speed=0.0)

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Shows the bar."""
        self._bar.update(self._task, completed=self.journal.progress.updates)
        self._bar.start()
        self._began = time.perf_counter(), self.journal.progress.updates

    def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:
        """Updates the bar."""
        began, updates_then = self._began
        updates = self.journal.progress.updates
        images = (updates - updates_then) * self.journal.recipe.batch.batch_size
        self._bar.update(
            self._task,
            completed=updates,
            description=f"{self._position(updates + 1)}  loss {logs['loss']:.4f}",
            speed=images / (time.perf_counter() - began),
        )

    def _position(self, update: int) -> str:
        length, epochs = self.journal.length, self.journal.recipe.schedule.epochs
        if epochs is None:
            return f"update {min(update, length.updates):,}/{length.updates:,}"
        return f"epoch {min(-(-update // length.epoch), epochs):3d}/{epochs}"

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Prints the metrics of the epoch."""
        if "update" not in logs:
            return  # interrupted
        metric = self.journal.metric
        judged = ".2%" if metric.percent else ".4f"
        formats = {
            "loss": ".4f", "val_loss": ".4f", f"val_{metric.name}": judged,
            f"val_ema_{metric.name}": judged,
        }  # fmt: skip
        parts = [f"{name} {logs[name]:{form}}" for name, form in formats.items() if name in logs]
        line = "  ".join((self._position(self.journal.progress.updates), *parts))
        self.console.print(line, highlight=False, markup=False)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Removes the bar."""
        self._bar.stop()


class Charts(keras.callbacks.Callback):
    """Writes the metrics of each epoch for TensorBoard.

    Args:
        folder: path. The log folder. Its curves are written anew, since those of a run that was
            killed may extend beyond the state from which it is resumed.
        rows: sequence of dict. The metrics of the epochs so far, to which the journal adds.
    """

    def __init__(self, folder: Path, rows: Sequence[Mapping[str, float]]) -> None:
        super().__init__()
        for path in folder.glob("events.out.tfevents.*"):
            path.unlink()
        self._writer = tf.summary.create_file_writer(str(folder))
        self._rows = rows
        for row in rows:
            self._draw(row)

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Adds a point to each curve."""
        if "update" in logs:  # otherwise it was interrupted
            self._draw(self._rows[-1])

    def _draw(self, row: Mapping[str, float]) -> None:
        with self._writer.as_default():
            for name, value in row.items():
                tf.summary.scalar(name, value, step=int(row["update"]))
        self._writer.flush()


def is_installed(package: str) -> bool:
    """Whether an optional package is installed."""
    return importlib.util.find_spec(package) is not None


def draw_run(rows: Sequence[Mapping[str, float]], metric: Metric, path: Path, title: str) -> None:
    """Plots the loss, the metric of the task and the learning rate over the epochs.

    Args:
        rows: sequence of dict. The rows of `log.csv`.
        metric: Metric. The metric of the task.
        path: path. The PNG file to write.
        title: str. Title of the figure.
    """
    from matplotlib.figure import Figure

    epochs = [row["epoch"] for row in rows]
    panels = {
        "loss": {"loss": "training", "val_loss": "validation", "val_ema_loss": "average"},
        metric.name.replace("_", " ") + " (%)" * metric.percent: {
            metric.name: "training",
            f"val_{metric.name}": "validation",
            f"val_ema_{metric.name}": "average",
        },
        "learning rate": {"learning_rate": ""},
    }
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    figure.suptitle(printable(title), parse_math=False)
    for axes, (panel, curves) in zip(figure.subplots(1, len(panels)), panels.items()):
        scale = 100 if panel.endswith("%)") else 1
        for name, label in curves.items():
            if name in rows[-1]:
                values = [scale * row[name] for row in rows]
                axes.plot(epochs, values, label=label, marker="." if len(rows) < 60 else "")
        axes.set(xlabel="epoch", title=panel)
        axes.grid(alpha=0.3)
        if len(curves) > 1:
            axes.legend()
    figure.savefig(path, dpi=110, format="png")
