"""What a classifier minimizes, and the metrics that are measured meanwhile."""

import keras
import tensorflow as tf

from keras_convnext.training.task import Metric, Objective

ACCURACY = Metric("accuracy", percent=True)
CROSS_ENTROPY = "cross_entropy"  # without label smoothing and mixing


def objective(classes: int) -> Objective:
    """Returns the cross-entropy of logits with soft targets, and the metrics.

    Args:
        classes: int. Number of classes.
    """
    return Objective(
        keras.losses.CategoricalCrossentropy(from_logits=True),
        [
            keras.metrics.CategoricalAccuracy(name=ACCURACY.name),
            keras.metrics.TopKCategoricalAccuracy(min(5, classes), name="top5_accuracy"),
            keras.metrics.CategoricalCrossentropy(from_logits=True, name=CROSS_ENTROPY),
        ],
        tf.TensorSpec((classes,)),
    )
