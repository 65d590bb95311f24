"""Saves the state of a run, from which it resumes exactly, in one file that contains only data."""

import dataclasses
import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import keras
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from keras_convnext.printable import printable

KEPT = 3
_PATTERN = "update-*.safetensors"


@dataclass
class Progress:
    """The progress of a run.

    Args:
        updates: int. Number of weight updates made.
        rows: list of dict. The metrics of each finished epoch.
        best: dict. The best validation accuracy so far, for the weights and their average.
    """

    updates: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, float] = field(default_factory=dict)


def save_state(folder: Path, values: dict[str, np.ndarray], progress: Progress) -> Path:
    """Writes the state of a run atomically, and removes all but the last three states.

    Args:
        folder: path. The folder of the states.
        values: dict. The result of `state_of`.
        progress: Progress. The progress of the run.

    Returns:
        Path of the file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = state_path(folder, progress.updates)
    write_whole(
        path, lambda part: save_file(values, part, {"progress": json.dumps(asdict(progress))})
    )
    for old in saved_states(folder)[KEPT:]:
        old.unlink()
    return path


def state_of(model: keras.Model) -> dict[str, np.ndarray]:
    """Returns all values that a step changes: network, optimizer, seed generators and metrics.

    With several machines, all of them must call this, because metrics are summed over them.

    Args:
        model: keras.Model. A compiled model with built optimizer and metrics.
    """
    return {
        name: np.array(keras.ops.convert_to_numpy(variable), order="C")
        for name, variable in _variables(model).items()
    }


def check_state(path: Path, model: keras.Model) -> Progress:
    """Returns the progress that a file records, without restoring the state.

    Raises:
        ValueError: If the file is damaged or belongs to another network or optimizer.
    """
    own = {name: tuple(variable.shape) for name, variable in _variables(model).items()}
    try:
        with safe_open(path, "numpy") as file:
            progress = _progress_of(file.metadata() or {}, path)
            names = file.keys()
            held = {name: tuple(file.get_slice(name).get_shape()) for name in names}
    except SafetensorError as error:
        raise ValueError(
            f"The state cannot be read: {printable(error)}. Received: {printable(path)}"
        ) from error
    if other := sorted(dict(held.items() ^ own.items())):
        raise ValueError(
            "This state belongs to another network or optimizer: "
            f"{printable(', '.join(other[:3]))} do not match. Received: {printable(path)}"
        )
    return progress


def restore_state(path: Path, model: keras.Model) -> Progress:
    """Restores the state of a model, its optimizer and its seed generators from a file.

    With several machines, all of them must call this together.

    Raises:
        ValueError: If the file is damaged or belongs to another network or optimizer.
    """
    progress = check_state(path, model)
    with safe_open(path, "numpy") as file:
        for name, variable in _variables(model).items():
            variable.assign(file.get_tensor(name))
    return progress


def _progress_of(metadata: dict[str, str], path: Path) -> Progress:
    """Reads the progress from the metadata of a state, and checks its types."""
    try:
        kept = json.loads(metadata.get("progress", ""))
    except (json.JSONDecodeError, RecursionError):
        kept = None
    fields = {each.name for each in dataclasses.fields(Progress)}
    if not isinstance(kept, dict) or kept.keys() != fields:
        raise ValueError(f"The state does not record its progress. Received: {printable(path)}")
    progress = Progress(**kept)
    # The name of the file counts the updates too.
    is_counted = type(progress.updates) is int and state_path(path.parent, progress.updates) == path
    if not is_counted or not _are_numbers(progress.best) or not isinstance(progress.rows, list):
        raise ValueError(
            f"The state records an impossible progress. Received: updates={progress.updates!r}, "
            f"{printable(path)}"
        )
    if not all(map(_are_numbers, progress.rows)):
        raise ValueError(
            f"The state records measurements that are no numbers. Received: {printable(path)}"
        )
    # The names become the header of `log.csv`, where a spreadsheet would execute a formula.
    columns = progress.rows[-1].keys() if progress.rows else {"epoch"}
    if (
        not all(name.isprintable() and re.match(r"\w", name) for name in columns)
        or not all("epoch" in row and row.keys() <= columns for row in progress.rows)
    ):  # fmt: skip
        raise ValueError(
            f"The state records measurements with other names. Received: {printable(path)}"
        )
    return progress


def _are_numbers(values: object) -> bool:
    return isinstance(values, dict) and all(type(each) in (int, float) for each in values.values())


def state_path(folder: Path, updates: int) -> Path:
    """Returns the file of the state after a number of updates."""
    return folder / _PATTERN.replace("*", f"{updates:09d}")


def saved_states(folder: Path) -> list[Path]:
    """Lists the states in a folder, newest first."""
    return sorted(folder.glob(_PATTERN), reverse=True)


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a temporary file, and renames it once it has been synced to disk.

    Raises:
        OSError: If the file cannot be written, for example because the disk is full. An earlier
            file of this name is kept.
    """
    part = path.with_name(f".part-{path.name}")
    try:
        write(part)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    except (OSError, SafetensorError) as error:
        raise OSError(
            f"The file cannot be written: {getattr(error, 'strerror', None) or error}. Free disk "
            "space or change the permissions, and run the same command to resume from the last "
            f"state. Received: {printable(path)}"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def _variables(model: keras.Model) -> dict[str, keras.Variable]:
    """Returns all variables that a step changes, including the metrics of the current epoch.

    Weights are named by their layers; names that Keras numbers per process are not used.
    """
    kept = {id(weight) for weight in model.weights}
    measured = [variable for metric in model.metrics for variable in metric.variables]
    random = [
        variable
        for layer in model._flatten_layers(include_self=False)
        for variable in layer.variables
        if id(variable) not in kept
    ]
    optimizer, statistics = model.optimizer, getattr(model, "statistics", None)
    averaged = zip(statistics.weights, statistics.averages) if statistics else ()
    return {
        **{f"model/{weight.path}": weight for weight in model.weights},
        **{f"average/{weight.path}": average for weight, average in averaged},
        **{f"random/{index}": variable for index, variable in enumerate(random)},
        **{f"metrics/{index}": variable for index, variable in enumerate(measured)},
        **{f"optimizer/{index}": variable for index, variable in enumerate(optimizer.variables)},
    }
