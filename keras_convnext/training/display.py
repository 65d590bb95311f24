"""What is seen of a run: a bar while it lasts, curves for TensorBoard, a picture at the end."""

import importlib.util
import time
from collections.abc import Sequence
from pathlib import Path

import keras
import tensorflow as tf
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from keras_convnext.training.journal import Journal


class ProgressBar(keras.callbacks.Callback):
    """Shows how far a run is, how fast, and how long it will take; and a line for each epoch.

    Args:
        console: rich.console.Console. Where; not a terminal gets the lines alone.
        journal: Journal. Of the run, and before this among the callbacks.
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
            redirect_stdout=False,  # what libraries print is no part of it
            redirect_stderr=False,
        )
        self._task = self._bar.add_task("", total=journal.updates, speed=0.0)

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Shows the bar."""
        self._bar.update(self._task, completed=self.journal.progress.updates)
        self._bar.start()
        self._began = time.perf_counter(), self.journal.progress.updates

    def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:
        """Moves the bar."""
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
        """Writes what was measured."""
        if "update" not in logs:
            return  # broken off
        parts = [f"epoch {epoch + 1:3d}/{self.journal.recipe.epochs}"]
        parts += [f"{name} {logs[name]:.4f}" for name in ("loss", "val_loss") if name in logs]
        parts += [
            f"{name} {logs[name]:.2%}"
            for name in ("val_accuracy", "val_ema_accuracy")
            if name in logs
        ]
        self.console.print("  ".join(parts), highlight=False)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Takes the bar away."""
        self._bar.stop()


class Charts(keras.callbacks.Callback):
    """Writes what is measured of each epoch for TensorBoard.

    Args:
        folder: path.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._writer = tf.summary.create_file_writer(str(folder))

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        """Writes a point of each curve."""
        with self._writer.as_default():
            for name, value in logs.items():
                tf.summary.scalar(name, value, step=epoch + 1)
        self._writer.flush()


def is_installed(package: str) -> bool:
    """Whether an optional package is there."""
    return importlib.util.find_spec(package) is not None


def draw_run(rows: Sequence[dict[str, float]], path: Path, title: str) -> None:
    """Draws loss, accuracy and learning rate over the epochs.

    Args:
        rows: sequence of dict. The rows of `log.csv`.
        path: path. The PNG to write.
        title: str.
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
    figure.suptitle(title)
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
