"""The display of a download on standard error: lines, and a progress bar in a terminal."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskProgressColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from keras_convnext.printable import printable

# In a notebook, too, which would show Rich's own output with other widths and colors.
console = Console(stderr=True, soft_wrap=True, force_jupyter=False)

EVERY = 10.0  # seconds between two lines about progress where there is no terminal


def say(*lines: str) -> None:
    """Prints lines at once, so that those of several processes do not mix."""
    console.print(Text("\n".join(map(printable, lines))))


def megabytes(count: int) -> str:
    """A number of bytes, for people."""
    return f"{count / 1e6:,.1f} MB"


@contextmanager
def progress(done: int, total: int | None) -> Iterator[Callable[[int], None]]:
    """Shows the progress of a download: a bar, or a line every ten seconds.

    Args:
        done: int. Bytes that already downloaded.
        total: int or None. Bytes of the file, where known.

    Yields:
        function of int, to be called with the number of further bytes.
    """
    # A notebook asks for colors as a terminal does, but cannot move its cursor.
    if not (console.is_terminal and console.file.isatty()):
        yield _lines(done, total)
        return
    columns = (
        BarColumn(),
        TaskProgressColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False
    ) as bar:
        task = bar.add_task("", total=total, completed=done)
        yield lambda count: bar.advance(task, count)


def _lines(done: int, total: int | None) -> Callable[[int], None]:
    start = time.monotonic()
    said, come = start, 0

    def advance(count: int) -> None:
        nonlocal said, come
        come += count
        now = time.monotonic()
        if now - said >= EVERY:
            said = now
            say(f"  {_state(done + come, total, come / (now - start))}")

    return advance


def _state(done: int, total: int | None, rate: float) -> str:
    speed = f"{rate / 1e6:,.1f} MB/s"
    if not total:
        return f"{megabytes(done)}, {speed}"
    left = round((total - done) / rate) if rate else 0
    minutes, seconds = divmod(left, 60)
    return (
        f"{done / 1e6:,.1f} of {megabytes(total)} ({100 * done // total} %), {speed}, "
        f"{minutes}:{seconds:02} left"
    )
