"""Creates the folder of a run, or checks that it belongs to the same run."""

import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from keras_convnext.classification.recipes import Recipe
from keras_convnext.data.source import Source
from keras_convnext.printable import printable
from keras_convnext.training.state import write_whole


def describe(recipe: Recipe, model: str, data: str | Path, source: Source) -> dict[str, Any]:
    """Returns the properties that identify a run."""
    return {
        "model": model,
        "data": str(data),
        "images": source.size,
        "classes": len(source.classes),
        "recipe": json.loads(json.dumps(recipe._asdict())),
    }


def _read(path: Path, description: dict[str, Any]) -> dict[str, Any]:
    """Reads `run.json`, and checks that it describes a run."""
    try:
        before = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError):
        before = None
    if not isinstance(before, dict) or any(
        not isinstance(before.get(key, value), type(value)) for key, value in description.items()
    ):
        raise ValueError(
            "The file that describes this run is damaged. Choose a new folder, or put back the "
            f"original file to resume the run. Received: {printable(path)}"
        )
    return before


def claim(output: Path, description: dict[str, Any], classes: Sequence[str]) -> None:
    """Creates the folder of a run, or checks that it belongs to this run."""
    path = output / "run.json"
    if path.is_file():
        before = _read(path, description)
        # Fields added since the run was started have their default values in it.
        ours, theirs = (
            {**Recipe._field_defaults, **d, **d.get("recipe", {})} for d in (description, before)
        )
        other = [
            f"{key}={theirs.get(key)!r} in the folder, {ours[key]!r} in this call"
            for key in ours
            if key != "recipe" and ours[key] != theirs.get(key)
        ]
        if other:
            raise ValueError(
                "This folder belongs to a run with other settings. Choose a new folder, or use the "
                f"same settings to resume that run: {'; '.join(other)}. "
                f"Received: output={printable(output)}"
            )
    elif output.is_dir() and any(output.iterdir()):
        raise ValueError(
            "This folder is not empty and contains no run. Choose a new folder. "
            f"Received: output={printable(output)}"
        )
    else:
        output.mkdir(parents=True, exist_ok=True)
        versions = {
            "python": platform.python_version(),
            "keras": keras.__version__,
            "tensorflow": tf.__version__,
        }
        text = json.dumps({**description, "versions": versions}, indent=2) + "\n"
        names = "".join(f"{name}\n" for name in classes)
        write_whole(output / "classes.txt", lambda part: part.write_text(names, "utf-8"))
        write_whole(path, lambda part: part.write_text(text, "utf-8"))
