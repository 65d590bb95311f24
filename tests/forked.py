"""Runs programs in separate processes that start immediately.

They are forked from a process that has already imported the package, which takes several seconds.
Use `subprocess` for programs that test imports.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["keras_convnext.training", "matplotlib.pyplot", "tensorboard.summary"]
)


class Forked:
    """A replacement for `subprocess.Popen([sys.executable, "-c", source, *arguments])`.

    Args:
        source: str. The program.
        *arguments: Its `sys.argv[1:]`, converted to text.
        **environment: Additional environment variables.
    """

    def __init__(self, source, *arguments, **environment):
        self._folder = tempfile.TemporaryDirectory()
        self._outputs = [Path(self._folder.name, name) for name in ("stdout", "stderr")]
        argv = ["-c", *map(str, arguments)]
        self._process = _context.Process(
            target=_execute,
            args=(source, argv, {**os.environ, **environment}, self._outputs),
            daemon=True,
        )
        self._process.start()
        self.kill = self._process.kill

    def is_running(self):
        return self._process.is_alive()

    def errors(self):
        """Returns what it has printed on standard error."""
        return self._outputs[1].read_text() if self._outputs[1].exists() else ""

    def wait(self, timeout=600):
        """Waits, and returns the finished process with its output."""
        self._process.join(timeout)
        printed = [output.read_text() if output.exists() else "" for output in self._outputs]
        return subprocess.CompletedProcess("-c", self._process.exitcode, *printed)


def _execute(source, argv, environment, outputs):
    for stream, output in zip((sys.stdout, sys.stderr), outputs):
        stream.flush()
        with output.open("w") as file:
            os.dup2(file.fileno(), stream.fileno())
    sys.argv = argv
    os.environ.clear()
    os.environ.update(environment)
    exec(compile(source, "-c", "exec"), {"__name__": "__main__"})
