"""The command `doctor`."""

import os
import platform
import re
import shutil
from importlib import metadata
from pathlib import Path

import typer

from keras_convnext.cli.application import Json
from keras_convnext.cli.loading import import_backend
from keras_convnext.cli.terminal import note, write, write_facts, write_json
from keras_convnext.cli.versions import backend, version_of, versions
from keras_convnext.pretrained.folder import cache_folder, cached_files
from keras_convnext.pretrained.servers import described

NEEDED_FOR = {
    "demo": "`demo`",
    "export": "`export` to ONNX, LiteRT and OpenVINO",
    "jax": "KERAS_BACKEND=jax",
    "torch": "KERAS_BACKEND=torch",
    "train": "TensorFlow Datasets and plots in `train`",
}


def doctor(as_json: Json = False) -> None:
    """Check the installation: backend, devices, memory, cache.

    Also lists missing optional packages, and what needs them.

    The exit code is 1 if the backend does not work.
    """
    devices, problem = _devices()
    facts: dict[str, object] = {
        **versions(),
        "devices": devices,
        "processor": f"{os.cpu_count()} cores, {platform.machine()}",
        "oneDNN": _one_dnn(),
        "memory": _memory(),
        "cache": _cache(),
        "downloads": described(),
    }
    missing = {extra: packages for extra, packages in _missing().items() if extra in NEEDED_FOR}
    if as_json:
        write_json({**facts, "problem": problem, "missing": missing})
    else:
        write_facts({name: _formatted(value) for name, value in facts.items()})
        write("")
        for extra, packages in missing.items():
            if packages:
                write(
                    f"Missing for {NEEDED_FOR[extra]}: {', '.join(packages)}"
                    f'  (pip install "keras-convnext[{extra}]")'
                )
        if not any(missing.values()):
            write("All extras are installed.")
    if problem:
        note(f"Error: The backend {backend()} does not work: {problem}", "red")
        raise typer.Exit(1)


def _devices() -> tuple[list[str], str | None]:
    """Returns the devices that the backend finds, and the error if it does not work."""
    try:
        import_backend()
        import keras

        return list(map(str, keras.distribution.list_devices())), None
    except Exception as error:  # whatever a broken installation raises
        return [], f"{type(error).__name__}: {error}"


def _one_dnn() -> str:
    if backend() != "tensorflow":
        return "only used by TensorFlow"
    is_on = os.environ.get("TF_ENABLE_ONEDNN_OPTS") != "0"
    return "on" if is_on else "off (TF_ENABLE_ONEDNN_OPTS=0)"


def _memory() -> str:
    try:
        text = Path("/proc/meminfo").read_text("ascii")
    except OSError:
        return "unknown"
    sizes = {
        name: int(size) for name, size in re.findall(r"^(\w+): +(\d+) kB$", text, re.MULTILINE)
    }
    total, free = (sizes[name] / 2**20 for name in ("MemTotal", "MemAvailable"))
    return f"{free:.1f} of {total:.1f} GiB available"


def _cache() -> str:
    folder = cache_folder()
    size = sum(file.bytes for file in cached_files())
    existing = next(place for place in (folder, *folder.parents) if place.is_dir())
    state = "" if os.access(existing, os.W_OK) else ", read-only"
    free = shutil.disk_usage(existing).free
    return f"{folder}: {size / 1e6:,.1f} MB, {free / 1e9:,.1f} GB free{state}"


def _missing() -> dict[str, list[str]]:
    """Returns the packages of each extra that are not installed."""
    missing: dict[str, list[str]] = {}
    for line in metadata.requires("keras-convnext") or ():
        found = re.match(r"([\w.-]+)([^;]*); extra == ['\"](\w+)['\"]", line)
        if found:
            name, _, extra = found.groups()
            packages = missing.setdefault(extra, [])
            if version_of(name) is None:
                packages.append(name)
    return missing


def _formatted(value: object) -> str:
    return (", ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)
