"""Semantic segmentation: a class for each pixel."""

from typing import TYPE_CHECKING

from keras_convnext.lazy import lazy_names
from keras_convnext.tensorflow_only import requiring_tensorflow

if TYPE_CHECKING:
    from keras_convnext.segmentation.builders import UperNet
    from keras_convnext.segmentation.cost import parts
    from keras_convnext.segmentation.evaluation import EvaluationError, evaluate
    from keras_convnext.segmentation.inference import RATIOS, predict_classes
    from keras_convnext.segmentation.loading import load_segmenter
    from keras_convnext.segmentation.planning import plan
    from keras_convnext.segmentation.prediction import (
        Area,
        Segmented,
        Windows,
        draw_segmentation,
        predict_files,
    )
    from keras_convnext.segmentation.recipes import RECIPES, Segmentation
    from keras_convnext.segmentation.scores import Scores
    from keras_convnext.segmentation.settings import recipe_for
    from keras_convnext.segmentation.source import PairSource, open_pairs
    from keras_convnext.segmentation.task import SegmentationTask, train
    from keras_convnext.segmentation.weights import (
        load_segmenter_weights,
        save_segmenter_weights,
    )

__all__ = [
    "RATIOS",
    "RECIPES",
    "Area",
    "EvaluationError",
    "PairSource",
    "Scores",
    "Segmentation",
    "SegmentationTask",
    "Segmented",
    "UperNet",
    "Windows",
    "draw_segmentation",
    "evaluate",
    "load_segmenter",
    "load_segmenter_weights",
    "open_pairs",
    "parts",
    "plan",
    "predict_classes",
    "predict_files",
    "recipe_for",
    "save_segmenter_weights",
    "train",
]

_RUNS = {"task": ("SegmentationTask", "train")}
_NAMES = {
    **_RUNS,
    "builders": ("UperNet",),
    "cost": ("parts",),
    "evaluation": ("EvaluationError", "evaluate"),
    "inference": ("RATIOS", "predict_classes"),
    "loading": ("load_segmenter",),
    "prediction": ("Area", "Segmented", "Windows", "draw_segmentation", "predict_files"),
    "planning": ("plan",),
    "recipes": ("RECIPES", "Segmentation"),
    "scores": ("Scores",),
    "settings": ("recipe_for",),
    "source": ("PairSource", "open_pairs"),
    "weights": ("load_segmenter_weights", "save_segmenter_weights"),
}

_get, __dir__ = lazy_names(__name__, _NAMES)

if not TYPE_CHECKING:  # otherwise type checkers would accept any attribute
    __getattr__ = requiring_tensorflow(_get, __name__, _RUNS["task"])
