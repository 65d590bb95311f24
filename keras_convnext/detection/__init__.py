"""Detection: objects, their boxes, and their masks."""

from typing import TYPE_CHECKING

from keras_convnext.lazy import lazy_names
from keras_convnext.tensorflow_only import requiring_tensorflow

if TYPE_CHECKING:
    from keras_convnext.detection.builders import CascadeMaskRCNN, MaskRCNN
    from keras_convnext.detection.coco import read_coco
    from keras_convnext.detection.cost import parts
    from keras_convnext.detection.drawing import draw_detections
    from keras_convnext.detection.evaluation import Scores, evaluate
    from keras_convnext.detection.loading import load_detector
    from keras_convnext.detection.masks import decode_rle, encode_rle, paste_mask
    from keras_convnext.detection.objects import Annotation, Objects, Picture
    from keras_convnext.detection.planning import plan
    from keras_convnext.detection.prediction import Detections, detect
    from keras_convnext.detection.recipes import RECIPES, Detection
    from keras_convnext.detection.rotated.drawing import draw_rotated
    from keras_convnext.detection.rotated.evaluation import evaluate_rotated, write_submission
    from keras_convnext.detection.rotated.folders import open_rotated
    from keras_convnext.detection.rotated.geometry import from_points, to_convention, to_points
    from keras_convnext.detection.rotated.iou import pairwise_rotated_iou, rotated_iou
    from keras_convnext.detection.rotated.network import RotatedRetinaNet
    from keras_convnext.detection.rotated.objects import (
        RotatedObject,
        RotatedObjects,
        RotatedPicture,
    )
    from keras_convnext.detection.rotated.prediction import RotatedDetections, detect_rotated
    from keras_convnext.detection.rotated.scores import RotatedScores, scores_of_rotated
    from keras_convnext.detection.rotated.suppression import suppress_rotated
    from keras_convnext.detection.rotated.tiling import Tiled, write_tiles
    from keras_convnext.detection.settings import recipe_for
    from keras_convnext.detection.splits import open_objects
    from keras_convnext.detection.task import DetectionTask, train
    from keras_convnext.detection.weights import load_detector_weights, save_detector_weights

__all__ = [
    "RECIPES",
    "Annotation",
    "CascadeMaskRCNN",
    "Detection",
    "DetectionTask",
    "Detections",
    "MaskRCNN",
    "Objects",
    "Picture",
    "RotatedDetections",
    "RotatedObject",
    "RotatedObjects",
    "RotatedPicture",
    "RotatedRetinaNet",
    "RotatedScores",
    "Scores",
    "Tiled",
    "decode_rle",
    "detect",
    "detect_rotated",
    "draw_detections",
    "draw_rotated",
    "encode_rle",
    "evaluate",
    "evaluate_rotated",
    "from_points",
    "load_detector",
    "load_detector_weights",
    "open_objects",
    "open_rotated",
    "pairwise_rotated_iou",
    "parts",
    "paste_mask",
    "plan",
    "read_coco",
    "recipe_for",
    "rotated_iou",
    "save_detector_weights",
    "scores_of_rotated",
    "suppress_rotated",
    "to_convention",
    "to_points",
    "train",
    "write_submission",
    "write_tiles",
]

_RUNS = {"task": ("DetectionTask", "train")}
_NAMES = {
    **_RUNS,
    "builders": ("CascadeMaskRCNN", "MaskRCNN"),
    "coco": ("read_coco",),
    "cost": ("parts",),
    "drawing": ("draw_detections",),
    "evaluation": ("Scores", "evaluate"),
    "loading": ("load_detector",),
    "masks": ("decode_rle", "encode_rle", "paste_mask"),
    "objects": ("Annotation", "Objects", "Picture"),
    "planning": ("plan",),
    "prediction": ("Detections", "detect"),
    "recipes": ("RECIPES", "Detection"),
    "rotated.drawing": ("draw_rotated",),
    "rotated.evaluation": ("evaluate_rotated", "write_submission"),
    "rotated.folders": ("open_rotated",),
    "rotated.geometry": ("from_points", "to_convention", "to_points"),
    "rotated.iou": ("pairwise_rotated_iou", "rotated_iou"),
    "rotated.network": ("RotatedRetinaNet",),
    "rotated.objects": ("RotatedObject", "RotatedObjects", "RotatedPicture"),
    "rotated.prediction": ("RotatedDetections", "detect_rotated"),
    "rotated.scores": ("RotatedScores", "scores_of_rotated"),
    "rotated.suppression": ("suppress_rotated",),
    "rotated.tiling": ("Tiled", "write_tiles"),
    "settings": ("recipe_for",),
    "splits": ("open_objects",),
    "weights": ("load_detector_weights", "save_detector_weights"),
}

_get, __dir__ = lazy_names(__name__, _NAMES)

if not TYPE_CHECKING:  # otherwise type checkers would accept any attribute
    __getattr__ = requiring_tensorflow(_get, __name__, _RUNS["task"])
