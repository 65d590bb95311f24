"""A web page that classifies or segments uploaded pictures, or finds their objects."""

from typing import TYPE_CHECKING

from keras_convnext.lazy import lazy_names

if TYPE_CHECKING:
    from keras_convnext.demo.answers import (
        Answer,
        Classifier,
        Detector,
        Segmenter,
        answer,
        classifier_of,
        detector_of,
        network_of_artifact,
        segmenter_of,
    )
    from keras_convnext.demo.decoder import UploadError
    from keras_convnext.demo.page import demo_page, start

__all__ = [
    "Answer",
    "Classifier",
    "Detector",
    "Segmenter",
    "UploadError",
    "answer",
    "classifier_of",
    "demo_page",
    "detector_of",
    "network_of_artifact",
    "segmenter_of",
    "start",
]

# Lazy, so that the process of `decoder` imports no backend.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "answers": (
            "Answer",
            "Classifier",
            "Detector",
            "Segmenter",
            "answer",
            "classifier_of",
            "detector_of",
            "network_of_artifact",
            "segmenter_of",
        ),
        "decoder": ("UploadError",),
        "page": ("demo_page", "start"),
    },
)
