"""What Keras lacks, as small registered layers.

The class of a layer is part of the address of its weights in a `.weights.h5` file, as its name is
in a `.keras` file: both stay as they are, whatever is computed inside.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import keras
from keras import ops

_register = keras.saving.register_keras_serializable(package="keras_convnext")

_about_to_load: ContextVar[bool] = ContextVar("about_to_load", default=False)


@contextmanager
def about_to_load() -> Iterator[None]:
    """Leaves the kernels that are built inside at zero, since their weights are about to be loaded.

    Random numbers for the largest network take longer than reading it, and a third of its memory
    over again.
    """
    token = _about_to_load.set(True)
    try:
        yield
    finally:
        _about_to_load.reset(token)


@_register
class TruncatedNormal(keras.initializers.TruncatedNormal):
    """Normal distribution cut at two deviations, whose deviation is `stddev` after the cut.

    The cut leaves a normal distribution 0.88 of its deviation. The official code cuts at +-2, which
    is a hundred deviations and leaves all of it; Keras' initializer means the one before the cut.
    """

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        """Draws a tensor."""
        if _about_to_load.get():
            return ops.zeros(shape, dtype)
        return keras.random.truncated_normal(
            shape, self.mean, self.stddev / 0.87962566, dtype, self.seed
        )


@_register
class PatchConv2D(keras.layers.Conv2D):
    """Convolution over patches that do not overlap: the stem and the downsampling.

    A map that is no multiple of the patch loses its last rows and columns, as in the official
    code. One that is smaller than a patch is refused: its output would be empty and the mean over
    it NaN.

    Args:
        filters: int. Channels that come out.
        patch_size: int. Side of the kernel, and the stride.

    Input shape: `(N, H, W, C)`. Output shape: `(N, H // patch_size, W // patch_size, filters)`.

    Raises:
        ValueError: If the height or width is smaller than `patch_size`.
    """

    def __init__(self, filters: int, patch_size: int, **kwargs: Any) -> None:
        super().__init__(
            filters, patch_size, strides=patch_size, data_format="channels_last", **kwargs
        )
        self.patch_size = patch_size

    def call(self, inputs: Any) -> Any:
        """Convolves `inputs`, of shape `(N, H, W, C)`."""
        if any(isinstance(side, int) and side < self.patch_size for side in inputs.shape[1:3]):
            raise ValueError(
                f"The image is too small for this network: nothing is left of it at layer "
                f"{self.name}. Received: a map of {tuple(inputs.shape[1:3])} where at least "
                f"{self.patch_size} x {self.patch_size} is needed"
            )
        return super().call(inputs)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        config = super().get_config()
        for derived in ("kernel_size", "strides", "data_format"):
            del config[derived]
        return {**config, "patch_size": self.patch_size}


@_register
class DepthwiseConv2D(keras.layers.DepthwiseConv2D):
    """Depthwise convolution that is kept out of XLA where XLA is slow at it.

    On a CPU, TensorFlow's own kernel is some sixty times faster than the code that XLA makes, and
    Keras turns XLA on for `predict` and `fit` unless a layer declines. Accelerators, and the other
    backends, are left alone.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if keras.config.backend() == "tensorflow":
            import tensorflow as tf

            accelerators = [d for d in tf.config.list_physical_devices() if d.device_type != "CPU"]
            self.supports_jit = bool(accelerators)


@_register
class PointwiseDense(keras.layers.Dense):
    """A dense layer at each position of a map: the 1x1 convolutions of a block.

    The map is taken as one matrix of `N * H * W` rows, since TensorFlow fuses the product, the
    bias and GELU into one call for a matrix, and for nothing of higher rank.

    Input shape: `(N, H, W, C)`. Output shape: `(N, H, W, units)`.
    """

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Applies the dense layer to `inputs`, of shape `(N, H, W, C)`."""
        *positions, channels = ops.shape(inputs)
        rows = super().call(ops.reshape(inputs, (-1, channels)))
        return ops.reshape(rows, (*positions, self.units))


@_register
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


@_register
class LayerScale(keras.layers.Layer):
    """Multiplies each channel by a learned factor, `gamma`.

    The factors start near 1e-6, below what float16 can hold, so they are kept and applied in the
    policy's variable dtype whatever the compute dtype.

    Args:
        init_value: float. What every factor starts from. Defaults to 1e-6.

    Input shape: `(..., C)`. Output shape: the same.

    References:
        Touvron et al., "Going deeper with Image Transformers", arXiv 2103.17239, section 2.
    """

    def __init__(self, init_value: float = 1e-6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.init_value = init_value

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates `gamma`, of shape `(C,)`."""
        self.gamma = self.add_weight(
            name="gamma",
            shape=(input_shape[-1],),
            initializer=keras.initializers.Constant(self.init_value),
            autocast=False,
        )

    def call(self, inputs: Any) -> Any:
        """Scales `inputs`, of shape `(..., C)`."""
        scaled = ops.cast(inputs, self.variable_dtype) * self.gamma
        return ops.cast(scaled, self.compute_dtype)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns `input_shape`."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "init_value": self.init_value}


@_register
class DropPath(keras.layers.Dropout):
    """Stochastic depth: during training, drops the whole residual branch of some samples.

    What is kept is scaled by `1 / (1 - rate)`, so that the expectation is unchanged. The draws
    come from a Keras seed generator, so `keras.utils.set_random_seed` repeats them.

    Args:
        rate: float in [0, 1). Probability that a sample's branch is dropped.
        seed: int or None. Defaults to None.

    Input shape: `(N, H, W, C)`. Output shape: the same.

    References:
        Huang et al., "Deep Networks with Stochastic Depth", arXiv 1603.09382.
    """

    def __init__(self, rate: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(rate, noise_shape=(None, 1, 1, 1), seed=seed, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        config = super().get_config()
        del config["noise_shape"]
        return config
