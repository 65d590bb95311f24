"""A norm that is only ever computed forwards."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_convnext")
class InferenceLayerNormalization(keras.layers.LayerNormalization):
    """Layer normalization over the channels in as few passes over memory as there can be.

    On a CPU a norm costs what reading and writing its map costs. TensorFlow has one operation that
    squares and sums without a map of squares in between, so the variance is taken by that; its
    gradient is not worth having.

    Input shape: `(..., C)`. Output shape: the same.
    """

    def call(self, inputs: Any) -> Any:
        """Normalizes `inputs`, of shape `(..., C)`."""
        x = ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        x = x - ops.mean(x, axis=-1, keepdims=True)
        x = x * ops.rsqrt(_mean_square(x) + self.epsilon)
        if self.scale:
            x = x * self.gamma
        if self.center:
            x = x + self.beta
        return ops.cast(x, self.compute_dtype)


def _mean_square(x: Any) -> Any:
    """The mean of the squares over the last axis, which stays with length 1."""
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        norm = tf.raw_ops.EuclideanNorm(input=x, axis=[-1], keep_dims=True)
        return tf.square(norm) / x.shape[-1]
    return ops.mean(ops.square(x), axis=-1, keepdims=True)
