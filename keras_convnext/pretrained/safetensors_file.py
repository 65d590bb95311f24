"""Reads safetensors files one tensor at a time, and writes them."""

import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.limits import check_number
from keras_convnext.pretrained.placeholder import Placeholder
from keras_convnext.pretrained.stored_tensor import FETCH, is_possible
from keras_convnext.printable import printable

_MAX_HEADER = 32 << 20  # bytes; that of the largest network has 70 kB

DTYPES = {
    "F64": np.dtype("float64"),
    "F32": np.dtype("float32"),
    "F16": np.dtype("float16"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "C64": np.dtype("complex64"),
    "I64": np.dtype("int64"),
    "I32": np.dtype("int32"),
    "I16": np.dtype("int16"),
    "I8": np.dtype("int8"),
    "U64": np.dtype("uint64"),
    "U32": np.dtype("uint32"),
    "U16": np.dtype("uint16"),
    "U8": np.dtype("uint8"),
    "BOOL": np.dtype("bool"),
}


@dataclass(frozen=True)
class SafeTensor:
    """A tensor in a safetensors file, read on demand.

    Args:
        path: Path. The file.
        key: str. Its name in the file.
        shape: tuple of int.
        dtype: np.dtype.
        start: int. Offset of its data in the file in bytes.
    """

    path: Path
    key: str
    shape: tuple[int, ...]
    dtype: np.dtype
    start: int

    def read(self, verify: bool = True) -> np.ndarray:
        """Reads the tensor. The format has no checksum to verify.

        Raises:
            CheckpointError: If the file was truncated after it was opened.
        """
        size = math.prod(self.shape) * self.dtype.itemsize
        data = np.fromfile(self.path, np.uint8, size, offset=self.start)
        if data.nbytes < size:
            raise CheckpointError(f"{self.path} was truncated while it was being read. {FETCH}")
        return data.view(self.dtype).reshape(self.shape)

    def pieces(self, elements: int, verify: bool = True) -> Iterator[np.ndarray]:
        """Yields the tensor in C order, `elements` at a time."""
        flat = self.read(verify).reshape(-1)
        yield from (flat[start : start + elements] for start in range(0, flat.size, elements))


def read_safetensors(path: str | Path) -> dict[str, SafeTensor | Placeholder]:
    """Reads the names and shapes in a safetensors file, without reading the tensors.

    Tensors of a dtype that NumPy does not support, such as F8_E4M3, become `Placeholder`s.

    Raises:
        CheckpointError: If the file is damaged, has another format, or contains only placeholders.
        FileNotFoundError: If the file does not exist.
    """
    path = Path(path)
    try:
        with safetensors.safe_open(path, "np"):  # checks the header
            header, start = _header(path)
        check_number(len(header))
        tensors = {key: _tensor(path, key, header[key], start) for key in sorted(header)}
    except safetensors.SafetensorError as error:
        raise CheckpointError(
            f"Not a valid safetensors file: {str(error)!a:.200}. Download it again (file: {path})"
        ) from error
    except CheckpointError as error:
        raise CheckpointError(f"{error} (file: {path})") from error
    if tensors and all(isinstance(tensor, Placeholder) for tensor in tensors.values()):
        kinds = ", ".join(sorted({str(tensor) for tensor in tensors.values()}))
        raise CheckpointError(
            f"The tensors have an unsupported dtype. Save the weights as float32, float16 or "
            f"bfloat16. Received: {kinds} (file: {path})"
        )
    return tensors


def _header(path: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """Returns the description of each tensor, and where their data starts in the file.

    Asking safetensors for one tensor after the other takes quadratic time.
    """
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > _MAX_HEADER:
            raise CheckpointError(
                f"The header has {size:,} bytes, far more than weights need. Use a file that "
                "contains only the weights"
            )
        header = json.loads(file.read(size))
        header.pop("__metadata__", None)
        return header, file.tell()


def _tensor(path: Path, key: str, told: dict[str, Any], start: int) -> SafeTensor | Placeholder:
    kind, shape = told["dtype"], tuple(told["shape"])
    if kind not in DTYPES:
        return Placeholder(f"safetensors.{kind}")
    if not is_possible(shape):
        raise CheckpointError(
            "A tensor has an impossible shape. Download the file again. "
            f"Received: shape={shape!s:.200}"
        )
    return SafeTensor(path, key, shape, DTYPES[kind], start + told["data_offsets"][0])


def write_safetensors(path: str | Path, tensors: Iterable[tuple[str, np.ndarray]]) -> None:
    """Writes (name, array) pairs to a temporary file, which is renamed when it is complete.

    Raises:
        OSError: If the file cannot be written; no partial file remains.
    """
    path = Path(path)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        arrays = {name: np.require(array, requirements="C") for name, array in tensors}
        partial.touch()
        mode = partial.stat().st_mode  # by the user's umask; safetensors makes files private
        safetensors.numpy.save_file(arrays, partial, metadata={"format": "pt"})
        partial.chmod(mode)
        os.replace(partial, path)
    except safetensors.SafetensorError as error:
        raise OSError(f"{printable(path)} could not be written: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
