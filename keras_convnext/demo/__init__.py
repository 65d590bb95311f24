"""A web page that classifies uploaded pictures."""

from keras_convnext.demo.answers import (
    Answer,
    Classifier,
    UploadError,
    answer,
    classifier_of,
    classifier_of_artifact,
)
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
