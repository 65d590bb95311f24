"""Semantic segmentation: a class for each pixel."""

from typing import TYPE_CHECKING

from keras_convnext.lazy import lazy_names

if TYPE_CHECKING:
    from keras_convnext.segmentation.builders import UperNet
    from keras_convnext.segmentation.cost import parts
    from keras_convnext.segmentation.evaluation import evaluate, predict_classes
    from keras_convnext.segmentation.loading import load_segmenter
    from keras_convnext.segmentation.prediction import (
        Area,
        Segmented,
        Windows,
        draw_segmentation,
        predict_files,
    )
    from keras_convnext.segmentation.scores import Scores
    from keras_convnext.segmentation.weights import (
        load_segmenter_weights,
        save_segmenter_weights,
    )

__all__ = [
    "Area",
    "Scores",
    "Segmented",
    "UperNet",
    "Windows",
    "draw_segmentation",
    "evaluate",
    "load_segmenter",
    "load_segmenter_weights",
    "parts",
    "predict_classes",
    "predict_files",
    "save_segmenter_weights",
]

_NAMES = {
    "builders": ("UperNet",),
    "cost": ("parts",),
    "evaluation": ("evaluate", "predict_classes"),
    "loading": ("load_segmenter",),
    "prediction": ("Area", "Segmented", "Windows", "draw_segmentation", "predict_files"),
    "scores": ("Scores",),
    "weights": ("load_segmenter_weights", "save_segmenter_weights"),
}

if not TYPE_CHECKING:  # or type checkers would accept any attribute
    __getattr__, __dir__ = lazy_names(__name__, _NAMES)
