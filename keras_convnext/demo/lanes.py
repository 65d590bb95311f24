"""Who waits for whom: ordinary pictures, slow pictures and the network each have a queue.

An ordinary picture waits for those before it, never for a slow one, nor for one from an address
that has cost much. Pictures are decoded in two
processes, which are ended if a picture takes too long, or in one where memory is scarce.
"""

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, TimeoutError
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from keras_convnext.demo.answers import Answer, Classifier, classified
from keras_convnext.demo.costs import REFUSED, Costs, Line
from keras_convnext.demo.decoder import MOST_MEMORY, Squares, UploadError
from keras_convnext.demo.uploads import Upload

QUICK = 1.0  # an ordinary picture is expected to take at most this many seconds
QUICK_SECONDS, SLOW_SECONDS = 10, 30  # until the process that decodes a picture is ended
SLOW_NICENESS = 10  # a slow picture gets about a tenth of the time of the others
MOST_WAITING = 256  # visitors at a time
MOST_SLOW = 10  # slow pictures that may wait
PATIENCE = 120  # seconds that a picture may wait in one queue

Result = TypeVar("Result")


class Lanes:
    """Classifies uploads of many visitors.

    Args:
        classifier: Classifier.
    """

    def __init__(self, classifier: Classifier) -> None:
        self.costs = Costs()
        self._classifier = classifier
        self._quick, self._network = (Lane(self.costs, MOST_WAITING) for _ in range(2))
        if _available_memory() > 2 * MOST_MEMORY:
            self._slow = Lane(self.costs, MOST_SLOW)
            self._decoders = [Decoder(QUICK_SECONDS), Decoder(SLOW_SECONDS, SLOW_NICENESS)]
        else:
            self._slow = self._quick
            self._decoders = [Decoder(SLOW_SECONDS)]

    def answer(self, upload: Upload) -> Answer:
        """Waits, and classifies an upload.

        Raises:
            UploadError: As in `answer`, if the picture takes too long to decode, or if too many
                visitors are waiting.
        """
        first, last = self._decoders[0], self._decoders[-1]
        size = self._classifier.size
        squares = self._quick.wait(partial(first.decode, upload, size, QUICK), upload)
        squares = squares or self._slow.wait(partial(last.decode, upload, size), upload)
        assert squares, "Only a decoder with an expectation declines."
        return self._network.wait(partial(classified, self._classifier, squares), upload)

    def close(self) -> None:
        """Ends the processes."""
        for decoder in self._decoders:
            decoder.end()


@dataclass(eq=False)
class Job:
    """Work for an upload."""

    upload: Upload
    work: Callable[[], Any]
    result: "Future[Any]"

    @property
    def address(self) -> str:
        """That of the visitor."""
        return self.upload.address


class Lane:
    """A queue with one worker.

    Args:
        costs: Costs. Decides who goes first; the time of the work is added.
        most: int. How many may wait.
    """

    def __init__(self, costs: Costs, most: int) -> None:
        self._costs = costs
        self._line: Line[Job] = Line(costs, most)
        self._changed = threading.Condition()
        # A daemon, since Python waits for other threads before it ends.
        threading.Thread(target=self._work, daemon=True).start()

    def wait(self, work: Callable[[], Result], upload: Upload) -> Result:
        """Waits for the result of `work`, or until the visitor leaves."""
        result: Future[Result] = Future()
        upload.wait_for(result)
        job = Job(upload, work, result)
        with self._changed:
            leaving = self._line.join(job)
            self._changed.notify()
        if leaving and leaving.result.set_running_or_notify_cancel():
            leaving.result.set_exception(
                UploadError(
                    f"Too many pictures are waiting: try {leaving.upload.name} again later."
                )
            )
        try:
            return result.result(PATIENCE)
        except (CancelledError, TimeoutError) as error:
            result.cancel()
            raise UploadError(f"{upload.name} waited for too long: try again later.") from error
        finally:
            with self._changed:
                self._line.leave(job)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: len(self._line))
                job = self._line.first()
            if job.result.set_running_or_notify_cancel():
                started = time.monotonic()
                try:
                    done = job.work()
                except BaseException as error:
                    self._costs.add(job.address, REFUSED + time.monotonic() - started)
                    job.result.set_exception(error)
                else:
                    self._costs.add(job.address, time.monotonic() - started)
                    job.result.set_result(done)


class Decoder:
    """A process that decodes one picture at a time.

    Args:
        seconds: float. Time after which a picture is given up.
        niceness: int. How readily the process gives way to others, in 0..19. Defaults to 0.
    """

    def __init__(self, seconds: float, niceness: int = 0) -> None:
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
            return _asked(process, upload, size, expected)
        except UploadError:
            raise
        except (OSError, EOFError, ValueError) as error:  # ValueError: the file was closed
            self.end()
            raise UploadError(
                f"{upload.name} takes too long or too much memory to decode. Choose another "
                "picture, or save it as JPEG."
            ) from error
        finally:
            overtime.cancel()
            overtime.join()

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
) -> Squares | None:
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
    if "slow" in said:
        return None
    if "refused" in said:
        raise UploadError(said["refused"])
    seen, sharp = (_read(answer, side) for side in said["sides"])
    return Squares(seen, sharp, said["notice"], said["seconds"])


def _read(answer: Any, side: int) -> np.ndarray:
    pixels = answer.read(side * side * 3)
    if len(pixels) < side * side * 3:
        raise EOFError
    return np.frombuffer(pixels, np.uint8).reshape(side, side, 3)


def _available_memory() -> float:
    """Returns the memory that programs can still use, in bytes; infinite where it is unknown."""
    try:
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return float("inf")
