"""Decodes pictures in a process, which is ended if a picture takes too long."""

import json
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np

from keras_convnext.demo.costs import REFUSED, Costs
from keras_convnext.demo.decoder import Squares, UploadError
from keras_convnext.demo.uploads import Upload


class Decoder:
    """A process that decodes one picture at a time.

    Args:
        costs: Costs. The processor time of a picture is added to those of its address.
        seconds: float. Time after which a picture is given up.
        niceness: int. How readily the process gives way to others, in 0..19. Defaults to 0.
        share: float in 0..1. Of the time of a core, if every `pause` is kept. Defaults to 1.
    """

    def __init__(self, costs: Costs, seconds: float, niceness: int = 0, share: float = 1) -> None:
        self._costs = costs
        self._share = share
        self._rested = 0.0  # when a pause ends
        self._seconds, self._niceness = seconds, niceness
        self._process: subprocess.Popen[bytes] | None = None

    def decode(self, upload: Upload, size: int, expected: float | None = None) -> Squares | None:
        """Decodes an upload.

        Args:
            upload: Upload.
            size: int. Side of the network's input, in pixels.
            expected: float or None. If the picture may take longer, in seconds, it is not decoded.

        Returns:
            `Squares`, or None if the picture may take longer than `expected`.

        Raises:
            UploadError: If the picture is refused, or takes too long.
        """
        if self._process and self._process.poll() is not None:
            self.end()
        process = self._process = self._process or _started(self._niceness)
        overtime = threading.Timer(self._seconds, self.end)
        overtime.start()
        try:
            said, squares = _asked(process, upload, size, expected)
        except (OSError, EOFError, ValueError) as error:  # ValueError: the file was closed
            self.end()
            self._costs.add(upload.address, self._seconds)
            raise UploadError(
                f"{upload.name} takes too long or too much memory to decode. Choose another "
                "picture, or save it as JPEG."
            ) from error
        finally:
            overtime.cancel()
            overtime.join()
        self._costs.add(upload.address, said["cpu"])
        self._rested = time.monotonic() + said["cpu"] * (1 / self._share - 1)
        if "refused" in said:
            self._costs.add(upload.address, REFUSED)
            raise UploadError(said["refused"])
        return squares

    def pause(self) -> float:
        """Returns the seconds that are left of a pause after the last picture."""
        return max(0.0, self._rested - time.monotonic())

    def end(self) -> None:
        """Ends the process. The next picture starts another."""
        process, self._process = self._process, None
        if process:
            process.kill()
            process.wait()


def _started(niceness: int) -> "subprocess.Popen[bytes]":
    # Not with `multiprocessing`, which would run the main script again.
    # Ctrl-C ends the server, and the server this. A session of its own would have that effect, too,
    # but Linux would then ignore the niceness.
    code = (
        "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
        f"sys.path[:] = {sys.path}; from keras_convnext.demo.decoder import main"
    )
    return subprocess.Popen(
        [sys.executable, "-c", f"{code}; main({niceness})"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def _asked(
    process: "subprocess.Popen[bytes]", upload: Upload, size: int, expected: float | None
) -> tuple[dict[str, Any], Squares | None]:
    """Returns the answer of a process, and the squares if it has decoded the picture."""
    asking, answer = process.stdin, process.stdout
    assert asking
    assert answer
    file = upload.file
    asked = {"bytes": file.seek(0, 2), "name": upload.name, "size": size, "seconds": expected}
    file.seek(0)
    asking.write(json.dumps(asked).encode() + b"\n")
    while chunk := file.read(2**20):
        asking.write(chunk)
    asking.flush()
    line = answer.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    said = json.loads(line)
    if "sides" not in said:
        return said, None
    seen, sharp = (_read(answer, side) for side in said["sides"])
    return said, Squares(seen, sharp, said["notice"], said["seconds"])


def _read(answer: Any, side: int) -> np.ndarray:
    pixels = answer.read(side * side * 3)
    if len(pixels) < side * side * 3:
        raise EOFError
    return np.frombuffer(pixels, np.uint8).reshape(side, side, 3)
