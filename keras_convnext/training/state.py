"""What a run needs to go on as if it had never stopped, in one file that holds numbers alone."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import keras
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

KEPT = 3
_PATTERN = "update-*.safetensors"


@dataclass
class Progress:
    """How far a run has come.

    Args:
        updates: int. Updates of the weights made.
        rows: list of dict. What was measured, a row for each epoch that is done.
        best: dict. The best accuracy on the validation images so far, by kind of weights.
    """

    updates: int = 0
    rows: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, float] = field(default_factory=dict)


def save_state(folder: Path, values: dict[str, np.ndarray], progress: Progress) -> Path:
    """Writes the state of a run, whole or not at all, and removes all but the last three.

    Args:
        folder: path.
        values: dict. What `state_of` returned.
        progress: Progress.

    Returns:
        The file, a path.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _PATTERN.replace("*", f"{progress.updates:09d}")
    write_whole(
        path, lambda part: save_file(values, part, {"progress": json.dumps(asdict(progress))})
    )
    for old in saved_states(folder)[KEPT:]:
        old.unlink()
    return path


def state_of(model: keras.Model) -> dict[str, np.ndarray]:
    """Reads what a step changes: of the network, optimizer, random generators and metrics.

    On several machines all of them have to call it: what was measured is summed over them.

    Args:
        model: keras.Model. Compiled, its optimizer and metrics built.
    """
    return {
        name: np.array(keras.ops.convert_to_numpy(variable), order="C")
        for name, variable in _variables(model).items()
    }


def restore_state(path: Path, model: keras.Model) -> Progress:
    """Takes a model, its optimizer and its random generators back to where a file has them.

    Raises:
        ValueError: If the file is damaged, or is of another network or optimizer.
    """
    variables = _variables(model)
    try:
        with safe_open(path, "numpy") as file:
            names = file.keys()
            held = {name: tuple(file.get_slice(name).get_shape()) for name in names}
            own = {name: tuple(variable.shape) for name, variable in variables.items()}
            if other := sorted(dict(held.items() ^ own.items())):
                raise ValueError(
                    f"This state is of another network or optimizer: {', '.join(other[:3])} "
                    f"is not the same in both. Received: {path}"
                )
            for name, variable in variables.items():
                variable.assign(file.get_tensor(name))
            return Progress(**json.loads(file.metadata()["progress"]))
    except (SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"Not a state that can be read: {error}. Received: {path}") from error


def saved_states(folder: Path) -> list[Path]:
    """Lists the states in a folder, the newest first."""
    return sorted(folder.glob(_PATTERN), reverse=True)


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Writes a file aside and moves it in place once it is safe on the disk."""
    part = path.with_name(f".part-{path.name}")
    write(part)
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)


def _variables(model: keras.Model) -> dict[str, keras.Variable]:
    """All that a step changes, and what it has measured in this epoch so far.

    Names of layers are part of a name; those that Keras counts up in a process are not.
    """
    kept = {id(weight) for weight in model.weights}
    measured = [variable for metric in model.metrics for variable in metric.variables]
    random = [
        variable
        for layer in model._flatten_layers(include_self=False)
        for variable in layer.variables
        if id(variable) not in kept
    ]
    optimizer = model.optimizer
    return {
        **{f"model/{weight.path}": weight for weight in model.weights},
        **{f"random/{index}": variable for index, variable in enumerate(random)},
        **{f"metrics/{index}": variable for index, variable in enumerate(measured)},
        **{f"optimizer/{index}": variable for index, variable in enumerate(optimizer.variables)},
    }
