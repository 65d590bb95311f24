"""PyTorch files (`.pth`), written without PyTorch."""

import math
import os
import struct
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from keras_convnext.pretrained.torch_dtypes import STORAGE_DTYPES

_STORAGE_CLASSES = {dtype.name: dotted for dotted, dtype in STORAGE_DTYPES.items()}


def write_torch_file(
    path: str | Path, tensors: Iterable[tuple[str, np.ndarray]], key: str | None = "model"
) -> None:
    """Writes `{key: tensors}` as `torch.save` would, for `torch.load(weights_only=True)`.

    The file appears under its name once it is whole.

    Args:
        path: str or path.
        tensors: iterable of (name, array). Taken one at a time, so a generator saves memory.
        key: str or None. Where the tensors stand; None if they are all there is. Defaults to
            "model", as in the official files.

    Raises:
        ValueError: If an array is of a dtype that cannot be written.
        OSError: If the file cannot be written; nothing is left of it in either case.
    """
    path = Path(path)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            described = []
            for index, (name, tensor) in enumerate(tensors):
                if tensor.dtype.name not in _STORAGE_CLASSES:
                    raise ValueError(
                        f"A .pth file takes {', '.join(_STORAGE_CLASSES)}. "
                        f"Received: {name} of dtype {tensor.dtype.name}"
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
    """The numbers in C order: the array itself or, if they lie otherwise, some rows at a time."""
    if array.flags.c_contiguous or array.ndim < 2:
        yield np.ascontiguousarray(array)
        return
    for start in range(0, len(array), 64):
        rows = array[start : start + 64]
        strip = np.empty(rows.shape, rows.dtype)
        for column in range(0, rows.shape[1], 128):
            # Copied as it lies first: the rows of a large matrix are a power of two apart, and so
            # share the same few lines of the cache.
            block = rows[:, column : column + 128].copy("K")
            strip[:, column : column + 128] = block
        yield strip


def _dump(tensors: Iterable[tuple[str, str, str, tuple[int, ...]]], key: str | None) -> bytes:
    """Returns the pickle that `torch.save({key: tensors})` makes, or `torch.save(tensors)`.

    Args:
        tensors: iterable of (name, storage key, dtype name, shape). Each is the whole of a storage
            of its own, in C order.
        key: str or None. Where the dict of tensors stands; None if it is all there is.
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
