"""Warnings at the line of the user who called this package."""

import inspect
import warnings
from collections.abc import Iterable
from pathlib import Path

from keras_convnext.printable import printable


def warn_user(notices: Iterable[str | None], path: str | Path) -> None:
    """Warns of what was found in a file, or left out of one, a warning for each notice."""
    for notice in filter(None, notices):
        warnings.warn(printable(f"{notice} (file: {path})"), stacklevel=_level_of_the_user())


def _level_of_the_user() -> int:
    """The `stacklevel` with which the caller's warning names the line that called this package.

    It may have called `load_checkpoint`, a builder or `load_model`.
    """
    package = __name__.partition(".")[0]
    level, frame = 0, inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        level, frame = level + 1, frame.f_back
    return level
