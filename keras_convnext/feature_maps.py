"""Feature maps for dense prediction: those of a backbone, and the layers that heads share."""

from typing import Any

import keras
from keras import ops

from keras_convnext.layers import LayerNormalization
from keras_convnext.trunks import Trunk, reaching, trunk_of

_register = keras.saving.register_keras_serializable(package="keras_convnext")


def pyramid_features(model: keras.Model) -> keras.Model:
    """Builds a model that returns the feature map of each stage, for dense prediction.

    Example:

    ```python
    trunk = keras_convnext.ConvNeXtTiny(include_top=False, weights=None)
    maps = keras_convnext.pyramid_features(trunk)(images)
    maps["P3"].shape  # (N, H/8, W/8, 192)
    ```

    Args:
        model: keras.Model. A hierarchical ConvNeXt, with or without its top, or a model that
            contains one. The layers are shared with it, not copied.

    Returns:
        A keras.Model with the same input and a dict of feature maps `P2` to `P5`: `Pn` has stride
        2**n. The maps are not normalized; detectors and segmenters add a norm to each.

    Raises:
        ValueError: If the model does not contain exactly one ConvNeXt, if that is isotropic, or if
            it is called several times or from a custom `call`.
    """
    trunk = trunk_of(model)
    maps = {level: block.output for level, block in trunk.ends_of_stages().items()}
    pyramid = keras.Model(trunk.model.input, maps, name=f"{model.name}_pyramid")
    return reaching(model, trunk, pyramid)


def normalized_maps(model: keras.Model, prefix: str = "") -> list[Any]:
    """Returns the normalized feature map of each stage, as detectors and segmenters expect them.

    The norms are new layers, `norm_0` to `norm_3`. The next stage takes the map without norm.

    Args:
        model: keras.Model. A hierarchical ConvNeXt.
        prefix: str. Prefix of the names of the norms. Defaults to "".

    Returns:
        List of Keras tensors (N, H/4, W/4, C) to (N, H/32, W/32, 8C).

    References:
        facebookresearch/ConvNeXt, semantic_segmentation/backbone/convnext.py.
    """
    trunk: Trunk = trunk_of(model)
    return [
        LayerNormalization(epsilon=trunk.blocks[0].norm.epsilon, name=f"{prefix}norm_{stage}")(
            block.output
        )
        for stage, block in enumerate(trunk.ends_of_stages().values())
    ]


@_register
class ResizeLike(keras.layers.Layer):
    """Resizes feature maps to the height and width of other ones, by bilinear interpolation.

    The centers of the corner pixels are not aligned, and nothing is antialiased: PyTorch's
    `interpolate(mode="bilinear", align_corners=False)`.

    Input shape: maps `(N, H, W, C)` and `like`, `(N, H', W', C')`. Output shape: `(N, H', W', C)`.
    """

    def call(self, maps: Any, like: Any) -> Any:
        """Resizes `maps`, of shape `(N, H, W, C)`."""
        size = ops.shape(like)[1:3]
        if keras.config.backend() == "tensorflow":  # keras.ops refuses sizes that are tensors
            import tensorflow as tf

            resized = tf.image.resize(maps, size)
        else:
            resized = ops.image.resize(
                maps, size, "bilinear", antialias=False, data_format="channels_last"
            )
        return ops.cast(resized, self.compute_dtype)

    def compute_output_shape(
        self, maps_shape: tuple[int | None, ...], like_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        """Returns the shape of the resized maps."""
        return (maps_shape[0], *like_shape[1:3], maps_shape[-1])


@_register
class LargestOfResized(keras.layers.Layer):
    """Returns the channel with the largest value after `ResizeLike`, without the resized maps.

    Rows are resized one at a time, in float32, in the order of TensorFlow's `tf.image.resize`.

    Input shape: maps `(N, H, W, C)` and `like`, `(N, H', W', C')`. Output shape: `(N, H', W')`,
    int32.
    """

    def call(self, maps: Any, like: Any) -> Any:
        """Returns the channels of `maps`, of shape `(N, H, W, C)`."""
        maps = ops.cast(maps, keras.backend.result_type(maps.dtype, "float32"))
        _, height, width, _ = ops.shape(maps)
        _, rows, columns, _ = ops.shape(like)
        above, below, down = _neighbors(height, rows)
        left, right, along = _neighbors(width, columns)
        along = along[:, None]  # (W', 1)

        def wider(row: Any) -> Any:  # (N, W, C) -> (N, W', C)
            first = ops.take(row, left, axis=1)
            return first + along * (ops.take(row, right, axis=1) - first)

        def largest(index: Any) -> Any:  # (N, W')
            upper = wider(ops.take(maps, above[index], axis=1))
            lower = wider(ops.take(maps, below[index], axis=1))
            return ops.cast(ops.argmax(upper + down[index] * (lower - upper), axis=-1), "int32")

        return ops.swapaxes(ops.map(largest, ops.arange(rows)), 0, 1)

    def compute_output_spec(self, maps: Any, like: Any) -> keras.KerasTensor:
        """Returns the shape and dtype of the channels."""
        return keras.KerasTensor((maps.shape[0], *like.shape[1:3]), "int32")


def _neighbors(side: Any, resized: Any) -> tuple[Any, Any, Any]:
    """Returns, for each position of a resized side, the two next to it and the second's share."""
    scale = ops.cast(side, "float32") / ops.cast(resized, "float32")
    at = (ops.cast(ops.arange(resized), "float32") + 0.5) * scale - 0.5
    first = ops.floor(at)
    last = ops.cast(side, "int32") - 1
    indices = (ops.clip(ops.cast(each, "int32"), 0, last) for each in (first, first + 1))
    return *indices, at - first


def with_values(model: keras.Model) -> keras.Model:
    """Returns a model of `LargestOfResized` with the resized values as its output.

    Args:
        model: keras.Model. Any other model is returned as it is.
    """
    last = model.layers[-1]
    if not isinstance(last, LargestOfResized):
        return model
    maps, like = last.input
    resize = ResizeLike(dtype="float32", name=f"{last.name}_values")
    return keras.Model(model.input, resize(maps, like), name=model.name)


@_register
class PoolToGrid(keras.layers.Layer):
    """Averages feature maps over the cells of a grid: PyTorch's `AdaptiveAvgPool2d`.

    Cell `i` of `n` covers the rows from `floor(i * H / n)` to `ceil((i + 1) * H / n)`. Cells
    overlap if `n` does not divide the height, which may also be smaller than `n`.

    Args:
        grid: int. Rows and columns of the grid.
        **kwargs: `name` and `dtype`, as in `keras.layers.Layer`.

    Input shape: `(N, H, W, C)`. Output shape: `(N, grid, grid, C)`.
    """

    def __init__(self, grid: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.grid = grid

    def call(self, inputs: Any) -> Any:
        """Averages `inputs`, of shape `(N, H, W, C)`."""
        _, height, width, channels = ops.shape(inputs)
        rows, columns = self._shares(height), self._shares(width)  # (n, H), (n, W)
        # As products of matrices, since LiteRT's converter mixes up the shapes of an einsum.
        pooled = rows @ ops.reshape(inputs, (-1, height, width * channels))  # (N, n, W * C)
        pooled = columns @ ops.reshape(pooled, (-1, width, channels))  # (N * n, n, C)
        return ops.reshape(pooled, (-1, self.grid, self.grid, channels))  # (N, n, n, C)

    def _shares(self, side: Any) -> Any:
        """Returns the weight of each position in the mean of each cell, of shape (grid, side)."""
        cell = ops.arange(self.grid)[:, None]
        first = cell * side // self.grid
        end = -(-(cell + 1) * side // self.grid)
        position = ops.arange(side)[None]
        inside = ops.logical_and(position >= first, position < end)
        inside, count = (ops.cast(each, self.compute_dtype) for each in (inside, end - first))
        return inside / count

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        """Returns the shape of the means."""
        return (input_shape[0], self.grid, self.grid, input_shape[-1])

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "grid": self.grid}


@_register
class PyramidConv2D(keras.layers.Layer):
    """Convolves the concatenation of feature maps that are all resized to the size of the first.

    The output is that of `ResizeLike`, a concatenation and `keras.layers.Conv2D`, at a lower cost,
    because weighting channels and interpolating positions can be exchanged: coarse maps are
    multiplied by each tap of the kernel at their own size, and the products are interpolated at the
    tap's positions. Neither the resized maps nor their concatenation exist. The fusion of UperNet
    takes a third of the multiplications, and a quarter of the time on a CPU.

    Args:
        filters: int. Channels of the output.
        kernel_size: int. Side of the kernel, odd. Defaults to 3.
        use_bias: bool. Whether to add a bias. Defaults to True.
        kernel_initializer: initializer, or its name or configuration. Defaults to
            "glorot_uniform".
        bias_initializer: as kernel_initializer. Defaults to "zeros".
        **kwargs: `name`, `dtype` and `trainable`, as in `keras.layers.Layer`.

    Input shape: list of maps `(N, H, W, C)`, `(N, H', W', C')` and so on, from fine to coarse.
    Output shape: `(N, H, W, filters)`. The border is padded with zeros.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int = 3,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.filters, self.kernel_size, self.use_bias = filters, kernel_size, use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)

    def build(self, input_shape: list[tuple[int | None, ...]]) -> None:
        """Creates the weights: the kernel covers the channels of all maps, in their order."""
        self.channels = [int(shape[-1] or 0) for shape in input_shape]
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.kernel_size, self.kernel_size, sum(self.channels), self.filters),
            initializer=self.kernel_initializer,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias", shape=(self.filters,), initializer=self.bias_initializer
            )

    def call(self, inputs: list[Any]) -> Any:
        """Convolves maps of shapes `(N, H, W, C)`, `(N, H', W', C')` and so on."""
        fine, *coarse = inputs
        starts = [sum(self.channels[:number]) for number in range(1, len(inputs))]
        kernel, *kernels = ops.split(self.kernel, starts, axis=2)
        x = ops.conv(fine, kernel, padding="same", data_format="channels_last")  # (N, H, W, F)
        for maps, kernel in zip(coarse, kernels):
            x = x + self._interpolated(maps, kernel, ops.shape(fine)[1:3])
        return x if self.bias is None else x + self.bias

    def _interpolated(self, maps: Any, kernel: Any, size: tuple[Any, Any]) -> Any:
        """Convolves one of the coarse maps, `(N, h, w, C)`, at the positions of the first."""
        _, h, w, channels = ops.shape(maps)
        (height, width), taps, filters = size, self.kernel_size, self.filters
        kernel = ops.transpose(kernel, (0, 2, 1, 3))
        kernel = ops.reshape(kernel, (1, taps, channels, taps * filters))
        x = ops.reshape(maps, (-1, 1, h * w, channels)) @ kernel  # (N, taps, h * w, taps * F)
        x = ops.reshape(x, (-1, taps * h, w * taps, filters))
        across = ops.transpose(self._weights(w, width), (0, 2, 1))  # (W, w, taps)
        x = ops.reshape(across, (width, w * taps)) @ x  # (N, taps * h, W, F)
        down = ops.reshape(self._weights(h, height), (height, taps * h))
        x = down @ ops.reshape(x, (-1, taps * h, width * filters))  # (N, H, W * F)
        return ops.reshape(x, (-1, height, width, filters))

    def _weights(self, side: Any, resized: Any) -> Any:
        """Returns the weights of the `side` positions of a map at the taps of a resized one.

        Args:
            side: int. Positions of the map.
            resized: int. Positions of the resized map.

        Returns:
            Tensor (resized, kernel_size, side). Each row sums to 1, or to 0 outside of the map.
        """
        taps = ops.arange(self.kernel_size) - self.kernel_size // 2
        position = ops.arange(resized)[:, None] + taps
        inside = ops.logical_and(position >= 0, position < resized)
        ratio = ops.cast(side, "float32") / ops.cast(resized, "float32")
        source = (ops.cast(position, "float32") + 0.5) * ratio - 0.5
        source = ops.clip(source, 0, ops.cast(side - 1, "float32"))
        distance = ops.abs(source[..., None] - ops.cast(ops.arange(side), "float32"))
        weights = ops.relu(1 - distance) * ops.cast(inside, "float32")[..., None]
        return ops.cast(weights, self.compute_dtype)

    def compute_output_shape(
        self, input_shape: list[tuple[int | None, ...]]
    ) -> tuple[int | None, ...]:
        """Returns the shape of the output."""
        return (*input_shape[0][:-1], self.filters)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }


@_register
class WithAuxiliary(keras.layers.Layer):
    """Returns its first input, and keeps the second one in the model.

    An auxiliary head is trained with the network, and belongs to its weights, but its output is
    used by the loss only. `call_graph` omits it at inference.

    Input shape: any two. Output shape: the first.
    """

    is_only_trained = True  # read by `call_graph`

    def call(self, inputs: Any, auxiliary: Any) -> Any:
        """Returns `inputs`."""
        return inputs

    def compute_output_shape(
        self, inputs_shape: tuple[int | None, ...], auxiliary_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        """Returns the shape of `inputs`."""
        return inputs_shape
