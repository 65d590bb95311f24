"""The ConvNeXt block as one layer: figure 4 of "A ConvNet for the 2020s" (arXiv 2201.03545).

With `grn=True` it is the block of ConvNeXt V2: figure 5 of arXiv 2301.00808.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_convnext.arithmetic import remat, residual_of, tensorflow_on_cpu
from keras_convnext.initializers import kernel_initializer
from keras_convnext.layers import DropPath, GlobalResponseNormalization, LayerNormalization


@keras.saving.register_keras_serializable(package="keras_convnext")
class Block(keras.layers.Layer):
    """A residual block: depthwise convolution, norm, and two pointwise layers with a GELU between.

    Example:

    ```python
    block = keras_convnext.Block(96, drop_path=0.1)
    y = block(x)  # (N, H, W, 96) -> (N, H, W, 96)
    ```

    Args:
        dim: int. Channels of the input and the output.
        kernel_size: int. Side of the depthwise kernels. Defaults to 7.
        expansion: int. Hidden width of the pointwise layers, as a multiple of `dim`. Defaults to 4.
        layer_scale: float or None. Initial value of `gamma`, the learned scale of each channel of
            the branch. None disables it. Defaults to 1e-6.
        drop_path: float in [0, 1). Probability that the branch of a sample is dropped during
            training. Defaults to 0.
        stddev: float or None. Standard deviation of the initial kernels. None means
            `1 / sqrt(fan_in)`. Defaults to 0.02.
        remat: bool. Whether training stores only the input of the branch and recomputes the rest
            for the gradient. Drop path is not drawn again. Defaults to False.
        epsilon: float. Added to the variance in the norm. Defaults to 1e-6.
        grn: bool. Whether the GELU is followed by global response normalization, as in ConvNeXt V2.
            Such a block has no layer scale, and ignores `layer_scale`. Defaults to False.
        **kwargs: `name`, `dtype` and `trainable`, as in `keras.layers.Layer`.

    Input shape: `(N, H, W, dim)`. Output shape: the same.

    References:
        Touvron et al., "Going deeper with Image Transformers", arXiv 2103.17239 (layer scale).
        Chen et al., "Training Deep Nets with Sublinear Memory Cost", arXiv 1604.06174 (remat).
        Woo et al., "ConvNeXt V2", CVPR 2023, arXiv 2301.00808 (global response normalization).
    """

    def __init__(
        self,
        dim: int,
        kernel_size: int = 7,
        expansion: int = 4,
        layer_scale: float | None = 1e-6,
        drop_path: float = 0.0,
        stddev: float | None = 0.02,
        remat: bool = False,
        epsilon: float = 1e-6,
        grn: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.dim, self.kernel_size, self.expansion = dim, kernel_size, expansion
        self.layer_scale = None if grn else layer_scale
        self.stddev, self.remat = stddev, remat
        # oneDNN's depthwise convolution is sixty times faster than XLA's.
        self.supports_jit = not tensorflow_on_cpu()
        dtype = self.dtype_policy
        with keras.RematScope(mode=None):  # the block rematerializes as a whole
            self.dwconv = keras.layers.DepthwiseConv2D(
                kernel_size,
                padding="same",
                data_format="channels_last",
                depthwise_initializer=kernel_initializer(stddev, kernel_size**2),
                dtype=dtype,
                name="dwconv",
            )
            self.norm = LayerNormalization(epsilon=epsilon, dtype=dtype, name="norm")
            self.pwconv1 = keras.layers.Dense(
                expansion * dim,
                kernel_initializer=kernel_initializer(stddev, dim),
                dtype=dtype,
                name="pwconv1",
            )
            self.grn = GlobalResponseNormalization(dtype=dtype, name="grn") if grn else None
            self.pwconv2 = keras.layers.Dense(
                dim,
                kernel_initializer=kernel_initializer(stddev, expansion * dim),
                dtype=dtype,
                name="pwconv2",
            )
            self.drop_path = DropPath(drop_path, dtype=dtype, name="drop_path")

    def parts(self) -> tuple[keras.layers.Layer, ...]:
        """Returns the layers with weights, in the order they are called."""
        grn = () if self.grn is None else (self.grn,)
        return self.dwconv, self.norm, self.pwconv1, *grn, self.pwconv2

    def replace(self, **layers: keras.layers.Layer) -> None:
        """Replaces layers with weights, and keeps the order of the weights."""
        for part in self.parts():
            self._tracker.untrack(part)
            setattr(self, part.name, layers.get(part.name, part))

    @property
    def is_plain(self) -> bool:
        """Whether it is not a subclass, which may compute something else."""
        return type(self) is Block

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Creates `gamma`, of shape `(dim,)`, and the weights of the layers."""
        self.gamma = None
        if self.layer_scale is not None:
            self.gamma = self.add_weight(
                name="gamma",
                shape=(self.dim,),
                initializer=keras.initializers.Constant(self.layer_scale),
                dtype=_at_least_float32(self.variable_dtype),  # float16 cannot hold 1e-6
                autocast=False,
            )
        self.dwconv.build(input_shape)
        self.norm.build(input_shape)
        self.pwconv1.build((None, self.dim))
        if self.grn is not None:
            self.grn.build((*input_shape[:-1], self.expansion * self.dim))
        self.pwconv2.build((None, self.expansion * self.dim))
        self.drop_path.build(input_shape)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Adds the branch to `inputs`, of shape `(N, H, W, dim)`."""
        residual = residual_of(self, inputs, training)
        if not training:
            return residual(inputs)
        # Drawn outside of `remat`, which would draw again.
        keep = [self.drop_path.draw(inputs)] if self.drop_path.rate > 0 else []
        if self.remat:
            return remat(lambda x: residual(x, *keep))(inputs)
        return residual(inputs, *keep)

    def residual(self, x: Any, keep: Any = None) -> Any:
        """Computes the block with Keras operations.

        Args:
            x: tensor of shape `(N, H, W, dim)`.
            keep: tensor of shape `(N, 1, 1, 1)` or None. Scale of the branch, from drop path.

        Returns:
            A tensor of shape `(N, H, W, dim)`.
        """
        branch = self.mlp(self.dwconv(x))  # (N, H, W, C)
        return x + (branch if keep is None else keep * branch)

    def mlp(self, x: Any) -> Any:
        """Computes the norm, the pointwise layers and layer scale, on one row per position.

        Only global response normalization sees more than one position.
        """
        shape = ops.shape(x)
        x = self.norm(x)  # (N, H, W, C)
        x = ops.reshape(x, (-1, self.dim))  # (N*H*W, C)
        x = self.pwconv1(x)  # (N*H*W, 4C)
        x = ops.gelu(x, approximate=False)
        if self.grn is not None:
            hidden = self.expansion * self.dim
            x = self.grn(ops.reshape(x, (*shape[:-1], hidden)))  # (N, H, W, 4C)
            x = ops.reshape(x, (-1, hidden))
        x = self.pwconv2(x)  # (N*H*W, C)
        if self.gamma is not None:
            x = ops.cast(ops.cast(x, self.gamma.dtype) * self.gamma, self.compute_dtype)
        return ops.reshape(x, shape)  # (N, H, W, C)

    def rematerialized_call(
        self, layer_call: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Callable[..., Any]:
        """Sets `remat` if the enclosing `keras.RematScope` applies, and returns `layer_call`.

        The block rematerializes itself, since Keras' wrapper would draw drop path again for the
        gradient.
        """
        if super().rematerialized_call(layer_call, *args, **kwargs) is not layer_call:
            self.remat = True
        return layer_call

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns `input_shape`."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, and later changes such as LoRA or quantization."""
        config = super().get_config()
        dense = {layer.name: layer.get_config() for layer in (self.pwconv1, self.pwconv2)}
        for own in dense.values():
            if own["dtype"] == config["dtype"]:
                del own["dtype"]  # same as the block's, unless the layer is quantized
        plain = ("dim", "kernel_size", "expansion", "layer_scale", "stddev", "remat")
        return {
            **config,
            **{name: getattr(self, name) for name in plain},
            "drop_path": self.drop_path.rate,
            "epsilon": self.norm.epsilon,
            "grn": self.grn is not None,
            "dense": dense,
            "frozen": [part.name for part in (self.dwconv, self.norm) if not part.trainable],
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Block":
        """Creates a block from its config, including quantization, LoRA and frozen layers."""
        config = dict(config)
        dense, frozen = config.pop("dense", {}), config.pop("frozen", ())
        block = super().from_config(config)
        made = {}
        for name, own in dense.items():
            made[name] = keras.layers.Dense.from_config({"dtype": block.dtype_policy, **own})
        block.replace(**made)
        for name in frozen:
            getattr(block, name).trainable = False
        return block


def _at_least_float32(dtype: str) -> str:
    return keras.backend.result_type(dtype, "float32")
