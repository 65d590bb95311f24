"""Optimizers and schedules for `model.fit` on every backend; recipe runs on TensorFlow."""

from typing import TYPE_CHECKING, Any

from keras_convnext.lazy import lazy_names

if TYPE_CHECKING:
    from keras_convnext.classification.recipes import RECIPES, Recipe
    from keras_convnext.training.journal import Interrupted, NonFiniteLossError
    from keras_convnext.training.muon import Muon
    from keras_convnext.training.optimizer import AdamW, LossScaleOptimizer
    from keras_convnext.training.planning import plan
    from keras_convnext.training.run import train
    from keras_convnext.training.schedule import WarmupCosine
    from keras_convnext.training.settings import recipe_for

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

_RUNS = {"journal": ("Interrupted", "NonFiniteLossError"), "run": ("train",)}  # in TensorFlow
_NAMES = {
    **_RUNS,
    "muon": ("Muon",),
    "optimizer": ("AdamW", "LossScaleOptimizer"),
    "planning": ("plan",),
    "recipes": ("RECIPES", "Recipe"),
    "schedule": ("WarmupCosine",),
    "settings": ("recipe_for",),
}

_get, __dir__ = lazy_names(__name__, _NAMES)

if not TYPE_CHECKING:  # otherwise type checkers would accept any attribute

    def __getattr__(name: str) -> Any:
        if any(name in names for names in _RUNS.values()):
            _require_tensorflow(name)
        return _get(name)


def _require_tensorflow(name: str) -> None:
    import keras

    if keras.config.backend() != "tensorflow":
        raise ImportError(
            f"keras_convnext.training.{name} requires the TensorFlow backend: set "
            "KERAS_BACKEND=tensorflow before importing Keras. AdamW, Muon and WarmupCosine work in "
            f"model.fit on every backend. Received: KERAS_BACKEND={keras.config.backend()}"
        )
