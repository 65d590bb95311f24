"""A web page that classifies uploaded pictures."""

from typing import TYPE_CHECKING

from keras_convnext.lazy import lazy_names

if TYPE_CHECKING:
    from keras_convnext.demo.answers import (
        Answer,
        Classifier,
        answer,
        classifier_of,
        classifier_of_artifact,
    )
    from keras_convnext.demo.decoder import UploadError
    from keras_convnext.demo.page import demo_page, start

__all__ = [
    "Answer",
    "Classifier",
    "UploadError",
    "answer",
    "classifier_of",
    "classifier_of_artifact",
    "demo_page",
    "start",
]

# Lazy, so that the process of `decoder` imports no backend.
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "answers": ("Answer", "Classifier", "answer", "classifier_of", "classifier_of_artifact"),
        "decoder": ("UploadError",),
        "page": ("demo_page", "start"),
    },
)
