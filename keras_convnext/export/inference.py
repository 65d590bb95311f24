"""The block and the norm of fused networks, for inference only."""

from typing import Any

import keras
from keras import ops

from keras_convnext.block import Block
from keras_convnext.layers import GlobalResponseNormalization


@keras.saving.register_keras_serializable(package="keras_convnext")
class InferenceLayerNormalization(keras.layers.LayerNormalization):
    """Layer normalization over the channels, with few passes over memory.

    On a CPU the cost of a norm is reading and writing its feature map. TensorFlow has one operation
    that squares and sums without storing the squares, which computes the variance here. Its
    gradient is slow, so this layer is for inference only.

    Input shape: `(..., C)`. Output shape: the same.
    """

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the scale and shift, if enabled."""
        super().build(input_shape)
        self.channels = input_shape[-1]

    def call(self, inputs: Any) -> Any:
        """Normalizes `inputs`, of shape `(..., C)`."""
        x = ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        x = x - ops.mean(x, axis=-1, keepdims=True)
        x = x * ops.rsqrt(_sum_of_squares(x, [-1]) / self.channels + self.epsilon)
        if self.scale:
            x = x * self.gamma
        if self.center:
            x = x + self.beta
        return ops.cast(x, self.compute_dtype)


@keras.saving.register_keras_serializable(package="keras_convnext")
class InferenceResponseNormalization(GlobalResponseNormalization):
    """Global response normalization without storing the squares, as in the norm above.

    Input shape: `(N, ..., C)`. Output shape: the same.
    """

    def norms(self, x: Any) -> Any:
        """Computes the norm of each channel over all positions."""
        return ops.sqrt(_sum_of_squares(x, list(range(1, len(x.shape) - 1))))


@keras.saving.register_keras_serializable(package="keras_convnext")
class LargestChannel(keras.layers.Layer):
    """Returns the number of the largest channel, an int32: the class of each pixel of logits.

    Input shape: `(..., C)`. Output shape: `(...)`.
    """

    def call(self, inputs: Any) -> Any:
        """Returns the channels of `inputs`, of shape `(..., C)`."""
        return ops.argmax(inputs, axis=-1)

    def compute_output_spec(self, inputs: Any) -> keras.KerasTensor:
        """Returns the shape and dtype of the channels."""
        return keras.KerasTensor(inputs.shape[:-1], "int32")


@keras.saving.register_keras_serializable(package="keras_convnext")
class InferenceBlock(Block):
    """A block without the scale and shift of the norm, and without the shift of GRN.

    They are folded into `pwconv1` and `pwconv2`.

    Args:
        **kwargs: As in `Block`.

    Input shape: `(N, H, W, dim)`. Output shape: the same.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        norm = InferenceLayerNormalization(
            epsilon=self.norm.epsilon,
            center=False,
            scale=False,
            dtype=self.dtype_policy,
            name="norm",
        )
        grn = InferenceResponseNormalization(center=False, dtype=self.dtype_policy, name="grn")
        self.replace(norm=norm, grn=grn)


def _sum_of_squares(x: Any, axes: list[int]) -> Any:
    """Sums the squares over some axes, which are kept with length 1."""
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        return tf.square(tf.raw_ops.EuclideanNorm(input=x, axis=axes, keep_dims=True))
    return ops.sum(ops.square(x), axis=tuple(axes), keepdims=True)
