"""Evaluation of trained networks: accuracy, loss and confusion."""

from keras_convnext.classification.confusion import draw_confusion
from keras_convnext.classification.evaluation import Accuracy, evaluate

__all__ = ["Accuracy", "draw_confusion", "evaluate"]
