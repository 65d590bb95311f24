"""Measures how the demo page serves honest visitors beside hostile ones.

Command: `python benchmarks/demo.py [--honest 150] [--hostile 50] [--seconds 120]`. Takes 8 minutes.
Serves the network of the package with `keras-convnext demo`, on the machine that also plays the
visitors, three times: for one honest visitor, for all honest visitors, and with hostile ones beside
them. Each visitor has an address of its own, as on the internet. An honest visitor sends a
photograph, waits for the answer, and looks at it for 10 seconds. Hostile visitors pause for 0.1 s
between requests; `KINDS` in `hostile.py` lists what they do. They stand for other machines, whose
processors do not slow this one down, and so run at the lowest priority. Needs Linux.
Writes `benchmarks/results/demo.json`, or the file of `--results`.
"""

import argparse
import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from machine import Load, description
from visitors import MB, photographs, visits

RESULTS = Path(__file__).parent / "results" / "demo.json"
LIBRARIES = ("keras-convnext", "gradio", "starlette", "uvicorn", "pillow", "keras", "tensorflow")


class Server:
    """`keras-convnext demo` in a process, with a folder for its temporary files."""

    def __init__(self, *options: str) -> None:
        self.folder = Path(tempfile.mkdtemp())
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        command = [sys.executable, "-m", "keras_convnext", "demo", "--port", str(self.port)]
        environment = {**os.environ, "TMPDIR": str(self.folder), "GRADIO_TEMP_DIR": ""}
        with (self.folder.parent / f"{self.folder.name}.log").open("w") as log:
            self.process = subprocess.Popen(
                [*command, *options], env=environment, stdout=log, stderr=log
            )
        self.memory = self.disk = 0
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                if self.process.poll() is not None:
                    raise SystemExit(Path(log.name).read_text()) from None
                time.sleep(0.2)

    def watch(self) -> None:
        """Notes the memory of the server with its processes, and the disk space that it takes."""
        processes = [self.process.pid]
        for pid in processes:
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                processes += map(int, task.read_text().split())
        memory = 0
        for pid in processes:
            try:
                text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            except OSError:
                continue  # it ended
            memory += int(text.split("Pss:")[1].split()[0]) / 1024
        self.memory = max(self.memory, memory)
        self.disk = max(self.disk, self._named() + self._unnamed(processes))

    def _named(self) -> float:
        return sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file()) / MB

    def _unnamed(self, processes) -> float:
        """Files that are open, but not in the folder."""
        sizes = {}
        for pid in processes:
            for link in Path(f"/proc/{pid}/fd").glob("*"):
                try:
                    if str(self.folder) in os.readlink(link) and not link.stat().st_nlink:
                        sizes[link.stat().st_ino] = link.stat().st_size
                except OSError:
                    continue  # it was closed
        return sum(sizes.values()) / MB

    def stop(self) -> dict:
        """Ends the server as an administrator does, and returns what it took and left."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        left = self._named()
        shutil.rmtree(self.folder)
        (self.folder.parent / f"{self.folder.name}.log").unlink()
        return {
            "peak_memory_mb": round(self.memory),
            "peak_disk_mb": round(self.disk),
            "left_on_disk_mb": round(left, 1),
        }


def measure(photos: list, honest_count: int, hostile_count: int, seconds: float) -> dict:
    server = Server()
    try:
        figures = asyncio.run(
            visits(server.port, photos, honest_count, hostile_count, seconds, server.watch)
        )
    finally:
        cost = server.stop()
    return {**figures, **cost}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--honest", type=int, default=150)
    parser.add_argument("--hostile", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    load = Load()
    photos = photographs()
    one = measure(photos, 1, 0, min(options.seconds, 30))
    alone = measure(photos, options.honest, 0, options.seconds)
    mixed = measure(photos, options.honest, options.hostile, options.seconds)
    figures = {
        "machine": {**description(LIBRARIES), **load.so_far()},
        "visitors": {"honest": options.honest, "hostile": options.hostile},
        "seconds": options.seconds,
        "one_honest_visitor": one,
        "honest_visitors_alone": alone,
        "with_hostile_visitors": mixed,
        "times_as_long": {
            key.removesuffix("_s"): round(mixed[key] / alone[key], 2)
            for key in ("median_s", "p95_s", "longest_s")
        },
    }
    options.results.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
