"""Evaluation of trained networks: accuracy, loss and confusion."""

from keras_convnext.evaluation.accuracy import Accuracy, evaluate
from keras_convnext.evaluation.confusion import draw_confusion

__all__ = ["Accuracy", "draw_confusion", "evaluate"]
