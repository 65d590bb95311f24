"""Detection: objects, their boxes, and their masks."""

from typing import TYPE_CHECKING

from keras_convnext.lazy import lazy_names

if TYPE_CHECKING:
    from keras_convnext.detection.builders import CascadeMaskRCNN, MaskRCNN
    from keras_convnext.detection.loading import load_detector
    from keras_convnext.detection.masks import decode_rle, encode_rle, paste_mask
    from keras_convnext.detection.weights import load_detector_weights, save_detector_weights

__all__ = [
    "CascadeMaskRCNN",
    "MaskRCNN",
    "decode_rle",
    "encode_rle",
    "load_detector",
    "load_detector_weights",
    "paste_mask",
    "save_detector_weights",
]

_NAMES = {
    "builders": ("CascadeMaskRCNN", "MaskRCNN"),
    "loading": ("load_detector",),
    "masks": ("decode_rle", "encode_rle", "paste_mask"),
    "weights": ("load_detector_weights", "save_detector_weights"),
}

if not TYPE_CHECKING:  # or type checkers would accept any attribute
    __getattr__, __dir__ = lazy_names(__name__, _NAMES)
