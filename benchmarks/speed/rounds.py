"""Runs the contestants of a case in turns: one process each, only one of them active."""

import contextlib
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from contestants import WRITERS, Case, Contestant
from machine import free_mb

WORKER = Path(__file__).with_name("worker.py")
REPOSITORY = WORKER.parents[2]
START_TIMEOUT = 1800  # seconds, for building and compiling
MIN_TURNS, TURN_LIMIT = 3, 60  # a contestant is done after these turns and seconds in total
SETTLE = 0.2  # seconds, until the threads of the previous contestant are idle
MARGIN_MB = 1500


class Failure(Exception):
    """The reason why a contestant is not measured."""


class Worker:
    """Starts `worker.py` and communicates with it."""

    def __init__(self, task: str, device: str, row: Contestant, case: Case, folder: str) -> None:
        paths = [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
        environment = {
            "TF_CPP_MIN_LOG_LEVEL": "3",
            **os.environ,
            # Kernels that torch.compile cached under other settings have crashed later runs.
            "TORCHINDUCTOR_CACHE_DIR": os.path.join(folder, "inductor"),
            **(WRITERS[row.network][0] if task == "write" else row.stack).environment,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        }
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER), task, device, row.name, json.dumps(case), folder],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
            text=True,
        )  # fmt: skip
        self.ready = self._answer()

    def turn(self, seconds: float) -> dict[str, Any]:
        with contextlib.suppress(BrokenPipeError):  # it has ended; `_answer` reports why
            self.process.stdin.write(f"{seconds}\n")
            self.process.stdin.flush()
        return self._answer()

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.errors.close()

    def _answer(self) -> dict[str, Any]:
        timer = threading.Timer(START_TIMEOUT, self.process.kill)
        timer.daemon = True  # so that an interrupt does not wait for it
        timer.start()
        line = self.process.stdout.readline()
        timer.cancel()
        answer = json.loads(line) if line else {"error": self._last_words()}
        if "error" in answer:
            self.stop()
            first = answer["error"].strip().splitlines()[0]
            raise Failure(first.replace(sys.prefix, "...")[:160])
        return answer

    def _last_words(self) -> str:
        code = self.process.wait()
        if code == -9:
            return f"killed: out of memory, or no answer within {START_TIMEOUT} s"
        self.errors.seek(0)
        lines = self.errors.read().strip().splitlines() or ["no reason given"]
        return f"ended with code {code}: {lines[-1]}"


def absent(row: Contestant) -> str | None:
    """Returns a message about missing modules of a contestant, or None."""
    stacks = [row.stack, WRITERS.get(row.network, (row.stack,))[0]]
    names = dict.fromkeys(name for stack in stacks for name in stack.modules)
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    return f"not installed: {', '.join(missing)}" if missing else None


class Race:
    """One case: its running workers, its failures and its figures."""

    def __init__(self, device: str, case: Case, rows: list[Contestant], folder: str) -> None:
        self.device, self.rows, self.folder = device, rows, folder
        self.cases = {row.name: case for row in rows}
        self.workers: dict[str, Worker] = {}  # running, the most recent at the end
        self.writers: set[Any] = set()  # those that have written their files
        self.figures: dict[str, dict[str, Any]] = {
            row.name: {"library": row.library, "way": row.way} for row in rows
        }

    def run(self, rounds: int, seconds: float) -> dict[str, dict[str, Any]]:
        """Runs round by round on a CPU, and one contestant after the other on a GPU.

        The memory of a GPU is enough for only one contestant.
        """
        turns = [row for _ in range(rounds) for row in self.rows]
        if self.device == "gpu":
            turns.sort(key=self.rows.index)
        try:
            for row in turns:
                figures = self.figures[row.name]
                done = figures.get("turns", [])
                if "error" in figures or (len(done) >= MIN_TURNS and sum(done) > TURN_LIMIT):
                    continue
                try:
                    self._turn(row, seconds)
                except Failure as failure:
                    figures["error"] = str(failure)
                    print(f"  {row.name}: not measured: {failure}", flush=True)
        finally:
            for worker in self.workers.values():
                worker.stop()
        return self.figures

    def _turn(self, row: Contestant, seconds: float) -> None:
        worker = self.workers.pop(row.name, None) or self._started(row)
        time.sleep(SETTLE)
        answer = worker.turn(seconds)
        self.workers[row.name] = worker
        figures = self.figures[row.name]
        figures.setdefault("turns", []).append(statistics.median(answer.pop("seconds")))
        figures |= {**answer, "batch": self.cases[row.name].batch}

    def _started(self, row: Contestant) -> Worker:
        if reason := absent(row):
            raise Failure(reason)
        self._make_room()
        case = self.cases[row.name]
        writer = WRITERS.get(row.network, (None, None))[1]
        if writer not in {None, *self.writers}:
            Worker("write", self.device, row, case, self.folder).stop()
            self.writers.add(writer)
        try:
            worker = Worker("compete", self.device, row, case, self.folder)
        except Failure as failure:
            full = "out of memory" in str(failure).lower()
            if not (self.device == "gpu" and full and case.batch > 1):
                raise
            self.cases[row.name] = case._replace(batch=case.batch // 2)
            return self._started(row)
        if "first_s" not in self.figures[row.name]:
            self.figures[row.name] |= worker.ready
            print(f"  {row.name}: ready", flush=True)
        return worker

    def _make_room(self) -> None:
        """Stops the most recent workers until the largest fits: their next turn is farthest."""
        largest = max((figures.get("peak_mb") or 0 for figures in self.figures.values()), default=0)
        while self.workers and (self.device == "gpu" or free_mb() < 1.2 * largest + MARGIN_MB):
            self.workers.popitem()[1].stop()
