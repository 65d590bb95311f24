"""Output of commands: results on standard output, everything else on standard error.

File names and other external text are data: they are never interpreted as markup, format strings or
escape codes, and never wrapped or truncated to fit the terminal.
"""

import json
import math
import os
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import typer
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from keras_convnext.printable import printable
from keras_convnext.progress import TransientProgress

CLOSED_PIPE = 141  # 128 + SIGPIPE, as if the signal had ended the process

_COLOR = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")


class Stream(Console):
    """A console that ends the command when its pipe is closed, for example by `head`."""

    def on_broken_pipe(self) -> None:
        """Discards further output, and exits."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())
        raise typer.Exit(CLOSED_PIPE)


# Rich prints nothing if COLUMNS is 0, as on some machines without a terminal.
_WIDTH = 80 if re.fullmatch("0+", os.environ.get("COLUMNS", "")) else None
output = Stream(soft_wrap=True, width=_WIDTH)
messages = Stream(stderr=True, soft_wrap=True, width=_WIDTH)


def one_line(text: str) -> str:
    """Removes color codes and line breaks from a library's message."""
    return " ".join(_COLOR.sub("", text).split())


def write(*lines: str) -> None:
    """Prints lines on standard output."""
    for line in lines:
        output.print(Text(printable(line)))


def write_json(value: object) -> None:
    """Prints a value as ASCII JSON on standard output."""
    output.print(Text(json.dumps(value, indent=2, default=str)))


def note(message: object, style: str = "") -> None:
    """Prints a message on standard error."""
    messages.print(Text(printable(message), style))


def write_table(
    headings: Sequence[str], rows: Iterable[Sequence[str]], right: Collection[str] = ()
) -> None:
    """Prints a table, or one line per cell if the terminal is too narrow.

    Args:
        headings: sequence of str.
        rows: iterable of sequences of str.
        right: collection of str. Headings of the right-aligned columns.
    """
    cells = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(headings, *cells)]
    if output.is_terminal and sum(widths) + 2 * len(widths) - 2 > output.width:
        for row in cells:
            write(*(f"{heading}: {cell}" for heading, cell in zip(headings, row) if cell), "")
        return
    rule = ["\u2500" * width for width in widths]
    for row in (list(headings), rule, *cells):
        padded = []
        for heading, cell, width in zip(headings, row, widths):
            space = " " * (width - cell_len(cell))
            padded.append(space + cell if heading in right else cell + space)
        write("  ".join(padded).rstrip())


def write_markdown(
    headings: Sequence[str], rows: Iterable[Sequence[str]], right: Collection[str] = ()
) -> None:
    """Prints a Markdown table. If there are URLs, files link to them.

    Args:
        headings: sequence of str.
        rows: iterable of sequences of str.
        right: collection of str. Headings of the right-aligned columns.
    """
    table = Table(box=box.MARKDOWN, pad_edge=False)
    for heading in headings:
        if heading != "url":
            justify: Literal["right", "left"] = "right" if heading in right else "left"
            table.add_column(heading, no_wrap=True, justify=justify)
    for row in rows:
        cells = dict(zip(headings, row))
        if url := cells.pop("url", None):
            cells["file"] = f"[{cells['file']}]({url})"
        table.add_row(*map(Text, cells.values()))
    wide = Console(width=1000, color_system=None)  # a cell holds a name and its address
    with wide.capture() as captured:
        wide.print(table)
    write(*captured.get().splitlines())


def write_facts(facts: dict[str, object]) -> None:
    """Prints names and values, one pair per line."""
    width = max(map(len, facts))
    write(*(f"{name:{width}}  {value}" for name, value in facts.items()))


class _Rate(ProgressColumn):
    """Items per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.1f} {task.fields['unit']}/s")


class Bar:
    """A progress bar on standard error, if that is a terminal.

    Args:
        description: str. The task, such as "Evaluating".
        unit: str. Unit of the count, such as "images".
    """

    def __init__(self, description: str, unit: str) -> None:
        self._progress = TransientProgress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(),
            console=messages,
        )
        self._description, self._unit = printable(description), unit

    def __enter__(self) -> "Bar":
        self._task = self._progress.add_task(self._description, total=None, unit=self._unit)
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, done: float, total: float, part: str = "") -> None:
        """Updates the bar. `part` says what of the task is being done."""
        description = f"{self._description} {printable(part)}".rstrip()
        self._progress.update(self._task, completed=done, total=total, description=description)


def track(items: Iterable[Any], description: str, unit: str, total: int) -> Iterator[Any]:
    """Yields items with a progress bar."""
    with Bar(description, unit) as bar:
        bar.update(0, total)
        for done, item in enumerate(items, 1):
            yield item
            bar.update(done, total)


def number(value: float) -> float | None:
    """Returns None for NaN, which JSON lacks."""
    return None if math.isnan(value) else value


@contextmanager
def waiting(description: str) -> Iterator[None]:
    """Shows a spinner and the elapsed time, for a task of unknown length."""
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with TransientProgress(*columns, console=messages) as progress:
        progress.add_task(printable(description), total=None)
        yield


def prepare_streams() -> None:
    """Escapes characters that the encoding of a stream lacks, instead of raising an error."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
