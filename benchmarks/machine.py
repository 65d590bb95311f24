"""Conditions of a measurement: the machine, the versions, and the load by other processes."""

import os
import platform
import re
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

FLAGS = (
    "avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16",
    "amx_int8",
)  # fmt: skip
# Columns of /proc/stat, see proc_stat(5).
BUSY, STEAL = (0, 1, 2, 5, 6), 7  # user, nice, system, irq, softirq; steal: time used by the host


def _output(*command: str) -> str | None:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=True, cwd=Path(__file__).parent
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _version(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def _proc(name: str, field: str) -> str | None:
    path = Path("/proc") / name
    found = path.exists() and re.search(rf"^{field}\s*:\s*(.*)$", path.read_text(), re.MULTILINE)
    return found[1] if found else None


def free_mb() -> float:
    """Returns the available memory in MB; infinite if it is unknown."""
    free = _proc("meminfo", "MemAvailable")
    return int(free.split()[0]) / 1024 if free else float("inf")


def description(libraries: tuple[str, ...]) -> dict[str, Any]:
    """Returns processor, memory, system and library versions, None for missing libraries."""
    memory = _proc("meminfo", "MemTotal")
    flags = (_proc("cpuinfo", "flags") or "").split()
    release = getattr(platform, "freedesktop_os_release", dict)
    try:
        system = release().get("PRETTY_NAME", platform.system())
    except OSError:
        system = platform.system()
    return {
        "cpu": _proc("cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "flags": [flag for flag in FLAGS if flag in flags],
        "memory_gb": memory and round(int(memory.split()[0]) / 2**20, 1),
        "gpu": _output("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"),
        "system": system,
        "python": sys.version.split()[0],
        "versions": {library: _version(library) for library in libraries},
        "commit": _output("git", "describe", "--always", "--dirty"),
    }


def _cpu_seconds() -> tuple[float, float] | None:
    """Returns the CPU time of all processes since boot, and the time stolen by the host."""
    path = Path("/proc/stat")
    if not path.exists():
        return None
    ticks, per_second = path.read_text().split()[1:], os.sysconf("SC_CLK_TCK")
    return sum(int(ticks[column]) for column in BUSY) / per_second, int(ticks[STEAL]) / per_second


class Load:
    """Measures the CPU use of other processes from its creation on."""

    def __init__(self) -> None:
        self.began, self.average = time.monotonic(), os.getloadavg()[0]
        self.cpu, self.own = _cpu_seconds(), sum(os.times()[:4])

    def so_far(self) -> dict[str, Any]:
        """Returns the load averages at the start and now, and on Linux the cores used by others.

        Stop child processes first: a running one counts as another process.
        """
        seconds, cpu = time.monotonic() - self.began, _cpu_seconds()
        figures: dict[str, Any] = {
            "load_average": [round(self.average, 1), round(os.getloadavg()[0], 1)]
        }
        if self.cpu and cpu:
            (used, withheld), own = cpu, sum(os.times()[:4]) - self.own
            others = used - self.cpu[0] - own
            figures["cores_of_other_processes"] = round(max(others, 0) / seconds, 2)
            figures["cores_withheld_by_host"] = round((withheld - self.cpu[1]) / seconds, 2)
        return figures
