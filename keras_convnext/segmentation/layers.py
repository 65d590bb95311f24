"""Layers of segmentation heads: pooling to a grid, and an output that only training uses."""

from typing import Any

import keras
from keras import ops

_register = keras.saving.register_keras_serializable(package="keras_convnext")


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
        _, height, width, _ = ops.shape(inputs)
        rows, columns = self._shares(height), self._shares(width)  # (n, H), (n, W)
        pooled = ops.einsum("ih,nhwc->niwc", rows, inputs)  # (N, n, W, C)
        return ops.einsum("jw,niwc->nijc", columns, pooled)  # (N, n, n, C)

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
    used by the loss only.

    Input shape: any two. Output shape: the first.
    """

    def call(self, inputs: Any, auxiliary: Any) -> Any:
        """Returns `inputs`."""
        return inputs

    def compute_output_shape(
        self, inputs_shape: tuple[int | None, ...], auxiliary_shape: tuple[int | None, ...]
    ) -> tuple[int | None, ...]:
        """Returns the shape of `inputs`."""
        return inputs_shape
