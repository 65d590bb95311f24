"""Creates the folder of a run, or checks that it belongs to the same run."""

import json
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import filelock
import keras
import tensorflow as tf

import keras_convnext
from keras_convnext.printable import printable
from keras_convnext.training.layout import Layout
from keras_convnext.training.recipe import Recipe
from keras_convnext.training.settings import flat
from keras_convnext.training.state import write_whole
from keras_convnext.training.task import Task

LOCK = ".lock"


def describe(recipe: Recipe, task: Task) -> dict[str, Any]:
    """Returns the properties that identify a run, as values for JSON."""
    found = {**task.describe(), "recipe": flat(recipe)}
    return dict(json.loads(json.dumps(found)))


def check_folder(output: Path, description: Mapping[str, Any]) -> None:
    """Checks that a folder is new, or belongs to the run with this description.

    Raises:
        ValueError: If the folder belongs to another run, or contains something else.
    """
    path = output / "run.json"
    if path.is_file():
        _check(path, description)
    elif output.is_dir() and any(entry.name != LOCK for entry in output.iterdir()):
        raise ValueError(
            "This folder is not empty and contains no run. Choose a new folder. "
            f"Received: output={printable(output)}"
        )


def claim(output: Path, description: Mapping[str, Any], files: Mapping[str, str]) -> None:
    """Describes a run in a new folder, or checks that the folder belongs to this run.

    Args:
        output: path. The folder.
        description: dict. What identifies the run, from `describe`.
        files: dict from names to texts. Files to put into a new folder.

    Raises:
        ValueError: If the folder belongs to another run, or contains something else.
    """
    check_folder(output, description)
    path = output / "run.json"
    if path.is_file():
        return
    versions = {
        "python": platform.python_version(),
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "keras_convnext": keras_convnext.__version__,
    }
    texts = {**files, path.name: json.dumps({**description, "versions": versions}, indent=2) + "\n"}
    for name, text in texts.items():  # run.json last: without it, the folder is not a run
        write_whole(output / name, partial(Path.write_text, data=text, encoding="utf-8"))


def _check(path: Path, description: Mapping[str, Any]) -> None:
    before = _read(path, description)
    ours, theirs = ({**each, **each["recipe"]} for each in (description, before))
    other = [
        f"{key}={theirs.get(key)!r} in the folder, {ours[key]!r} in this call"
        for key in ours
        # Fields that did not exist when the run was started have no influence on it.
        if key != "recipe" and key in theirs and ours[key] != theirs[key]
    ]
    if other:
        raise ValueError(
            "This folder belongs to a run with other settings or data. Choose a new folder, or use "
            f"the same to resume that run: {'; '.join(other)}. "
            f"Received: output={printable(path.parent)}"
        )


def _read(path: Path, description: Mapping[str, Any]) -> dict[str, Any]:
    """Reads `run.json`, and checks that it describes a run."""
    try:
        before = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError):
        before = None
    if (
        not isinstance(before, dict)
        or not isinstance(before.get("recipe"), dict)
        or any(
            not isinstance(before.get(key, value), type(value))
            for key, value in description.items()
        )
    ):
        raise ValueError(
            "The file that describes this run is damaged. Choose a new folder, or put back the "
            f"original file to resume the run. Received: {printable(path)}"
        )
    if "learning_rate" in before["recipe"]:
        raise ValueError(
            "This run was started by an earlier version, whose recipes had other fields. Finish it "
            "with that version, or start a new run from its weights in a new folder, with "
            f"start={printable(path.parent / 'best.keras')}. Received: {printable(path)}"
        )
    return before


@contextmanager
def held(output: Path, layout: Layout) -> Iterator[None]:
    """Keeps other runs out of a folder within a `with` block.

    Raises:
        ValueError: If another run is using the folder.
    """
    if not layout.is_chief:
        yield
        return
    output.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(output / LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise ValueError(
            "Another run is using this folder. Wait for it to end, or choose another folder. "
            f"Received: output={printable(output)}"
        ) from None
    try:
        yield
    finally:
        lock.release()
