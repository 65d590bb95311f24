"""Warnings that point at the user's line of code."""

import inspect
import warnings
from collections.abc import Iterable
from pathlib import Path

from keras_convnext.printable import printable


def warn_user(notices: Iterable[str | None], path: str | Path) -> None:
    """Issues one warning per notice about a file; None is skipped."""
    for notice in filter(None, notices):
        warnings.warn(printable(f"{notice} (file: {path})"), stacklevel=_level_of_the_user())


def _level_of_the_user() -> int:
    """Returns the `stacklevel` at which a warning points to the call into this package.

    The depth differs between `load_checkpoint`, a builder and `load_model`.
    """
    package = __name__.partition(".")[0]
    level, frame = 0, inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        level, frame = level + 1, frame.f_back
    return level
