"""How good a trained network is."""

from keras_convnext.evaluation.accuracy import Accuracy, evaluate

__all__ = ["Accuracy", "evaluate"]
