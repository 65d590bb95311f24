"""Plots confusion matrices."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from keras_convnext.printable import printable

_LONGEST = 24  # characters of a name
MOST_WITH_NUMBERS = 30  # classes; with more, the cells are too small for numbers


def draw_confusion(
    guesses: Mapping[tuple[int, int], int], names: Sequence[str], path: str | Path
) -> None:
    """Plots the confusion matrix, in percent of the images of each class.

    Args:
        guesses: mapping. As in `Accuracy.guesses`.
        names: sequence of str. Class names in the order of the model.
        path: str or path. The image file to write; its suffix selects the format.

    Raises:
        ValueError: If the suffix is not an image format.
    """
    from matplotlib.figure import Figure

    counts = np.zeros((len(names), len(names)))
    for pair, count in guesses.items():
        counts[pair] = count
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = 2.5 + min(0.5 * len(names), 12)
    figure = Figure(figsize=(side + 0.6, side), layout="constrained")
    axes = figure.subplots()
    # The square root makes 1 % visible next to 90 %.
    image = axes.imshow(np.sqrt(shares), cmap="Blues", vmin=0, vmax=10)
    bar = figure.colorbar(image, ax=axes, fraction=0.046, label="images of the class (%)")
    ticks = (0, 1, 5, 20, 50, 100)
    bar.set_ticks([math.sqrt(tick) for tick in ticks], labels=[str(tick) for tick in ticks])
    axes.set(xlabel="predicted class", ylabel="true class", title="Confusion")
    if len(names) <= MOST_WITH_NUMBERS:
        labels = [_label(name) for name in names]
        axes.set_xticks(range(len(names)), labels, rotation=45, ha="right", parse_math=False)
        axes.set_yticks(range(len(names)), labels, parse_math=False)
        for (row, column), share in np.ndenumerate(shares):
            if share:
                color = "white" if share > 35 else "black"
                text = f"{share:.1f}" if row != column else f"{share:.0f}"
                axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
    figure.savefig(path, dpi=110)


def _label(name: str) -> str:
    """Returns a name for an axis. Long ones are cut, to leave room for the matrix."""
    shown = printable(name)
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}\u2026"
