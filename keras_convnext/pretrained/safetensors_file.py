"""Reads safetensors files one tensor at a time, and writes them."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.placeholder import Placeholder
from keras_convnext.pretrained.stored_tensor import is_possible
from keras_convnext.printable import printable

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
    """A tensor in a safetensors file, read on demand."""

    path: Path
    key: str
    shape: tuple[int, ...]
    dtype: np.dtype

    def read(self, verify: bool = True) -> np.ndarray:
        """Reads the tensor. The format has no checksum to verify."""
        with safetensors.safe_open(self.path, "np") as file:
            return file.get_tensor(self.key)

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
        with safetensors.safe_open(path, "np") as file:
            tensors = {
                key: _tensor(path, key, tuple(tensor.get_shape()), tensor.get_dtype())
                for key in file.keys()  # noqa: SIM118  (the file is not a dict)
                if (tensor := file.get_slice(key))
            }
    except safetensors.SafetensorError as error:
        raise CheckpointError(
            f"Not a valid safetensors file: {str(error)!a:.200}. Download it again (file: {path})"
        ) from error
    if tensors and all(isinstance(tensor, Placeholder) for tensor in tensors.values()):
        kinds = ", ".join(sorted({str(tensor) for tensor in tensors.values()}))
        raise CheckpointError(
            f"The tensors have an unsupported dtype. Save the weights as float32, float16 or "
            f"bfloat16. Received: {kinds} (file: {path})"
        )
    return tensors


def _tensor(path: Path, key: str, shape: tuple[int, ...], kind: str) -> SafeTensor | Placeholder:
    if kind not in DTYPES:
        return Placeholder(f"safetensors.{kind}")
    if not is_possible(shape):
        raise CheckpointError(
            "A tensor has an impossible shape. Download the file again. "
            f"Received: shape={shape!s:.200} (file: {path})"
        )
    return SafeTensor(path, key, shape, DTYPES[kind])


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
