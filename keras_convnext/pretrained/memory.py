"""Arrays that a backend may keep."""

import math
from typing import Literal

import numpy as np


class Unshared(np.ndarray):
    """An array that is handed over for good, so that a backend may keep its memory as a tensor's.

    TensorFlow copies an array twice, once lest somebody change it and once to align it; for the
    weights of a large network that takes as long as reading them.
    """

    @classmethod
    def empty(cls, shape: tuple[int, ...], dtype: np.dtype) -> "Unshared":
        """Makes an array of arbitrary numbers, aligned as TensorFlow likes it."""
        size, alignment = math.prod(shape) * dtype.itemsize, 64
        memory = np.empty(size + alignment, np.uint8)
        start = -memory.ctypes.data % alignment
        return memory[start : start + size].view(dtype).reshape(shape).view(cls)

    def copy(self, order: Literal["K", "A", "C", "F"] | None = "C") -> "Unshared":
        """Returns the array itself."""
        return self
