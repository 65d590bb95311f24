"""PyTorch files (`.pth`), read without PyTorch.

Such a file is an uncompressed zip archive: `data.pkl` describes the objects, and the numbers of
each storage lie in an entry `data/KEY` of their own.
"""

import io
import os
import struct
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from keras_convnext.pretrained import torch_pickle
from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.foreign_files import foreign_file
from keras_convnext.pretrained.placeholder import Placeholder
from keras_convnext.pretrained.stored_tensor import (
    FETCH,
    MAX_AXES,
    MAX_ELEMENTS,
    Storage,
    StoredTensor,
    extent,
    is_possible,
)
from keras_convnext.pretrained.torch_dtypes import (
    STORAGE_DTYPES,
    TENSOR_DTYPES,
    UNTYPED_STORAGE,
)
from keras_convnext.pretrained.torch_objects import Name

# A training checkpoint of the largest network lists its entries in 0.2 MB, and describes itself in
# as much; what else was saved, such as the losses of all steps, may take more.
_MAX_DIRECTORY_BYTES = 2 << 20
MAX_DESCRIPTION_BYTES = 32 << 20
_ENCRYPTED_OR_PATCHED = 0x61
_LOCAL_HEADER = struct.Struct("<4s22xHH")


def read_torch_file(path: str | Path) -> Any:
    """Reads what `torch.save` wrote, leaving the numbers in the file.

    Nothing in the file is run or imported, and memory is bounded by its description.

    Args:
        path: str or path.

    Returns:
        What was saved: dicts, lists, tuples, numbers and text. Tensors come as `StoredTensor`s,
        sets as lists, classes and functions as their names, and all other objects, among them
        tensors that numpy cannot have, as `Placeholder`s.

    Raises:
        CheckpointError: If the file is damaged, is no PyTorch archive, or is unsafe elsewhere.
        FileNotFoundError: If there is no such file.
    """
    path = Path(path)
    try:
        with _FrugalFile(open(path, "rb", buffering=0)) as file, zipfile.ZipFile(file) as archive:
            entries = _checked_entries(archive, os.fstat(file.fileno()).st_size)
            return torch_pickle.load(
                io.BytesIO(archive.read(entries["data.pkl"])),
                lambda identity: _storage(path, file, entries, identity),
                rebuild_tensor,
            )
    except CheckpointError as error:
        raise CheckpointError(f"{error} (file: {path})") from error
    except (zipfile.BadZipFile, ValueError, EOFError, RuntimeError, struct.error) as error:
        raise CheckpointError(f"{_what_it_is_instead(path)} (file: {path})") from error


class _FrugalFile(io.BufferedReader):
    """A file that gives no more at once than a directory has, whatever the headers claim."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= _MAX_DIRECTORY_BYTES:
            size = _MAX_DIRECTORY_BYTES
        return super().read(size)


def _checked_entries(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """The entries by their name inside the archive's one folder, all of them stored plainly."""
    names = [entry.filename.partition("/")[2] for entry in archive.infolist()]
    if "data.pkl" not in names:
        raise CheckpointError(
            "A zip archive, but none of torch.save: it has no data.pkl. Unpack it, and give the "
            "file of weights in it"
        )
    if "constants.pkl" in names:
        raise CheckpointError(
            "A TorchScript archive, which is a program. Save its weights: "
            "torch.save(torch.jit.load(path).state_dict(), 'weights.pth')"
        )
    if not any(entry.CRC for entry in archive.infolist()):
        for entry in archive.infolist():
            # `torch.serialization.set_crc32_options(False)` leaves out all checksums. zipfile, too,
            # takes None for none.
            entry.CRC = None  # type: ignore[assignment]  # an int to typeshed
    entries = {}
    for name, entry in zip(names, archive.infolist()):
        if ".." in entry.filename.split("/") or entry.filename.startswith("/"):
            raise CheckpointError(f"An entry would leave its folder: {entry.filename!r}. {FETCH}")
        if (
            entry.compress_type != zipfile.ZIP_STORED
            or entry.file_size != entry.compress_size
            or entry.flag_bits & _ENCRYPTED_OR_PATCHED
        ):
            raise CheckpointError(
                f"torch.save neither compresses nor encrypts, but {entry.filename!r} is not plain. "
                f"{FETCH}"
            )
        last_start = size - _LOCAL_HEADER.size - entry.file_size
        if not 0 <= entry.header_offset <= last_start:
            raise CheckpointError(
                f"{entry.filename!r} claims more bytes than the file has. {FETCH}"
            )
        if name in entries:
            raise CheckpointError(f"There are two entries {entry.filename!r}. {FETCH}")
        entries[name] = entry
    for name, most in {"data.pkl": MAX_DESCRIPTION_BYTES, "byteorder": 16}.items():
        if name in entries and entries[name].file_size > most:
            raise CheckpointError(
                f"{name} has {entries[name].file_size} bytes, far more than the description of a "
                "checkpoint needs. Take a file of the model's state_dict() alone"
            )
    if "byteorder" in entries and archive.read(entries["byteorder"]) != b"little":
        raise CheckpointError(
            "The file was written on a big-endian machine. Save it again on a little-endian one"
        )
    return entries


def _storage(
    path: Path,
    file: io.BufferedReader,
    entries: dict[str, zipfile.ZipInfo],
    identity: tuple[object, ...],
) -> Storage | Placeholder:
    _, kind, key, _, _ = identity
    dtype = storage_dtype(kind)
    if not isinstance(key, str):
        raise CheckpointError(f"The description of a storage makes no sense. {FETCH}")
    entry = entries.get(f"data/{key}")
    if entry is None:
        raise CheckpointError(
            f"The archive lacks the storage {key!r:.100}, which it describes. {FETCH}"
        )
    if dtype is None:
        return Placeholder(str(kind))
    return Storage(path, _start(file, entry), entry.file_size, entry.CRC, dtype)


def storage_dtype(kind: object) -> np.dtype | None:
    """Returns the dtype of a storage by the name of its class, or None if numpy has no such dtype.

    Raises:
        CheckpointError: If it is not a name.
    """
    if not isinstance(kind, Name):
        raise CheckpointError(f"The description of a storage makes no sense. {FETCH}")
    return np.dtype("uint8") if kind == UNTYPED_STORAGE else STORAGE_DTYPES.get(kind)


def _start(file: io.BufferedReader, entry: zipfile.ZipInfo) -> int:
    """Where the bytes of an entry begin: after a header whose length only the header tells."""
    file.seek(entry.header_offset)
    magic, name_length, extra_length = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    start = entry.header_offset + _LOCAL_HEADER.size + name_length + extra_length
    if magic != b"PK\x03\x04" or start + entry.file_size > os.fstat(file.fileno()).st_size:
        raise CheckpointError(f"The archive is damaged at {entry.filename!r}. {FETCH}")
    return start


def rebuild_tensor(
    storage: object,
    offset: object,
    shape: object,
    strides: object,
    dtype: object = None,
    metadata: object = None,
) -> StoredTensor | Placeholder:
    """Makes a tensor of its description in a pickle.

    Args:
        storage: Storage, or Placeholder if it is of a class without a numpy dtype.
        offset: int. Its first element in the storage.
        shape: tuple of int.
        strides: tuple of int.
        dtype: Name or None. The dtype if it is not the storage's. Defaults to None.
        metadata: dict or None. Says whether the numbers are to be negated. Defaults to None.

    Raises:
        CheckpointError: If it is of other types, or reaches past the storage.
    """
    lazily = isinstance(metadata, dict) and (metadata.get("neg") or metadata.get("conj"))
    if (
        isinstance(storage, Placeholder)
        or lazily
        or (isinstance(dtype, Name) and dtype not in TENSOR_DTYPES)
    ):
        return Placeholder("torch.Tensor")
    if not (
        isinstance(storage, Storage)
        and isinstance(offset, int)
        and isinstance(shape, tuple)
        and isinstance(strides, tuple)
        and len(shape) == len(strides) <= MAX_AXES
        and all(type(number) is int for number in (offset, *shape, *strides))
    ):
        raise CheckpointError(f"The description of a tensor makes no sense. {FETCH}")
    if isinstance(dtype, Name):
        storage = replace(storage, dtype=TENSOR_DTYPES[dtype])
    if not is_possible(shape) or not all(0 <= n < MAX_ELEMENTS for n in (offset, *strides)):
        raise CheckpointError(
            f"A tensor has the impossible shape {shape!s:.200}, strides {strides!s:.200}. {FETCH}"
        )
    available = storage.size // storage.dtype.itemsize
    if offset + extent(shape, strides) > available:
        raise CheckpointError(
            f"A tensor of shape {shape} reaches past its storage of {available} elements. {FETCH}"
        )
    return StoredTensor(storage, offset, shape, strides)


def _what_it_is_instead(path: Path) -> str:
    if foreign := foreign_file(path):
        return foreign
    with open(path, "rb") as file:
        start = file.read(2)
    if start == b"PK":
        return f"The file is cut or damaged, though it begins as a zip archive. {FETCH}"
    if start.startswith(b"\x80"):
        return (
            "A bare pickle, which torch.save does not write. Load it where it was made, and save "
            "its arrays with safetensors"
        )
    return "Neither a PyTorch, safetensors nor HDF5 file. Give a file or folder of weights"
