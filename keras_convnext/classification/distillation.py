"""Knowledge distillation: a trained classifier, the teacher, also tells what to predict.

References:
    Hinton et al., "Distilling the Knowledge in a Neural Network", arXiv 1503.02531.
"""

from collections.abc import Callable
from pathlib import Path

import keras
import tensorflow as tf
from keras import ops

from keras_convnext.classification.evaluation import returns_logits
from keras_convnext.loading import load_classifier
from keras_convnext.printable import printable

Combine = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]


def open_teacher(teacher: str | keras.Model, size: int, classes: int) -> keras.Model:
    """Returns a teacher for images of a size.

    Args:
        teacher: str or keras.Model. A weight file; published weights as `"convnext_base/imagenet"`;
            or a model that maps pixels in 0..255 to probabilities or logits.
        size: int. Side of the training images, in pixels.
        classes: int. Number of classes of the training data.

    Raises:
        ValueError: If the teacher takes other images or has other classes.
    """
    if isinstance(teacher, str):
        name, _, tag = teacher.partition("/")
        is_file = Path(teacher).is_file() or not tag
        teacher_model = load_classifier(teacher) if is_file else load_classifier(tag, name)
    else:
        teacher_model = teacher
    taken, returned = teacher_model.input_shape, teacher_model.output_shape
    if taken[1:] not in ((size, size, 3), (None, None, 3)) or returned != (None, classes):
        raise ValueError(
            f"The teacher must take RGB images of {size} px, as in the recipe, and return "
            f"{classes} classes, as in the data. Received: teacher={printable(teacher)}, with "
            f"input shape {taken} and output shape {returned}"
        )
    return teacher_model


def distilled(teacher: keras.Model, weight: float, temperature: float) -> Combine:
    """Returns the loss of distillation, as `Objective.combine`.

    It is `(1 - weight) * loss + weight * temperature**2 * KL(p || q)`, where `p` and `q` are the
    softmax of the teacher's and the network's logits divided by the temperature.

    Args:
        teacher: keras.Model. Maps images to probabilities or logits (N, classes).
        weight: float. Weight of the teacher, in 0..1.
        temperature: float. Higher values make the teacher's probabilities more even.
    """
    divergence = keras.losses.KLDivergence()  # a mean over the batch, as the loss is
    has_logits = returns_logits(teacher)

    def softened(logits: tf.Tensor) -> tf.Tensor:
        return ops.softmax(ops.cast(logits, "float32") / temperature)

    def combine(loss: tf.Tensor, images: tf.Tensor, logits: tf.Tensor) -> tf.Tensor:
        outputs = ops.cast(ops.stop_gradient(teacher(images, training=False)), "float32")
        # The logarithms of probabilities are logits up to a constant.
        expected = outputs if has_logits else ops.log(ops.maximum(outputs, 1e-30))
        told = divergence(softened(expected), softened(logits))
        return (1 - weight) * loss + weight * temperature**2 * ops.cast(told, loss.dtype)

    return combine
