"""Writes PyTorch files (`.pth`) without PyTorch."""

import math
import os
import struct
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from keras_convnext.pretrained.torch_dtypes import STORAGE_DTYPES
from keras_convnext.printable import printable

_STORAGE_CLASSES = {dtype.name: dotted for dotted, dtype in STORAGE_DTYPES.items()}


def write_torch_file(
    path: str | Path, tensors: Iterable[tuple[str, np.ndarray]], key: str | None = "model"
) -> None:
    """Writes `{key: tensors}` as `torch.save` does, for `torch.load(path, weights_only=True)`.

    The file is written under a temporary name and renamed when it is complete.

    Args:
        path: str or path. The file to write.
        tensors: iterable of (name, array). Consumed one at a time, so a generator saves memory.
        key: str or None. The key of the dict of tensors; None to save the dict itself. Defaults to
            "model", as in the official files.

    Raises:
        ValueError: If the dtype of an array is not supported.
        OSError: If the file cannot be written. No partial file remains in either case.
    """
    path = Path(path)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            described = []
            for index, (name, tensor) in enumerate(tensors):
                if tensor.dtype.name not in _STORAGE_CLASSES:
                    raise ValueError(
                        f"A .pth file supports the dtypes {', '.join(_STORAGE_CLASSES)}. "
                        f"Received: {printable(name)} of dtype {tensor.dtype.name}"
                    )
                array = np.asarray(tensor, tensor.dtype.newbyteorder("="))
                described.append((name, str(index), array.dtype.name, array.shape))
                with archive.open(f"archive/data/{index}", "w", force_zip64=True) as entry:
                    for strip in _strips(array):
                        entry.write(strip.reshape(-1).view(np.uint8).data)
            archive.writestr("archive/data.pkl", _dump(described, key))
            archive.writestr("archive/byteorder", "little")
            archive.writestr("archive/version", "3\n")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _strips(array: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the array in C order: as a whole if it is contiguous, else in strips of rows."""
    if array.flags.c_contiguous or array.ndim < 2:
        yield np.ascontiguousarray(array)
        return
    for start in range(0, len(array), 64):
        rows = array[start : start + 64]
        strip = np.empty(rows.shape, rows.dtype)
        for column in range(0, rows.shape[1], 128):
            # First copied in memory order: the rows of a large matrix are a power of two apart, so
            # they compete for the same few cache lines.
            block = rows[:, column : column + 128].copy("K")
            strip[:, column : column + 128] = block
        yield strip


def _dump(tensors: Iterable[tuple[str, str, str, tuple[int, ...]]], key: str | None) -> bytes:
    """Returns the pickle written by `torch.save({key: tensors})`, or `torch.save(tensors)`.

    Args:
        tensors: iterable of (name, storage key, dtype name, shape). Each tensor fills one storage,
            in C order.
        key: str or None. The key of the dict of tensors; None to save the dict itself.
    """
    opening = b"" if key is None else b"}" + _text(key)  # {, key
    pickled = [b"\x80\x02", opening, b"}("]  # PROTO 2, {, MARK
    for name, storage_key, dtype, shape in tensors:
        strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
        pickled += [
            _text(name),
            b"ctorch._utils\n_rebuild_tensor_v2\n((",  # GLOBAL, MARK, MARK
            _text("storage"),
            f"c{_STORAGE_CLASSES[dtype].replace('.', chr(10))}\n".encode(),  # GLOBAL
            _text(storage_key),
            _text("cpu"),
            _integer(math.prod(shape)),
            b"tQ",  # TUPLE, BINPERSID
            _integer(0),
            b"(" + b"".join(map(_integer, shape)) + b"t",
            b"(" + b"".join(map(_integer, strides)) + b"t",
            b"\x89ccollections\nOrderedDict\n)R",  # NEWFALSE, GLOBAL, (), REDUCE
            b"tR",  # TUPLE, REDUCE
        ]
    return b"".join([*pickled, b"u." if key is None else b"us."])  # SETITEMS, (SETITEM,) STOP


def _text(text: str) -> bytes:
    encoded = text.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded  # BINUNICODE


def _integer(number: int) -> bytes:
    return b"J" + struct.pack("<i", number)  # BININT
