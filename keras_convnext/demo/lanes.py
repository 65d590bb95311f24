"""Who waits for whom: ordinary pictures, slow pictures and the network each have a queue.

An ordinary picture waits for those before it, never for a slow one, nor for one from an address
that has cost much. Pictures are decoded in two processes, or in one where memory is scarce.
"""

import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, TimeoutError
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from keras_convnext.demo.answers import Answer, Served, answered
from keras_convnext.demo.costs import REFUSED, Costs, Line
from keras_convnext.demo.decoder import MOST_MEMORY, UploadError
from keras_convnext.demo.process import Decoder
from keras_convnext.demo.uploads import Upload

QUICK = 1.0  # an ordinary picture is expected to take at most this many seconds
QUICK_SECONDS, SLOW_SECONDS = 10, 30  # until the process that decodes a picture is ended
SLOW_NICENESS = 10  # a slow picture gets about a tenth of the time of the others
SLOW_SHARE = 0.1  # of a core, while others are served
MOST_WAITING = 256  # visitors at a time
MOST_SLOW = 10  # slow pictures that may wait
CLASSIFY = 0.05  # seconds that a classification counts as, whatever the network takes
SOON = 1.0  # seconds until it is noticed that nobody else is served
PATIENCE = 120  # seconds that a picture may wait in one queue

Result = TypeVar("Result")


class Lanes:
    """Classifies or segments uploads of many visitors, or finds their objects.

    Args:
        served: Classifier, Segmenter or Detector.
    """

    def __init__(self, served: Served) -> None:
        self.costs = Costs()
        self.served = served
        self._quick, self._network = (Lane(self.costs, MOST_WAITING) for _ in range(2))
        if _available_memory() > 2 * MOST_MEMORY:
            slow = Decoder(self.costs, SLOW_SECONDS, SLOW_NICENESS, SLOW_SHARE)
            self._slow = Lane(self.costs, MOST_SLOW, slow.pause)
            self._decoders = [Decoder(self.costs, QUICK_SECONDS), slow]
        else:
            self._slow = self._quick
            self._decoders = [Decoder(self.costs, SLOW_SECONDS)]

    def answer(self, upload: Upload) -> Answer:
        """Waits, and classifies or segments an upload, or finds its objects.

        Raises:
            UploadError: As in `answer`, if the picture takes too long to decode, or if too many
                visitors are waiting.
        """
        first, last = self._decoders[0], self._decoders[-1]
        size = self.served.size
        squares = self._quick.wait(partial(first.decode, upload, size, QUICK), upload)
        squares = squares or self._slow.wait(partial(last.decode, upload, size), upload)
        assert squares, "Only a decoder with an expectation declines."
        self.costs.add(upload.address, CLASSIFY)
        return self._network.wait(partial(answered, self.served, squares), upload)

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
        costs: Costs. Decides who goes first.
        most: int. How many may wait.
        pause: callable or None. Returns the seconds until it may work while others are served.
            Defaults to None: no pauses.
    """

    def __init__(self, costs: Costs, most: int, pause: Callable[[], float] | None = None) -> None:
        self._costs = costs
        self._pause = pause or (lambda: 0.0)
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
            self._costs.add(leaving.address, REFUSED)
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

    def _next(self) -> Job:
        """Waits for work and for the end of a pause, and returns the next job."""
        with self._changed:
            while True:
                self._changed.wait_for(lambda: len(self._line))
                job = self._line.first()
                pause = 0 if self._costs.is_alone(job.address) else self._pause()
                if pause <= 0:
                    self._line.leave(job)
                    return job
                self._changed.wait(min(pause, SOON))

    def _work(self) -> None:
        while True:
            job = self._next()
            if job.result.set_running_or_notify_cancel():
                try:
                    job.result.set_result(job.work())
                except BaseException as error:
                    job.result.set_exception(error)


def _available_memory() -> float:
    """Returns the memory that programs can still use, in bytes; infinite where it is unknown."""
    try:
        fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return float("inf")
