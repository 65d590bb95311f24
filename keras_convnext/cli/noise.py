"""Captures what libraries print during a command, for --verbose and error logs."""

import faulthandler
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import IO, TextIO

from keras_convnext.cli.terminal import messages, note, output

_MOST_KEPT = 1 << 16  # bytes of output in the log of an internal error


class LibraryOutput:
    """Captures what libraries write to standard output and error, including C++ code.

    During a command, both file descriptors point to a temporary file, and `output` and `messages`
    write to the original ones. No setting of TensorFlow silences everything that it prints on
    import.

    Attributes:
        is_kept: bool. Whether output is captured at all.
        is_shown: bool. Whether --verbose was given.
        tail: bytes. The end of the captured output.
    """

    def __init__(self) -> None:
        self.is_kept = False
        self.is_shown = False
        self.tail = b""

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Captures output within the context, and prints our own warnings as one line each."""
        with ExitStack() as stack:
            streams_exist = _has_descriptor(sys.stdout) and _has_descriptor(sys.stderr)
            if self.is_kept and not self.is_shown and streams_exist:
                stack.enter_context(self._redirected())
            stack.enter_context(_warnings_as_lines(self.is_shown or not self.is_kept))
            yield

    @contextmanager
    def _redirected(self) -> Iterator[None]:
        with ExitStack() as stack:
            try:
                sink: IO[bytes] = stack.enter_context(tempfile.TemporaryFile(buffering=0))
            except OSError:  # the disk is full, or there is no temporary folder
                sink = stack.enter_context(open(os.devnull, "r+b", buffering=0))
            for console, stream in ((output, sys.stdout), (messages, sys.stderr)):
                stream.flush()
                real = os.dup(stream.fileno())
                file = open(  # noqa: SIM115  (closed below)
                    real, "w", encoding=stream.encoding, errors="backslashreplace"
                )
                os.dup2(sink.fileno(), stream.fileno())
                console.file = file
                stack.callback(_put_back, stream, real, file)
            faulthandler.enable(messages.file, all_threads=False)
            try:
                yield
            finally:
                faulthandler.disable()
                for stream in (sys.stdout, sys.stderr):
                    stream.flush()
                sink.seek(max(sink.seek(0, os.SEEK_END) - _MOST_KEPT, 0))
                self.tail = sink.read()


def _has_descriptor(stream: TextIO | None) -> bool:
    """Whether a stream has a file descriptor. It may be closed, or replaced as in a notebook."""
    try:
        return stream is not None and stream.fileno() >= 0
    except (OSError, ValueError):
        return False


def _put_back(stream: TextIO, real: int, file: TextIO) -> None:
    console = output if file is output.file else messages
    os.dup2(real, stream.fileno())
    console.file = None  # type: ignore[assignment]  # back to its default stream
    with suppress(OSError):  # a full disk has already been reported by the write
        file.close()


library_output = LibraryOutput()


@contextmanager
def _warnings_as_lines(others: bool) -> Iterator[None]:
    """Prints our own warnings as one line each, and other warnings as usual or not at all."""
    before = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if _warned_by() == __package__.partition(".")[0]:
            note(f"Warning: {message}", "yellow")
        elif others:
            before(message, category, filename, lineno, file, line)

    warnings.showwarning = show
    try:
        yield
    finally:
        warnings.showwarning = before


def _warned_by() -> str:
    """Returns the package that called `warnings.warn`, regardless of `stacklevel`."""
    frame = sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__") in ("warnings", __name__):
        frame = frame.f_back
    return str(frame.f_globals.get("__name__")).partition(".")[0]
