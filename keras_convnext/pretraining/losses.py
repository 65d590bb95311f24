"""The loss of masked autoencoding: the squared error of hidden patches."""

import keras
import tensorflow as tf
from keras import ops

from keras_convnext.training.task import Metric, Objective

LOSS = Metric("loss", higher_is_better=False)


class HiddenPatches(keras.losses.Loss):
    """Mean squared error of the hidden patches of each image.

    The targets (N, H, W, D + 1) have the D values of each patch and, last, 1 if it is hidden.

    References:
        facebookresearch/ConvNeXt-V2, models/fcmae.py, `forward_loss`. It divides by the number of
        hidden patches in the batch, which is the same, as all images have equally many.
    """

    def call(self, y_true: tf.Tensor, y_pred: tf.Tensor) -> tf.Tensor:
        """Returns the loss of each image, of shape (N,)."""
        targets, hidden = y_true[..., :-1], y_true[..., -1]
        error = ops.mean(ops.square(ops.cast(y_pred, targets.dtype) - targets), axis=-1)
        return ops.sum(error * hidden, (1, 2)) / ops.sum(hidden, (1, 2))


def objective(cells: int, values: int) -> Objective:
    """Returns the loss for maps of cells x cells patches of so many values."""
    return Objective(HiddenPatches(), [], tf.TensorSpec((cells, cells, values + 1)))


def patches_of(images: tf.Tensor, side: int) -> tf.Tensor:
    """Cuts images into patches.

    Args:
        images: tensor (..., H, W, C).
        side: int. Side of a patch, which divides H and W.

    Returns:
        A tensor (..., H / side, W / side, side * side * C), each patch row by row.
    """
    *before, height, width, channels = images.shape
    rows, columns = height // side, width // side
    x = tf.reshape(images, (*_free(before), rows, side, columns, side, channels))
    axes = len(before)
    x = tf.transpose(x, (*range(axes), axes, axes + 2, axes + 1, axes + 3, axes + 4))
    return tf.reshape(x, (*_free(before), rows, columns, side**2 * channels))


def images_of(patches: tf.Tensor, side: int) -> tf.Tensor:
    """Inverts `patches_of`."""
    *before, rows, columns, values = patches.shape
    channels, axes = values // side**2, len(before)
    x = tf.reshape(patches, (*_free(before), rows, columns, side, side, channels))
    x = tf.transpose(x, (*range(axes), axes, axes + 2, axes + 1, axes + 3, axes + 4))
    return tf.reshape(x, (*_free(before), rows * side, columns * side, channels))


def statistics_of(patches: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the mean of each patch, and the root of its unbiased variance plus 1e-6."""
    mean = tf.reduce_mean(patches, -1, keepdims=True)
    count = patches.shape[-1]
    variance = tf.reduce_sum(tf.square(patches - mean), -1, keepdims=True) / (count - 1)
    return mean, tf.sqrt(variance + 1e-6)


def normalized(patches: tf.Tensor) -> tf.Tensor:
    """Normalizes the values of each patch."""
    mean, deviation = statistics_of(patches)
    return (patches - mean) / deviation


def _free(sides: list[int | None]) -> list[int]:
    return [-1 if side is None else side for side in sides]
