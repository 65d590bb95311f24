"""A tensor whose numbers are still in the file of PyTorch, and are read when asked for."""

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_convnext.pretrained.errors import CheckpointError

MAX_AXES = 32  # of an array in numpy 1
MAX_ELEMENTS = 2**48
FETCH = "Fetch the file again, from its publisher"


@dataclass(frozen=True)
class Storage:
    """The place of a storage's numbers in the file."""

    path: Path
    start: int
    size: int
    crc: int | None
    dtype: np.dtype


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a PyTorch file whose numbers are still in it.

    Args:
        shape: tuple of int.
        strides: tuple of int, in elements.
        offset: int. First element in the storage.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the numbers, `ml_dtypes.bfloat16` among them."""
        return self.storage.dtype

    def read(self, verify: bool = True) -> np.ndarray:
        """Reads the part of the storage that the tensor covers, and no more.

        Args:
            verify: bool. Whether to compare the checksum, which a whole storage has, unless torch
                was told to leave it out. Defaults to True.

        Raises:
            CheckpointError: If a whole storage was read and its checksum is not the file's.
        """
        itemsize = self.dtype.itemsize
        count = extent(self.shape, self.strides)
        with open(self.storage.path, "rb") as file:
            file.seek(self.storage.start + self.offset * itemsize)
            data = np.fromfile(file, np.uint8, count * itemsize)
        if data.nbytes < count * itemsize:
            raise _cut()
        verify &= self.storage.crc is not None and data.nbytes == self.storage.size
        if verify and zlib.crc32(data.data) != self.storage.crc:
            raise _damaged()
        strides = tuple(stride * itemsize for stride in self.strides)
        array = np.ndarray(self.shape, self.dtype, data, strides=strides)
        array.flags.writeable = False
        return array

    def pieces(self, elements: int, verify: bool = True) -> Iterator[np.ndarray]:
        """Reads the numbers in C order, so many at a time, which the caches like better than all.

        Args:
            elements: int. How many numbers a piece has; the last may have fewer.
            verify: bool. As in `read`.

        Returns:
            Iterator of flat arrays. Each is overwritten by the next.

        Raises:
            CheckpointError: As `read` does, after the last piece.
        """
        count = math.prod(self.shape)
        dense = self.strides == tuple(
            math.prod(self.shape[i + 1 :]) for i in range(len(self.shape))
        )
        if not dense or self.offset or count * self.dtype.itemsize != self.storage.size:
            flat = self.read(verify).reshape(-1)
            yield from (flat[start : start + elements] for start in range(0, count, elements))
            return
        verify &= self.storage.crc is not None
        piece, crc = np.empty(min(elements, count), self.dtype), 0
        with open(self.storage.path, "rb", buffering=0) as file:
            file.seek(self.storage.start)
            for start in range(0, count, elements):
                piece = piece[: count - start]
                if file.readinto(piece.view(np.uint8).data) != piece.nbytes:
                    raise _cut()
                crc = zlib.crc32(piece.view(np.uint8).data, crc) if verify else crc
                yield piece
        if verify and crc != self.storage.crc:
            raise _damaged()


def _damaged() -> CheckpointError:
    return CheckpointError(f"The numbers are damaged: a checksum does not match. {FETCH}")


def _cut() -> CheckpointError:
    return CheckpointError(f"The file was cut while it was read. {FETCH}")


def extent(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Number of elements from the first that a tensor reaches to the last."""
    if 0 in shape:
        return 0
    return 1 + sum((side - 1) * stride for side, stride in zip(shape, strides))


def is_possible(shape: tuple[int, ...]) -> bool:
    """Whether numpy can make an array of a shape, which needs no memory if a side is 0."""
    return (
        len(shape) <= MAX_AXES
        and all(0 <= side < MAX_ELEMENTS for side in shape)
        # numpy multiplies the other sides of a shape that has a 0 all the same.
        and math.prod(side or 1 for side in shape) < MAX_ELEMENTS
    )
