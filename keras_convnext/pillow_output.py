"""Silences what Pillow says about damaged files, which our own errors and notices describe."""

import logging
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# As `warnings.filterwarnings("ignore", module="PIL")` adds it, without forgetting which warnings
# were already shown.
_IGNORED = ("ignore", None, Warning, re.compile(r"PIL\b"), 0)
_lock = threading.Lock()
_readers = 0

# Without any handler, Python prints errors on standard error.
logging.getLogger("PIL").addHandler(logging.NullHandler())


@contextmanager
def silent_pillow() -> Iterator[None]:
    """Ignores Pillow's warnings within a `with` block.

    Unlike `warnings.catch_warnings`, this is safe with threads: the last of them restores the
    filters.
    """
    global _readers
    with _lock:
        _readers += 1
        if _readers == 1:
            warnings.filters.insert(0, _IGNORED)  # type: ignore[attr-defined]
    try:
        yield
    finally:
        with _lock:
            _readers -= 1
            if not _readers:
                with suppress(ValueError):  # the filters were reset in the meantime
                    warnings.filters.remove(_IGNORED)  # type: ignore[attr-defined]
