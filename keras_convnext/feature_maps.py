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
