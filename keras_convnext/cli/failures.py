"""Error reports of commands: one line for the user, and an exit code."""

import os
import sys
import tempfile
import traceback
from types import TracebackType

import typer

from keras_convnext.cli.noise import library_output
from keras_convnext.cli.terminal import note, one_line
from keras_convnext.cli.versions import versions
from keras_convnext.memory_errors import is_out_of_memory
from keras_convnext.pretrained.errors import DownloadError
from keras_convnext.printable import printable

WRONG_INPUT, INTERNAL, INTERRUPTED = 2, 70, 130
EXIT_CODES = {
    0: "success",
    1: "completed with failures: unreadable image, failed check, NaN loss",
    WRONG_INPUT: "error: invalid argument or file, missing package, disk or memory full",
    INTERNAL: "internal error; please report it",
    INTERRUPTED: "interrupted with Ctrl-C (143: by SIGTERM; 141: output pipe closed)",
}
UsageFailure = next(
    kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException"
)
_MOST_SHOWN = 600  # characters of a library's message


def report(error: BaseException) -> int:
    """Prints the reason for a failure, and returns the exit code."""
    if isinstance(error, KeyboardInterrupt):
        note("Interrupted.")
        return INTERRUPTED
    if library_output.is_shown:
        note_traceback(error)
    if isinstance(error, UsageFailure):
        _fail(error.format_message())  # type: ignore[attr-defined]
        context = getattr(error, "ctx", None)
        if context is not None:
            note(f"See {context.command_path} --help")
        return WRONG_INPUT
    is_ours = type(error).__module__.partition(".")[0] == __package__.partition(".")[0]
    if is_out_of_memory(error) and not is_ours:
        _fail("Not enough memory. Close other programs, or reduce --batch-size or --size.")
        return WRONG_INPUT
    if isinstance(error, DownloadError):  # one line per address
        _fail(*str(error).splitlines())
        return WRONG_INPUT
    if is_ours or isinstance(error, ValueError | OSError | ImportError):
        _fail(_message(error))
        return WRONG_INPUT
    place = _log(error)
    _fail(
        f"{type(error).__name__}: {_message(error)}. This is a bug: please report it with {place}"
    )
    return INTERNAL


def note_traceback(error: BaseException) -> None:
    """Prints the traceback of an error."""
    for line in "".join(traceback.format_exception(error)).splitlines():
        note(line)


def _fail(message: str, *more: str) -> None:
    note(f"Error: {message}", "red")
    for line in more:
        note(line)


def _message(error: BaseException) -> str:
    """Returns the message of an error, in one line."""
    if isinstance(error, OSError) and error.strerror:
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        return ": ".join([error.strerror, *names])
    if _comes_from_us(error.__traceback__):
        return str(error)
    line = one_line(str(error))
    if len(line) > _MOST_SHOWN:
        line = f"{line[:_MOST_SHOWN]}... (--verbose shows all)"
    return line or type(error).__name__


def _comes_from_us(place: TracebackType | None) -> bool:
    """Whether the error was raised in this package, not in a library that it calls."""
    name = ""
    while place is not None:
        name = str(place.tb_frame.f_globals.get("__name__"))
        place = place.tb_next
    return name.partition(".")[0] == __package__.partition(".")[0]


def _log(error: BaseException) -> str:
    """Writes a log for a bug report, and returns its path."""
    lines = [
        f"command: {' '.join(sys.argv)}",
        *(f"{name}: {version}" for name, version in versions().items()),
        "",
        *"".join(traceback.format_exception(error)).split("\n"),
        "Printed by libraries:",
        *library_output.tail.decode("utf-8", "backslashreplace").split("\n"),
    ]
    try:
        number, path = tempfile.mkstemp(".log", "keras-convnext-")
        with os.fdopen(number, "wb") as file:
            file.write("\n".join(map(printable, lines)).encode("utf-8"))
    except OSError:
        return "the output of the same command with --verbose"
    return path
