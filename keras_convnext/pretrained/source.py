"""A tensor in a checkpoint, with its axes in our order."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.h5_file import H5Tensor
from keras_convnext.pretrained.layouts import KINDS
from keras_convnext.pretrained.memory import Unshared
from keras_convnext.pretrained.names import Form
from keras_convnext.pretrained.safetensors_file import SafeTensor
from keras_convnext.pretrained.stored_tensor import StoredTensor

MATRIX_AXES = KINDS["linear"]["kernel"][1]

Tensor = StoredTensor | SafeTensor | H5Tensor


@dataclass(frozen=True)
class Reshaped:
    """A tensor in a checkpoint, read in another shape.

    Args:
        tensor: StoredTensor, SafeTensor or H5Tensor.
        shape: tuple of int.
    """

    tensor: Tensor
    shape: tuple[int, ...]

    @property
    def path(self) -> Path:
        """The file."""
        return self.tensor.path

    @property
    def dtype(self) -> np.dtype:
        """The dtype."""
        return self.tensor.dtype

    def read(self, verify: bool = True) -> np.ndarray:
        """Reads the tensor in this shape."""
        return self.tensor.read(verify).reshape(self.shape)

    def pieces(self, elements: int, verify: bool = True) -> Iterator[np.ndarray]:
        """Yields the tensor in flat pieces."""
        return self.tensor.pieces(elements, verify)


class Source(NamedTuple):
    """A tensor in a checkpoint, read on demand.

    Args:
        key: str. Name in the file.
        tensor: StoredTensor, SafeTensor, H5Tensor or Reshaped.
        axes: tuple of int. The axes of the tensor in our order.
    """

    key: str
    tensor: Tensor | Reshaped
    axes: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape, with axes in our order."""
        return tuple(self.tensor.shape[axis] for axis in self.axes)

    def read(self) -> np.ndarray:
        """Reads the tensor with axes in our order, without verifying it again.

        float8, which not every backend supports, is converted to float32.
        """
        array = self._read()
        return array.astype("float32") if array.dtype.itemsize == 1 else array

    def _read(self) -> np.ndarray:
        shape = self.tensor.shape[: len(self.axes)]
        if len(self.axes) == 1:  # possibly between axes of length 1
            return self.tensor.read(verify=False).reshape(self.shape)
        if self.axes == tuple(range(len(self.axes))):
            return self.tensor.read(verify=False).reshape(shape)
        if self.axes != MATRIX_AXES:
            array = self.tensor.read(verify=False).reshape(shape)
            return np.ascontiguousarray(array.transpose(self.axes))
        # A matrix is transposed in strips while it is read: each strip fits the CPU cache, and no
        # second copy of the matrix is needed.
        array = Unshared.empty(shape[::-1], self.tensor.dtype)
        rows, columns = 16, shape[1]
        for index, piece in enumerate(self.tensor.pieces(rows * columns, verify=False)):
            strip = piece.reshape(-1, columns).T
            array[:, rows * index : rows * index + strip.shape[1]] = strip
        return array

    def check(self, dtype: str) -> None:
        """Reads and verifies the tensor.

        Args:
            dtype: str. The dtype that it will be cast to.

        Raises:
            CheckpointError: If the tensor is damaged or a value is not finite in `dtype`.
        """
        for piece in self.tensor.pieces(1 << 18):
            with np.errstate(over="ignore"):
                finite = np.isfinite(piece.astype(dtype, copy=False)).all()
            if not finite:
                raise CheckpointError(f"{self.key} contains NaN or infinite values in {dtype}")


def source_of(form: Form, tensor: Tensor) -> Source | None:
    """Returns a tensor with axes in our order, or None if the number of axes does not fit."""
    if form.ones < 0 or form.kind.startswith("grn"):
        *in_front, _ = tensor.shape or (0,)
        is_flat = len(tensor.shape) in range(1, 5) and all(side == 1 for side in in_front)
        return Source(form.key, tensor, (len(in_front),)) if is_flat else None
    if form.kind.startswith("sparse"):
        return _split(form, tensor)
    behind = tensor.shape[len(form.axes) :]
    if len(tensor.shape) < len(form.axes) or any(side != 1 for side in behind):
        return None
    return Source(form.key, tensor, _axes(form, tensor.shape))


def _split(form: Form, tensor: Tensor) -> Source | None:
    """Returns a sparse kernel, (positions, in, out) or (positions, channels), with two sides."""
    ones = (1,) if form.kind == "sparse dwconv" else ()
    if len(tensor.shape) != 3 - len(ones):
        return None
    positions, *channels = tensor.shape
    side = math.isqrt(positions)
    if side**2 != positions:
        return None
    return Source(form.key, Reshaped(tensor, (side, side, *channels, *ones)), form.axes)


def _axes(form: Form, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Their axes in our order; depthwise kernels are (h, w, 1, c) or, in ours, (h, w, c, 1)."""
    if form.kind == "conv2d grouped" and len(shape) == 4 and shape[2] > 1:
        return KINDS["block conv"]["kernel"][1]
    return form.axes
