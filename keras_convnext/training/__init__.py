"""The training engine: recipe runs of any task that resume exactly, on TensorFlow.

Also optimizers and schedules for `model.fit` on every backend.
"""

from typing import TYPE_CHECKING

from keras_convnext.lazy import lazy_names
from keras_convnext.tensorflow_only import requiring_tensorflow

if TYPE_CHECKING:
    from keras_convnext.training.engine import fit
    from keras_convnext.training.journal import Interrupted, NonFiniteLossError
    from keras_convnext.training.loss_scale import LossScaleOptimizer
    from keras_convnext.training.machines import LostMachineError
    from keras_convnext.training.muon import Muon
    from keras_convnext.training.optimizer import AdamW
    from keras_convnext.training.recipe import Batch, Optimizer, Recipe, RecipeFamily, Schedule
    from keras_convnext.training.schedule import WarmupCosine, WarmupPolynomial, WarmupSteps
    from keras_convnext.training.task import Metric, Objective, Task

__all__ = [
    "AdamW",
    "Batch",
    "Interrupted",
    "LossScaleOptimizer",
    "LostMachineError",
    "Metric",
    "Muon",
    "NonFiniteLossError",
    "Objective",
    "Optimizer",
    "Recipe",
    "RecipeFamily",
    "Schedule",
    "Task",
    "WarmupCosine",
    "WarmupPolynomial",
    "WarmupSteps",
    "fit",
]

_RUNS = {
    "engine": ("fit",),
    "journal": ("Interrupted", "NonFiniteLossError"),
    "machines": ("LostMachineError",),
}
_NAMES = {
    **_RUNS,
    "loss_scale": ("LossScaleOptimizer",),
    "muon": ("Muon",),
    "optimizer": ("AdamW",),
    "recipe": ("Batch", "Optimizer", "Recipe", "RecipeFamily", "Schedule"),
    "schedule": ("WarmupCosine", "WarmupPolynomial", "WarmupSteps"),
    "task": ("Metric", "Objective", "Task"),
}

_get, __dir__ = lazy_names(__name__, _NAMES)

if not TYPE_CHECKING:  # otherwise type checkers would accept any attribute
    __getattr__ = requiring_tensorflow(_get, __name__, [n for own in _RUNS.values() for n in own])
