"""Detection: objects, their boxes, and their masks."""

from typing import TYPE_CHECKING

from keras_convnext.lazy import lazy_names

if TYPE_CHECKING:
    from keras_convnext.detection.builders import CascadeMaskRCNN, MaskRCNN
    from keras_convnext.detection.coco import read_coco
    from keras_convnext.detection.evaluation import Scores, evaluate
    from keras_convnext.detection.loading import load_detector
    from keras_convnext.detection.masks import decode_rle, encode_rle, paste_mask
    from keras_convnext.detection.objects import Annotation, Objects, Picture
    from keras_convnext.detection.prediction import Detections, detect
    from keras_convnext.detection.weights import load_detector_weights, save_detector_weights

__all__ = [
    "Annotation",
    "CascadeMaskRCNN",
    "Detections",
    "MaskRCNN",
    "Objects",
    "Picture",
    "Scores",
    "decode_rle",
    "detect",
    "encode_rle",
    "evaluate",
    "load_detector",
    "load_detector_weights",
    "paste_mask",
    "read_coco",
    "save_detector_weights",
]

_NAMES = {
    "builders": ("CascadeMaskRCNN", "MaskRCNN"),
    "coco": ("read_coco",),
    "evaluation": ("Scores", "evaluate"),
    "loading": ("load_detector",),
    "masks": ("decode_rle", "encode_rle", "paste_mask"),
    "objects": ("Annotation", "Objects", "Picture"),
    "prediction": ("Detections", "detect"),
    "weights": ("load_detector_weights", "save_detector_weights"),
}

if not TYPE_CHECKING:  # or type checkers would accept any attribute
    __getattr__, __dir__ = lazy_names(__name__, _NAMES)
