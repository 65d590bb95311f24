"""Rotated boxes: their geometry, the network that finds them, and its data, scores and recipes.

`keras_convnext.detection` has the public names of networks, data and scores; this package has those
of training.
"""

from typing import TYPE_CHECKING

from keras_convnext.lazy import lazy_names
from keras_convnext.tensorflow_only import requiring_tensorflow

if TYPE_CHECKING:
    from keras_convnext.detection.rotated.planning import plan
    from keras_convnext.detection.rotated.recipes import RECIPES, RotatedDetection
    from keras_convnext.detection.rotated.settings import recipe_for
    from keras_convnext.detection.rotated.task import RotatedDetectionTask, train

__all__ = ["RECIPES", "RotatedDetection", "RotatedDetectionTask", "plan", "recipe_for", "train"]

_RUNS = {"task": ("RotatedDetectionTask", "train")}
_NAMES = {
    **_RUNS,
    "planning": ("plan",),
    "recipes": ("RECIPES", "RotatedDetection"),
    "settings": ("recipe_for",),
}

_get, __dir__ = lazy_names(__name__, _NAMES)

if not TYPE_CHECKING:  # otherwise type checkers would accept any attribute
    __getattr__ = requiring_tensorflow(_get, __name__, _RUNS["task"])
