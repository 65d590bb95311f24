"""Reads PyTorch files (`.pth`) without PyTorch.

Such a file is an uncompressed zip archive: `data.pkl` describes the objects, and each storage is an
entry `data/KEY`.
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

# A training checkpoint of the largest network has a zip directory of 0.2 MB and a pickle of the
# same size; other saved objects, such as the losses of all steps, may take more.
_MAX_DIRECTORY_BYTES = 2 << 20
MAX_DESCRIPTION_BYTES = 32 << 20
_ENCRYPTED_OR_PATCHED = 0x61
_LOCAL_HEADER = struct.Struct("<4s22xHH")


def read_torch_file(path: str | Path) -> Any:
    """Reads a file written by `torch.save`, without reading the tensors.

    Nothing in the file is run or imported, and memory is bounded by the size of its pickle.

    Args:
        path: str or path. The file to read.

    Returns:
        The saved object: dicts, lists, tuples, numbers and text. Tensors become `StoredTensor`s,
        sets become lists, classes and functions become their names, and all other objects become
        `Placeholder`s, including tensors of a dtype that NumPy does not support.

    Raises:
        CheckpointError: If the file is damaged, is not a PyTorch archive, or would be unsafe to
            load with `torch.load`.
        FileNotFoundError: If the file does not exist.
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
    """A file that limits each read to the size of a directory, whatever the headers claim."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= _MAX_DIRECTORY_BYTES:
            size = _MAX_DIRECTORY_BYTES
        return super().read(size)


def _checked_entries(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """Returns the entries by their name in the archive's top folder, all stored uncompressed."""
    names = [entry.filename.partition("/")[2] for entry in archive.infolist()]
    if "data.pkl" not in names:
        raise CheckpointError(
            "This zip archive was not written by torch.save: it has no data.pkl. Extract it, and "
            "pass the weight file in it"
        )
    if "constants.pkl" in names:
        raise CheckpointError(
            "This is a TorchScript archive, which is a program. Save its weights instead: "
            "torch.save(torch.jit.load(path).state_dict(), 'weights.pth')"
        )
    if not any(entry.CRC for entry in archive.infolist()):
        for entry in archive.infolist():
            # `torch.serialization.set_crc32_options(False)` omits all checksums. None disables the
            # check in zipfile, too.
            entry.CRC = None  # type: ignore[assignment]  # an int to typeshed
    entries = {}
    for name, entry in zip(names, archive.infolist()):
        if ".." in entry.filename.split("/") or entry.filename.startswith("/"):
            raise CheckpointError(
                f"The path of an entry leaves the archive: {entry.filename!r}. {FETCH}"
            )
        if (
            entry.compress_type != zipfile.ZIP_STORED
            or entry.file_size != entry.compress_size
            or entry.flag_bits & _ENCRYPTED_OR_PATCHED
        ):
            raise CheckpointError(
                f"The entry {entry.filename!r} is compressed or encrypted, which torch.save never "
                f"does. {FETCH}"
            )
        last_start = size - _LOCAL_HEADER.size - entry.file_size
        if not 0 <= entry.header_offset <= last_start:
            raise CheckpointError(
                f"The entry {entry.filename!r} claims more bytes than the file contains. {FETCH}"
            )
        if name in entries:
            raise CheckpointError(
                f"The archive contains the entry {entry.filename!r} twice. {FETCH}"
            )
        entries[name] = entry
    for name, most in {"data.pkl": MAX_DESCRIPTION_BYTES, "byteorder": 16}.items():
        if name in entries and entries[name].file_size > most:
            raise CheckpointError(
                f"{name} has {entries[name].file_size} bytes, far more than a checkpoint needs. "
                "Use a file that contains only the model's state_dict()"
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
        raise CheckpointError(f"The description of a storage is invalid. {FETCH}")
    entry = entries.get(f"data/{key}")
    if entry is None:
        raise CheckpointError(f"The storage {key!r:.100} is missing from the archive. {FETCH}")
    if dtype is None:
        return Placeholder(str(kind))
    return Storage(path, _start(file, entry), entry.file_size, entry.CRC, dtype)


def storage_dtype(kind: object) -> np.dtype | None:
    """Returns the dtype of a storage class, or None if NumPy does not support it.

    Raises:
        CheckpointError: If `kind` is not the name of a class.
    """
    if not isinstance(kind, Name):
        raise CheckpointError(f"The description of a storage is invalid. {FETCH}")
    return np.dtype("uint8") if kind == UNTYPED_STORAGE else STORAGE_DTYPES.get(kind)


def _start(file: io.BufferedReader, entry: zipfile.ZipInfo) -> int:
    """Returns where the data of an entry begins: after a header that states its own length."""
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
    """Creates a tensor from its description in a pickle.

    Args:
        storage: Storage, or Placeholder if NumPy does not support its dtype.
        offset: int. Index of its first element in the storage.
        shape: tuple of int.
        strides: tuple of int. In elements.
        dtype: Name or None. The dtype if it differs from the storage's. Defaults to None.
        metadata: dict or None. Whether the values are lazily negated or conjugated. Defaults to
            None.

    Raises:
        CheckpointError: If an argument has another type, or the tensor extends past its storage.
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
        raise CheckpointError(f"The description of a tensor is invalid. {FETCH}")
    if isinstance(dtype, Name):
        storage = replace(storage, dtype=TENSOR_DTYPES[dtype])
    if not is_possible(shape) or not all(0 <= n < MAX_ELEMENTS for n in (offset, *strides)):
        raise CheckpointError(
            f"A tensor has an impossible shape or strides. {FETCH}. "
            f"Received: shape={shape!s:.200}, strides={strides!s:.200}"
        )
    available = storage.size // storage.dtype.itemsize
    if offset + extent(shape, strides) > available:
        raise CheckpointError(
            f"A tensor of shape {shape} extends past its storage of {available} elements. {FETCH}"
        )
    return StoredTensor(storage, offset, shape, strides)


def _what_it_is_instead(path: Path) -> str:
    if foreign := foreign_file(path):
        return foreign
    with open(path, "rb") as file:
        start = file.read(2)
    if start == b"PK":
        return f"The file starts like a zip archive but is truncated or damaged. {FETCH}"
    if start.startswith(b"\x80"):
        return (
            "This is a plain pickle, not written by torch.save. Load it with the program that "
            "wrote it, and save its arrays with safetensors"
        )
    return "Not a PyTorch, safetensors or HDF5 file. Pass a weight file or a folder with one"
