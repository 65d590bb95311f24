"""What Keras lacks around the blocks, as small registered layers."""

from typing import Any

import keras
from keras import ops

from keras_convnext.arithmetic import arithmetic_of, is_recomputed

_register = keras.saving.register_keras_serializable(package="keras_convnext")


@_register
class PatchConv2D(keras.layers.Conv2D):
    """Convolution over patches that do not overlap: the stem and the downsampling.

    A map whose sides are no multiples of the patch loses its last rows and columns, as in the
    official code. One smaller than a patch is refused: its output would be empty and the mean over
    it NaN.

    Args:
        filters: int. Channels of the output.
        patch_size: int. Side of the kernel, and the stride.
        **kwargs: As in `keras.layers.Conv2D`.

    Input shape: `(N, H, W, C)`. Output shape: `(N, H // patch_size, W // patch_size, filters)`.

    Raises:
        ValueError: If the height or width is smaller than `patch_size`.
    """

    def __init__(self, filters: int, patch_size: int, **kwargs: Any) -> None:
        super().__init__(
            filters, patch_size, strides=patch_size, data_format="channels_last", **kwargs
        )
        self.patch_size = patch_size

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Convolves `inputs`, of shape `(N, H, W, C)`."""
        if any(isinstance(side, int) and side < self.patch_size for side in inputs.shape[1:3]):
            raise ValueError(
                f"The image is too small for this network: nothing is left of it at layer "
                f"{self.name}. Received: a map of {tuple(inputs.shape[1:3])} where at least "
                f"{self.patch_size} x {self.patch_size} is needed"
            )
        if not self.is_plain:
            return self.convolved(inputs)
        return arithmetic_of(self, "convolved", inputs, training)(inputs)

    def convolved(self, x: Any) -> Any:
        """Convolves `x` by Keras' operations."""
        return super().call(x)

    @property
    def is_plain(self) -> bool:
        """Whether it is a convolution with a bias and nothing else, as the networks use it."""
        is_linear = self.activation is keras.activations.linear
        return self.padding == "valid" and self.use_bias and is_linear and not self.lora_enabled

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        config = super().get_config()
        for derived in ("kernel_size", "strides", "data_format"):
            del config[derived]
        return {**config, "patch_size": self.patch_size}


@_register
class LayerNormalization(keras.layers.LayerNormalization):
    """Layer normalization over the channels, in fewer passes over memory than Keras' own.

    Args:
        **kwargs: As in `keras.layers.LayerNormalization`.

    Input shape: `(..., C)`. Output shape: the same.
    """

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Normalizes `inputs`, of shape `(..., C)`."""
        if not self.is_plain or keras.config.backend() != "tensorflow":
            return super().call(inputs)
        return arithmetic_of(self, "normalized", inputs, training)(inputs)

    def normalized(self, x: Any) -> Any:
        """Normalizes `x` in a pass less than Keras, which writes three more maps."""
        x = ops.cast(x, keras.backend.result_type(x.dtype, "float32"))
        x = x - ops.mean(x, axis=-1, keepdims=True)
        inverse = ops.rsqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + self.epsilon)
        gamma, beta = (ops.cast(weight, x.dtype) for weight in (self.gamma, self.beta))
        return ops.cast(x * (inverse * gamma) + beta, self.compute_dtype)

    @property
    def is_plain(self) -> bool:
        """Whether it is over the channels, with scale and shift, as the networks use it."""
        return self.axis in (-1, [-1]) and self.center and self.scale and not self.rms_scaling


@_register
class DropPath(keras.layers.Dropout):
    """Stochastic depth: during training, drops the whole residual branch of some samples.

    What is kept is scaled by `1 / (1 - rate)`, so that the expectation is unchanged. The draws come
    from a Keras seed generator, so `keras.utils.set_random_seed` makes them reproducible.

    Args:
        rate: float in [0, 1). Probability that a sample's branch is dropped.
        seed: int or None. Defaults to None.
        **kwargs: `name` and `dtype`, as in `keras.layers.Layer`.

    Input shape: `(N, H, W, C)`. Output shape: the same.

    Raises:
        RuntimeError: In training, within `keras.remat` under TensorFlow and PyTorch: the draw would
            be another one when it is repeated for the gradient.

    References:
        Huang et al., "Deep Networks with Stochastic Depth", arXiv 1603.09382.
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(rate, noise_shape=(None, 1, 1, 1), seed=seed, **kwargs)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Drops samples of `inputs`, of shape `(N, H, W, C)`."""
        if not training or self.rate == 0:
            return inputs
        return inputs * self.draw(inputs)

    def draw(self, inputs: Any) -> Any:
        """Draws the factor of each sample, of shape `(N, 1, 1, 1)`: 0, or what scales the rest."""
        if is_recomputed():
            raise RuntimeError(
                "Drop path draws again when keras.remat repeats a computation, and the gradient "
                "would be wrong: make the network or block with remat=True instead, which keeps "
                f"the draw. Received: {self.name}, with rate={self.rate}, within keras.remat"
            )
        ones = ops.ones((ops.shape(inputs)[0], 1, 1, 1), self.compute_dtype)
        return keras.random.dropout(ones, self.rate, seed=self.seed_generator)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        config = super().get_config()
        del config["noise_shape"]
        return config
