"""The tasks, and which of them a recipe or a file belongs to."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.training.recipe import RecipeFamily
from keras_convnext.training.settings import unknown

TASKS = (
    "classification",
    "segmentation",
    "detection",
    "detection.rotated",
    "pretraining",
)  # packages with the same public names


def recipes() -> Mapping[str, RecipeFamily[Any]]:
    """Returns the recipes of all tasks by name."""
    return {name: family for task in map(_package, TASKS) for name, family in task.RECIPES.items()}


def task_of_recipe(name: str) -> ModuleType:
    """Returns the package of the task that a recipe trains.

    Raises:
        ValueError: If there is no such recipe.
    """
    for task in map(_package, TASKS):
        if name in task.RECIPES:
            return task
    raise unknown("recipe", name, recipes())


def task_of_file(path: Path, **reading: Any) -> ModuleType:
    """Returns the package of the task of a weight file, as `task_name` finds it.

    Raises:
        CheckpointError: As in `task_name`.
    """
    return _package(task_name(path, **reading))


def task_name(path: Path, **reading: Any) -> str:
    """Returns the name in `TASKS` of the task of a weight file.

    It is the one that the file records, or else that of its dense head, or else classification.

    Args:
        path: path.
        **reading: `entry`, `prefix` and `ignore`, as in `identify`.

    Raises:
        CheckpointError: If the file is damaged, or for a task that this version does not have.
    """
    from keras_convnext.pretrained.dense_heads import HEADS  # which imports h5py
    from keras_convnext.pretrained.identify import head_of_file
    from keras_convnext.pretrained.record import read_record

    head = HEADS.get(head_of_file(path, **reading))
    name = read_record(path).task or (head.task if head else TASKS[0])
    if name not in TASKS:
        raise CheckpointError(
            f"This file is for the task {name!r}, which this version does not have. Upgrade "
            f"keras_convnext. It has {', '.join(TASKS)} (file: {path})"
        )
    return name


def _package(name: str) -> ModuleType:
    return import_module(f"keras_convnext.{name}")
