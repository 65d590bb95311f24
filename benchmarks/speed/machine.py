"""What a figure depends on beside the code: the machine and the versions."""

import os
import platform
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

LIBRARIES = (
    "keras-convnext", "keras", "tensorflow", "jax", "torch", "timm", "kimm", "tf_keras",
    "keras-cv-attention-models", "onnx", "onnxruntime", "openvino", "numpy",
)  # fmt: skip
FLAGS = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")


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
    """Memory that another process can have; endless where the system does not say."""
    free = _proc("meminfo", "MemAvailable")
    return int(free.split()[0]) / 1024 if free else float("inf")


def description() -> dict:
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
        "versions": {library: _version(library) for library in LIBRARIES},
        "commit": _output("git", "describe", "--always", "--dirty"),
    }
