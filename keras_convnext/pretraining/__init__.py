"""Masked pre-training of ConvNeXt V2 on images without labels.

The files have the names that every task uses: `recipes`, `network`, `input`, `losses` and `task`.
"""

from typing import TYPE_CHECKING

from keras_convnext.lazy import lazy_names
from keras_convnext.tensorflow_only import requiring_tensorflow

if TYPE_CHECKING:
    from keras_convnext.pretraining.network import MaskedBlock, autoencoder
    from keras_convnext.pretraining.pictures import draw_reconstructions
    from keras_convnext.pretraining.planning import plan
    from keras_convnext.pretraining.recipes import RECIPES, Pretraining
    from keras_convnext.pretraining.settings import recipe_for
    from keras_convnext.pretraining.task import PretrainingTask, train

__all__ = [
    "RECIPES",
    "MaskedBlock",
    "Pretraining",
    "PretrainingTask",
    "autoencoder",
    "draw_reconstructions",
    "plan",
    "recipe_for",
    "train",
]

_RUNS = {"task": ("PretrainingTask", "train"), "pictures": ("draw_reconstructions",)}
_NAMES = {
    **_RUNS,
    "network": ("MaskedBlock", "autoencoder"),
    "planning": ("plan",),
    "recipes": ("RECIPES", "Pretraining"),
    "settings": ("recipe_for",),
}

_get, __dir__ = lazy_names(__name__, _NAMES)

if not TYPE_CHECKING:  # otherwise type checkers would accept any attribute
    __getattr__ = requiring_tensorflow(_get, __name__, (*_RUNS["task"], *_RUNS["pictures"]))
