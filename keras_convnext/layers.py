"""Small layers that Keras lacks: patch convolution, norms, response normalization, drop path."""

from typing import Any

import keras
from keras import ops

from keras_convnext.arithmetic import arithmetic_of, is_recomputed
from keras_convnext.printable import printable

_register = keras.saving.register_keras_serializable(package="keras_convnext")


@_register
class PatchConv2D(keras.layers.Conv2D):
    """Convolution over non-overlapping patches, for the stem and the downsampling.

    If the sides of the input are not multiples of the patch size, the last rows and columns are
    dropped, as in the official code. Inputs smaller than a patch raise an error: the output would
    be empty, and its mean NaN.

    Args:
        filters: int. Channels of the output.
        patch_size: int. Side of the kernel, and the stride.
        overlap: int or None. For patches of 4 px that overlap: the channels between two 3 x 3
            convolutions with stride 2 and padding 1, as in timm's `*_ols` networks. Defaults to
            None.
        **kwargs: As in `keras.layers.Conv2D`.

    Input shape: `(N, H, W, C)`. Output shape: `(N, H // patch_size, W // patch_size, filters)`, or
    rounded up with `overlap`.

    Raises:
        ValueError: If the height or width is smaller than `patch_size`.
    """

    def __init__(
        self, filters: int, patch_size: int, overlap: int | None = None, **kwargs: Any
    ) -> None:
        sides = (patch_size, patch_size) if overlap is None else (3, 2)
        super().__init__(
            overlap or filters, sides[0], strides=sides[1], data_format="channels_last", **kwargs
        )
        if overlap is not None and patch_size != 4:
            raise ValueError(f"overlap needs a patch_size of 4. Received: patch_size={patch_size}")
        self.patch_size, self.overlap, self.outputs = patch_size, overlap, filters

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates the weights: those of the second convolution are `kernel_2` and `bias_2`."""
        super().build(input_shape)
        self.kernel_2 = self.bias_2 = None
        if self.overlap is not None:
            shape = (3, 3, self.overlap, self.outputs)
            initializer = self.kernel_initializer.clone()
            self.kernel_2 = self.add_weight(name="kernel_2", shape=shape, initializer=initializer)
            self.bias_2 = self.add_weight(name="bias_2", shape=(self.outputs,), initializer="zeros")

    def save_own_variables(self, store: Any) -> None:
        """Saves the weights, of which Keras' layer knows the first two."""
        super().save_own_variables(store)
        if self.kernel_2 is not None and self.bias_2 is not None:
            store["2"], store["3"] = self.kernel_2, self.bias_2

    def load_own_variables(self, store: Any) -> None:
        """Loads the weights."""
        super().load_own_variables(store)
        if self.kernel_2 is not None and self.bias_2 is not None:
            self.kernel_2.assign(store["2"])
            self.bias_2.assign(store["3"])

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape of the output."""
        if self.overlap is None:
            return super().compute_output_shape(input_shape)
        rows, columns = (None if side is None else -(-side // 4) for side in input_shape[1:3])
        return input_shape[0], rows, columns, self.outputs

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Convolves `inputs`, of shape `(N, H, W, C)`."""
        if any(isinstance(side, int) and side < self.patch_size for side in inputs.shape[1:3]):
            raise ValueError(
                "The image is too small for this network: the input of layer "
                f"{printable(self.name)} must be at least {self.patch_size} x {self.patch_size}. "
                f"Received: {tuple(inputs.shape[1:3])}"
            )
        if not self.is_plain:
            return self.convolved(inputs)
        return arithmetic_of(self, "convolved", inputs, training)(inputs)

    def convolved(self, x: Any) -> Any:
        """Convolves `x` with Keras' implementation."""
        if self.overlap is None:
            return super().call(x)
        border = ((0, 0), (1, 1), (1, 1), (0, 0))
        x = super().call(ops.pad(x, border))  # (N, H/2, W/2, overlap)
        x = ops.conv(ops.pad(x, border), self.kernel_2, 2, "valid", "channels_last")
        return ops.add(x, self.bias_2)  # (N, H/4, W/4, C)

    @property
    def is_plain(self) -> bool:
        """Whether it is a "valid" convolution with a bias, without activation and LoRA."""
        is_linear = self.activation is keras.activations.linear
        is_one = self.overlap is None and self.padding == "valid"
        return is_one and self.use_bias and is_linear and not self.lora_enabled

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        config = super().get_config()
        for derived in ("kernel_size", "strides", "data_format"):
            del config[derived]
        own = {"filters": self.outputs, "patch_size": self.patch_size, "overlap": self.overlap}
        return {**config, **own}


@_register
class LayerNormalization(keras.layers.LayerNormalization):
    """Layer normalization over the channels, with fewer passes over memory than Keras' layer.

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
        """Normalizes `x` with one pass less than Keras, which also stores three more maps."""
        x = ops.cast(x, keras.backend.result_type(x.dtype, "float32"))
        x = x - ops.mean(x, axis=-1, keepdims=True)
        inverse = ops.rsqrt(ops.mean(ops.square(x), axis=-1, keepdims=True) + self.epsilon)
        gamma, beta = (ops.cast(weight, x.dtype) for weight in (self.gamma, self.beta))
        return ops.cast(x * (inverse * gamma) + beta, self.compute_dtype)

    @property
    def is_plain(self) -> bool:
        """Whether it normalizes the channels, with scale and shift."""
        return self.axis in (-1, [-1]) and self.center and self.scale and not self.rms_scaling


@_register
class BatchNormalization(keras.layers.BatchNormalization):
    """Batch normalization with the same moving statistics on all devices of a TensorFlow strategy.

    In training, each device normalizes with the statistics of its own images, as PyTorch does. The
    moving statistics are averaged over the devices. Those of Keras' layer differ from device to
    device, and only those of the first one are saved.

    Args:
        **kwargs: As in `keras.layers.BatchNormalization`.

    Input shape: `(..., C)`. Output shape: the same.
    """

    def add_weight(self, *args: Any, trainable: bool = True, **kwargs: Any) -> keras.Variable:
        """Creates a weight, which is averaged over devices if it is not trained."""
        if not trainable:
            kwargs["aggregation"] = "mean"
        return super().add_weight(*args, trainable=trainable, **kwargs)


@_register
class GlobalResponseNormalization(keras.layers.Layer):
    """Global response normalization (GRN): channels compete by their norms over the whole map.

    For each image, `g` is the Euclidean norm of each channel over all positions, and the output is
    `x * (1 + gamma * g / (mean(g) + epsilon)) + beta`, with the mean over the channels. It depends
    on all positions, so it changes if an image is padded or cut into tiles.

    Args:
        epsilon: float. Added to the mean of the norms. Defaults to 1e-6.
        center: bool. Whether `beta` is added. Defaults to True.
        **kwargs: `name`, `dtype` and `trainable`, as in `keras.layers.Layer`.

    Input shape: `(N, ..., C)`. Output shape: the same.

    References:
        Woo et al., "ConvNeXt V2", CVPR 2023, arXiv 2301.00808, algorithm 1. Equation 2 divides by
        the sum of the norms; algorithm 1 and the official code divide by their mean.
    """

    def __init__(self, epsilon: float = 1e-6, center: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.epsilon, self.center = epsilon, center

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates `gamma` and `beta`, of shape `(C,)` and zero, so that it starts as identity."""
        shape = (input_shape[-1],)
        self.gamma = self.add_weight(name="gamma", shape=shape, initializer="zeros")
        self.beta = None
        if self.center:
            self.beta = self.add_weight(name="beta", shape=shape, initializer="zeros")

    def call(self, inputs: Any) -> Any:
        """Normalizes `inputs`, of shape `(N, ..., C)`."""
        # In float16, the sum of squares would overflow.
        x = ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        norms = self.norms(x)  # (N, 1, 1, C)
        shares = norms / (ops.mean(norms, axis=-1, keepdims=True) + self.epsilon)
        x = x * (1 + shares * ops.cast(self.gamma, x.dtype))
        if self.beta is not None:
            x = x + ops.cast(self.beta, x.dtype)
        return ops.cast(x, self.compute_dtype)

    def norms(self, x: Any) -> Any:
        """Computes the norm of each channel over all positions, with gradient 0 where it is 0."""
        squares = ops.sum(ops.square(x), axis=tuple(range(1, len(x.shape) - 1)), keepdims=True)
        is_zero = squares == 0  # where the gradient of the root is infinite
        return ops.where(is_zero, 0.0, ops.sqrt(ops.where(is_zero, 1.0, squares)))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns `input_shape`."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "epsilon": self.epsilon, "center": self.center}


@_register
class SyncBatchNormalization(BatchNormalization):
    """Batch normalization with the statistics of the whole batch, on all devices: "SyncBN".

    Its results match those of PyTorch's `SyncBatchNorm`, whose moving variance is unbiased.

    Args:
        **kwargs: As in `keras.layers.BatchNormalization`.

    Input shape: `(..., C)`. Output shape: the same.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalizes `inputs`, of shape `(..., C)`."""
        if not training or not self.trainable:
            return super().call(inputs, training=False)
        x = ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        axes = list(range(len(x.shape) - 1))
        mean = ops.mean(x, axes)
        mean, devices = _mean_over_devices(mean)
        variance, _ = _mean_over_devices(ops.mean(ops.square(x - mean), axes))
        count = devices * ops.cast(ops.size(x) // x.shape[-1], x.dtype)
        unbiased = variance * (count / ops.maximum(count - 1, 1))
        for moving, value in ((self.moving_mean, mean), (self.moving_variance, unbiased)):
            kept = moving * self.momentum + ops.cast(value, moving.dtype) * (1 - self.momentum)
            moving.assign(kept)
        x = (x - mean) * (ops.rsqrt(variance + self.epsilon) * self.gamma) + self.beta
        return ops.cast(x, self.compute_dtype)


def _mean_over_devices(value: Any) -> tuple[Any, int]:
    """Returns the mean over the devices of a TensorFlow strategy, and their number."""
    if keras.config.backend() != "tensorflow":
        return value, 1
    import tensorflow as tf

    if not tf.distribute.has_strategy() or tf.distribute.in_cross_replica_context():
        return value, 1
    context = tf.distribute.get_replica_context()
    return (
        context.all_reduce(tf.distribute.ReduceOp.MEAN, value),
        context.num_replicas_in_sync,
    )


@_register
class PreLogits(keras.layers.Dense):
    """The hidden layer of a head: a dense layer with GELU.

    It has its own class because Keras names layers in weight files by their class, which tells it
    from the classifier.

    Args:
        units: int. Width.
        **kwargs: As in `keras.layers.Dense`.

    Input shape: `(N, C)`. Output shape: `(N, units)`.
    """

    def __init__(self, units: int, activation: Any = "gelu", **kwargs: Any) -> None:
        super().__init__(units, activation, **kwargs)


@_register
class DropPath(keras.layers.Dropout):
    """Stochastic depth: during training, drops the whole residual branch of some samples.

    The other samples are scaled by `1 / (1 - rate)`, so that the expectation is unchanged. A Keras
    seed generator draws the samples, so `keras.utils.set_random_seed` makes them reproducible.

    Args:
        rate: float in [0, 1). Probability that a sample's branch is dropped.
        seed: int or None. Seed of the generator. Defaults to None: a random seed.
        **kwargs: `name` and `dtype`, as in `keras.layers.Layer`.

    Input shape: `(N, H, W, C)`. Output shape: the same.

    Raises:
        RuntimeError: In training within `keras.remat`, with TensorFlow or PyTorch: recomputing for
            the gradient would draw other samples.

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
        """Draws the scale of each sample, of shape `(N, 1, 1, 1)`: 0 or `1 / (1 - rate)`."""
        if is_recomputed():
            raise RuntimeError(
                "keras.remat would make drop path draw again for the gradient, which would be "
                "wrong: build the network or block with remat=True instead. "
                f"Received: {printable(self.name)} with rate={self.rate} within keras.remat"
            )
        ones = ops.ones((ops.shape(inputs)[0], 1, 1, 1), self.compute_dtype)
        return keras.random.dropout(ones, self.rate, seed=self.seed_generator)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        config = super().get_config()
        del config["noise_shape"]
        return config
