"""Optimizers and schedules for `model.fit` on every backend, and recipe runs on TensorFlow."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

import keras

from keras_convnext.training.muon import Muon
from keras_convnext.training.optimizer import AdamW, LossScaleOptimizer
from keras_convnext.training.planning import plan
from keras_convnext.training.recipes import RECIPES, Recipe
from keras_convnext.training.schedule import WarmupCosine
from keras_convnext.training.settings import recipe_for

if TYPE_CHECKING:
    from keras_convnext.training.journal import Interrupted, NonFiniteLossError
    from keras_convnext.training.run import train

__all__ = [
    "RECIPES",
    "AdamW",
    "Interrupted",
    "LossScaleOptimizer",
    "Muon",
    "NonFiniteLossError",
    "Recipe",
    "WarmupCosine",
    "plan",
    "recipe_for",
    "train",
]

# They import TensorFlow, which JAX and PyTorch do without.
_RUNS = {"Interrupted": "journal", "NonFiniteLossError": "journal", "train": "run"}


def __getattr__(name: str) -> Any:
    if name not in _RUNS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if keras.config.backend() != "tensorflow":
        raise ImportError(
            f"keras_convnext.training.{name} needs Keras on TensorFlow: set "
            "KERAS_BACKEND=tensorflow before Keras is imported. AdamW, Muon and WarmupCosine work "
            f"in model.fit on every backend. Received: KERAS_BACKEND={keras.config.backend()}"
        )
    return getattr(import_module(f"{__name__}.{_RUNS[name]}"), name)
