"""Arrays whose memory a backend may take over."""

import math
from typing import Literal

import numpy as np


class Unshared(np.ndarray):
    """An array without other owners, so that a backend may use its memory for a tensor.

    TensorFlow would copy an array twice: once to protect it from later changes and once to align
    it. For the weights of a large network, that takes as long as reading them.
    """

    @classmethod
    def empty(cls, shape: tuple[int, ...], dtype: np.dtype) -> "Unshared":
        """Returns an uninitialized array, aligned as TensorFlow requires to avoid a copy."""
        size, alignment = math.prod(shape) * dtype.itemsize, 64
        memory = np.empty(size + alignment, np.uint8)
        start = -memory.ctypes.data % alignment
        return memory[start : start + size].view(dtype).reshape(shape).view(cls)

    def copy(self, order: Literal["K", "A", "C", "F"] | None = "C") -> "Unshared":
        """Returns the array itself."""
        return self
