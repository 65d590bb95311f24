"""A recipe run: data, augmentation, optimizer, `model.fit`. It takes TensorFlow."""

from keras_convnext.training.journal import Interrupted, NonFiniteLossError
from keras_convnext.training.muon import Muon
from keras_convnext.training.optimizer import AdamW, LossScaleOptimizer
from keras_convnext.training.planning import plan
from keras_convnext.training.recipes import RECIPES, Recipe
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
