"""Versions of the installed packages, found without importing them."""

import json
import os
import platform
from importlib import metadata
from pathlib import Path

import keras_convnext

_DISTRIBUTIONS = ("keras", "tensorflow", "jax", "torch", "numpy")


def backend() -> str:
    """Returns the backend that Keras will use, by Keras' rules."""
    chosen = os.environ.get("KERAS_BACKEND")
    if chosen:
        return chosen
    home = Path(os.environ.get("KERAS_HOME") or os.path.expanduser("~/.keras"))
    try:
        settings = json.loads((home / "keras.json").read_text("utf-8"))
    except (OSError, ValueError):
        return "tensorflow"
    return (
        str(settings.get("backend", "tensorflow")) if isinstance(settings, dict) else "tensorflow"
    )


def version_of(distribution: str) -> str | None:
    """Returns the version of an installed package, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, str]:
    """Returns the versions to include in a bug report."""
    found = {name: version_of(name) for name in _DISTRIBUTIONS}
    return {
        "keras-convnext": keras_convnext.__version__,
        **{name: version for name, version in found.items() if version is not None},
        "backend": backend(),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
