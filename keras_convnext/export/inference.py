"""A block and a norm that are only ever computed forwards."""

from typing import Any

import keras
from keras import ops

from keras_convnext.block import Block


@keras.saving.register_keras_serializable(package="keras_convnext")
class InferenceLayerNormalization(keras.layers.LayerNormalization):
    """Layer normalization over the channels in as few passes over memory as there can be.

    On a CPU a norm costs what reading and writing its map costs. TensorFlow has one operation that
    squares and sums without a map of squares in between, so the variance is taken by that; its
    gradient is not worth having.

    Input shape: `(..., C)`. Output shape: the same.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the scale and shift, if there are any."""
        super().build(input_shape)
        self.channels = input_shape[-1]

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


@keras.saving.register_keras_serializable(package="keras_convnext")
class InferenceBlock(Block):
    """A block whose norm neither scales nor shifts, since `pwconv1` does.

    Args:
        **kwargs: As in `Block`.

    Input shape: `(N, H, W, dim)`. Output shape: the same.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._tracker.untrack(self.norm)  # or Keras would hold on to both
        self.norm = InferenceLayerNormalization(
            epsilon=self.norm.epsilon,
            center=False,
            scale=False,
            dtype=self.dtype_policy,
            name="norm",
        )


def _mean_square(x: Any) -> Any:
    """The mean of the squares over the last axis, which stays with length 1."""
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        norm = tf.raw_ops.EuclideanNorm(input=x, axis=[-1], keep_dims=True)
        return tf.square(norm) / x.shape[-1]
    return ops.mean(ops.square(x), axis=-1, keepdims=True)
