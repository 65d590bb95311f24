"""Names and colors of the classes of segmenters."""

from collections.abc import Sequence
from functools import cache
from importlib import resources

import numpy as np

from keras_convnext.colors import distinct_colors

Color = tuple[int, int, int]

_ADE20K = 150  # classes


@cache
def _ade20k() -> tuple[tuple[str, Color], ...]:
    text = (resources.files("keras_convnext") / "labels" / "ade20k.tsv").read_text("utf-8")
    rows = (line.split("\t") for line in text.splitlines())
    return tuple((name, _parsed(color)) for name, color in rows)


def _parsed(color: str) -> Color:
    red, green, blue = bytes.fromhex(color.removeprefix("#"))
    return red, green, blue


def names_of_classes(classes: int, names: Sequence[str] = ()) -> tuple[str, ...]:
    """Returns the name of each class of a segmenter.

    These are `names`, if their number matches; else those of ADE20K for 150 classes; else "class
    0", "class 1" and so on.

    Args:
        classes: int. Number of classes.
        names: sequence of str. Defaults to none.
    """
    if len(names) == classes:
        return tuple(names)
    if classes == _ADE20K:
        return tuple(name for name, _ in _ade20k())
    return tuple(f"class {index}" for index in range(classes))


def colors_of_classes(classes: int, colors: Sequence[Sequence[int]] = ()) -> np.ndarray:
    """Returns the color of each class, uint8 (classes, 3).

    These are `colors`, if their number matches; else those of ADE20K for 150 classes, as
    mmsegmentation has them; else `distinct_colors`.

    Args:
        classes: int. Number of classes.
        colors: sequence of (red, green, blue) in 0..255. Defaults to none.
    """
    if len(colors) == classes:
        return np.array(colors, np.uint8)
    if classes == _ADE20K:
        return np.array([color for _, color in _ade20k()], np.uint8)
    return distinct_colors(classes)
