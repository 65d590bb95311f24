"""Tensors in a PyTorch file, read on demand."""

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_convnext.pretrained.errors import CheckpointError

MAX_AXES = 32  # the limit of NumPy 1
MAX_ELEMENTS = 2**48
FETCH = "Download the file again from its publisher"


@dataclass(frozen=True)
class Storage:
    """The location of a storage in the file."""

    path: Path
    start: int
    size: int
    crc: int | None
    dtype: np.dtype


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a PyTorch file.

    Args:
        storage: Storage. The storage that contains it.
        offset: int. Index of its first element in the storage.
        shape: tuple of int.
        strides: tuple of int. In elements.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def path(self) -> Path:
        """The file."""
        return self.storage.path

    @property
    def dtype(self) -> np.dtype:
        """The dtype, which may be `ml_dtypes.bfloat16`."""
        return self.storage.dtype

    def read(self, verify: bool = True) -> np.ndarray:
        """Reads only the part of the storage that the tensor covers.

        Args:
            verify: bool. Whether to verify the checksum if the tensor covers its whole storage and
                the file has checksums (torch can omit them). Defaults to True.

        Raises:
            CheckpointError: If the file is truncated or the checksum does not match.
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
        """Yields the tensor in C order, in pieces that fit the CPU caches.

        Args:
            elements: int. Number of elements per piece; the last may have fewer.
            verify: bool. As in `read`.

        Yields:
            Flat arrays, each of which is overwritten by the next.

        Raises:
            CheckpointError: As in `read`, after the last piece.
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
    return CheckpointError(f"The file is damaged: a checksum does not match. {FETCH}")


def _cut() -> CheckpointError:
    return CheckpointError(f"The file was truncated while it was being read. {FETCH}")


def extent(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Number of elements of the storage from the tensor's first element to its last."""
    if 0 in shape:
        return 0
    return 1 + sum((side - 1) * stride for side, stride in zip(shape, strides))


def is_possible(shape: tuple[int, ...]) -> bool:
    """Whether NumPy can create an array of a shape, even an empty one."""
    return (
        len(shape) <= MAX_AXES
        and all(0 <= side < MAX_ELEMENTS for side in shape)
        # NumPy multiplies the other sides even if one side is 0.
        and math.prod(side or 1 for side in shape) < MAX_ELEMENTS
    )
