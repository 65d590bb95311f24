"""Displays a run: a progress bar, curves for TensorBoard, and a plot at the end."""

import importlib.util
import time
from collections.abc import Sequence
from pathlib import Path

import keras
import tensorflow as tf
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from keras_convnext.printable import printable
from keras_convnext.training.journal import Journal


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
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(None),
            TextColumn("{task.fields[speed]:,.0f} images/s"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
            redirect_stdout=False,  # output of libraries is not part of the display
            redirect_stderr=False,
        )
        self._task = self._bar.add_task("", total=journal.updates, speed=0.0)

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Shows the bar."""
        self._bar.update(self._task, completed=self.journal.progress.updates)
        self._bar.start()
        self._began = time.perf_counter(), self.journal.progress.updates

    def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:
        """Updates the bar."""
        began, updates_then = self._began
        updates = self.journal.progress.updates
        images = (updates - updates_then) * self.journal.recipe.batch_size
        epoch = min(updates // self.journal.updates_per_epoch + 1, self.journal.recipe.epochs)
        self._bar.update(
            self._task,
            completed=updates,
            description=f"epoch {epoch}/{self.journal.recipe.epochs}  loss {logs['loss']:.4f}",
            speed=images / (time.perf_counter() - began),
        )

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Prints the metrics of the epoch."""
        if "update" not in logs:
            return  # interrupted
        parts = [f"epoch {epoch + 1:3d}/{self.journal.recipe.epochs}"]
        parts += [f"{name} {logs[name]:.4f}" for name in ("loss", "val_loss") if name in logs]
        parts += [
            f"{name} {logs[name]:.2%}"
            for name in ("val_accuracy", "val_ema_accuracy")
            if name in logs
        ]
        self.console.print("  ".join(parts), highlight=False)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Removes the bar."""
        self._bar.stop()


class Charts(keras.callbacks.Callback):
    """Writes the metrics of each epoch for TensorBoard.

    Args:
        folder: path. The log folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._writer = tf.summary.create_file_writer(str(folder))

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Adds a point to each curve."""
        with self._writer.as_default():
            for name, value in logs.items():
                tf.summary.scalar(name, value, step=epoch + 1)
        self._writer.flush()


def is_installed(package: str) -> bool:
    """Whether an optional package is installed."""
    return importlib.util.find_spec(package) is not None


def draw_run(rows: Sequence[dict[str, float]], path: Path, title: str) -> None:
    """Plots loss, accuracy and learning rate over the epochs.

    Args:
        rows: sequence of dict. The rows of `log.csv`.
        path: path. The PNG file to write.
        title: str. Title of the figure.
    """
    from matplotlib.figure import Figure

    epochs = [row["epoch"] for row in rows]
    panels = {
        "loss": {"loss": "training", "val_loss": "validation", "val_ema_loss": "average"},
        "accuracy (%)": {
            "accuracy": "training",
            "val_accuracy": "validation",
            "val_ema_accuracy": "average",
        },
        "learning rate": {"learning_rate": ""},
    }
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    figure.suptitle(printable(title), parse_math=False)
    for axes, (panel, curves) in zip(figure.subplots(1, len(panels)), panels.items()):
        scale = 100 if "%" in panel else 1
        for name, label in curves.items():
            if name in rows[-1]:
                values = [scale * row[name] for row in rows]
                axes.plot(epochs, values, label=label, marker="." if len(rows) < 60 else "")
        axes.set(xlabel="epoch", title=panel)
        axes.grid(alpha=0.3)
        if len(curves) > 1:
            axes.legend()
    figure.savefig(path, dpi=110, format="png")
