"""What Keras lacks, as small registered layers.

The class of a layer is part of the address of its weights in a `.weights.h5` file, as its name is
in a `.keras` file: both stay as they are, whatever is computed inside.
"""

from typing import Any

import keras
from keras import ops

from keras_convnext.graph import (
    is_symbolic,
    jax_on_cpu,
    made,
    makers,
    runs_eagerly_on_cpu,
    tensorflow_on_cpu,
    trains_on_cpu,
)

_register = keras.saving.register_keras_serializable(package="keras_convnext")


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

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Convolves `inputs`, of shape `(N, H, W, C)`."""
        if any(isinstance(side, int) and side < self.patch_size for side in inputs.shape[1:3]):
            raise ValueError(
                f"The image is too small for this network: nothing is left of it at layer "
                f"{self.name}. Received: a map of {tuple(inputs.shape[1:3])} where at least "
                f"{self.patch_size} x {self.patch_size} is needed"
            )
        if trains_on_cpu(inputs, training) and self.padding == "valid":
            from keras_convnext import tensorflow_cpu

            outputs = tensorflow_cpu.patch_conv2d(inputs, self.kernel)
            return self.activation(outputs if self.bias is None else outputs + self.bias)
        return super().call(inputs)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        config = super().get_config()
        for derived in ("kernel_size", "strides", "data_format"):
            del config[derived]
        return {**config, "patch_size": self.patch_size}


@_register
class DepthwiseConv2D(keras.layers.DepthwiseConv2D):
    """Depthwise convolution that is kept from XLA's where that is slow.

    On a CPU, TensorFlow's own kernel is some sixty times faster than the code that XLA makes, and
    Keras turns XLA on for `predict` and `fit` unless a layer declines. JAX has nothing but XLA: for
    it the convolution is written as a sum there. Accelerators, and PyTorch, are left alone.

    Args:
        kernel_size: int. Side of the kernels.
        **kwargs: As in `keras.layers.DepthwiseConv2D`.

    Input shape: `(N, H, W, C)`. Output shape: the same, with padding "same" and strides of 1.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if keras.config.backend() == "tensorflow":
            self.supports_jit = not tensorflow_on_cpu()

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Convolves `inputs`, of shape `(N, H, W, C)`."""
        if self.is_plain and trains_on_cpu(inputs, training):
            from keras_convnext.tensorflow_cpu import depthwise_conv2d
        elif self.is_plain and jax_on_cpu():
            from keras_convnext.jax_cpu import depthwise_conv2d
        else:
            return made(super().call(inputs), self, inputs)
        outputs = depthwise_conv2d(inputs, ops.convert_to_tensor(self.kernel))
        outputs = self.activation(outputs if self.bias is None else outputs + self.bias)
        return made(outputs, self, inputs)

    @property
    def is_plain(self) -> bool:
        """Whether it keeps the size and the channels of its map, as the network has it."""
        return (self.padding, self.data_format) == ("same", "channels_last") and {
            *self.strides,
            *self.dilation_rate,
            self.depth_multiplier,
        } == {1}


@_register
class LayerNormalization(keras.layers.LayerNormalization):
    """Layer normalization over the channels, in fewer passes over memory than Keras' own.

    Args:
        **kwargs: As in `keras.layers.LayerNormalization`.

    Input shape: `(..., C)`. Output shape: the same.
    """

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Normalizes `inputs`, of shape `(..., C)`."""
        if self.is_plain and trains_on_cpu(inputs, training):
            from keras_convnext import tensorflow_cpu

            outputs = tensorflow_cpu.layer_normalization(
                inputs, self.gamma, self.beta, self.epsilon
            )
        elif self.is_plain and keras.config.backend() == "tensorflow":
            outputs = self._normalized(inputs)
        else:
            outputs = super().call(inputs)
        return made(outputs, self, inputs)

    def _normalized(self, inputs: Any) -> Any:
        """Keras' own makes three maps more on the way, which is what a norm costs on a CPU."""
        x = ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        x = x - ops.mean(x, axis=-1, keepdims=True)
        inverse = ops.rsqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + self.epsilon)
        gamma, beta = (ops.cast(weight, x.dtype) for weight in (self.gamma, self.beta))
        return ops.cast(x * (inverse * gamma) + beta, self.compute_dtype)

    @property
    def is_plain(self) -> bool:
        """Whether it is over the channels, with scale and shift, as the network has it."""
        return self.axis in (-1, [-1]) and self.center and self.scale and not self.rms_scaling


@_register
class PointwiseDense(keras.layers.Dense):
    """A dense layer at each position of a map: the 1x1 convolutions of a block.

    The map is taken as one matrix of `N * H * W` rows, since TensorFlow fuses the product, the
    bias and GELU into one call for a matrix, and for nothing of higher rank.

    Args:
        units: int. Channels that come out.
        **kwargs: As in `keras.layers.Dense`.

    Input shape: `(N, H, W, C)`. Output shape: `(N, H, W, units)`.
    """

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Applies the dense layer to `inputs`, of shape `(N, H, W, C)`."""
        *positions, channels = ops.shape(inputs)
        rows = ops.reshape(inputs, (-1, channels))
        if self._fuses_gelu and runs_eagerly_on_cpu(inputs):
            from keras_convnext import tensorflow_cpu

            rows = tensorflow_cpu.dense_gelu(rows, self.kernel, self.bias)
        else:
            rows = super().call(rows)
        outputs = made(ops.reshape(rows, (*positions, self.units)), self, inputs)
        if trains_on_cpu(inputs, training) and (branch := _branch(outputs)) is not None:
            return made(branch, self, inputs)
        return outputs

    @property
    def _fuses_gelu(self) -> bool:
        """Whether it is a product, a bias and GELU, as `pwconv1` is."""
        return (
            self.activation is keras.activations.gelu
            and self.bias is not None
            and self.quantization_mode is None
        )


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

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Scales `inputs`, of shape `(..., C)`."""
        outputs = _branch(inputs, self.gamma) if trains_on_cpu(inputs, training) else None
        if outputs is None:
            outputs = ops.cast(inputs, self.variable_dtype) * self.gamma
        return made(ops.cast(outputs, self.compute_dtype), self, inputs)

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


@_register
class Remat(keras.layers.Layer):
    """Lets training keep the input of a branch alone, and compute the rest again for the gradient.

    It stands at the end of the branch, goes back to its depthwise convolution and hands on what it
    gets. It has an effect with TensorFlow alone.

    Input shape: any. Output shape: the same.

    References:
        Chen et al., "Training Deep Nets with Sublinear Memory Cost", arXiv 1604.06174.
    """

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Returns a tensor equal to `inputs`."""
        if not training or not is_symbolic(inputs):
            return inputs
        branch = makers(inputs, DepthwiseConv2D)
        if branch is None:
            return inputs
        import tensorflow as tf

        layers, start = branch

        def compute(x: Any) -> Any:
            for layer in layers:
                x = layer(x, training=True)
            return x

        return tf.recompute_grad(compute)(start)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns `input_shape`."""
        return input_shape


def _branch(output: Any, gamma: Any = None) -> Any:
    """The same map as `output`, or as `output * gamma`, computed from the start of the branch.

    What a step of training keeps falls by half when norm, GELU and both pointwise layers of a block
    are one operation. Each stays a layer of its own, so that models, files and weights are as they
    look; what the layers made one by one is not asked for any more, and TensorFlow drops it from
    the graph.

    Returns:
        A tensor, or None if `output` was not made by such layers.
    """
    layers, inputs = makers(output, LayerNormalization) or ([], None)
    if [type(layer) for layer in layers] != [LayerNormalization, PointwiseDense, PointwiseDense]:
        return None
    norm, pwconv1, pwconv2 = layers
    if (
        not norm.is_plain
        or pwconv1.activation is not keras.activations.gelu
        or pwconv2.activation is not keras.activations.linear
        or any(dense.bias is None or dense.quantization_mode for dense in (pwconv1, pwconv2))
    ):
        return None
    from keras_convnext import tensorflow_cpu

    return tensorflow_cpu.branch(
        inputs,
        (norm.gamma, norm.beta),
        (pwconv1.kernel, pwconv1.bias),
        (pwconv2.kernel, pwconv2.bias),
        gamma,
        norm.epsilon,
    )
