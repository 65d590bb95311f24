"""PyTorch files (`.pth`), read and written without PyTorch.

Such a file is an uncompressed zip archive: `data.pkl` describes the objects, and the numbers of
each storage lie in an entry `data/KEY` of their own.
"""

import io
import os
import struct
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from keras_convnext.pretrained import torch_pickle
from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.stored_tensor import (
    FETCH,
    MAX_AXES,
    MAX_ELEMENTS,
    Storage,
    StoredTensor,
    extent,
    is_possible,
)

# A training checkpoint of the largest network describes itself in 0.2 MB, and lists its entries in
# as much. What a description can be made to take in memory is some seventy times its size.
_MAX_DESCRIPTION_BYTES = 2 << 20
_ENCRYPTED_OR_PATCHED = 0x61
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_DTYPES = {
    name: np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)
    for name in torch_pickle.STORAGE_DTYPES.values()
}


def read_torch_file(path: str | Path) -> Any:
    """Reads what `torch.save` wrote, leaving the numbers in the file.

    Nothing in the file is run or imported, and memory is bounded by its description: tensors come
    as `StoredTensor`, sets as lists.

    Args:
        path: str or path.

    Returns:
        What was saved: dicts, lists, tuples, numbers, strings, `argparse.Namespace`s, and
        `StoredTensor`s.

    Raises:
        CheckpointError: If the file is damaged, no PyTorch archive, or does more than hold data.
        FileNotFoundError: If there is no such file.
    """
    path = Path(path)
    try:
        with _FrugalFile(open(path, "rb", buffering=0)) as file, zipfile.ZipFile(file) as archive:
            entries = _checked_entries(archive, os.fstat(file.fileno()).st_size)
            return torch_pickle.load(
                archive.read(entries["data.pkl"]),
                lambda identity: _storage(path, file, entries, identity),
                _rebuild_tensor,
            )
    except CheckpointError as error:
        raise CheckpointError(f"{error} (file: {path})") from error
    except (zipfile.BadZipFile, ValueError, EOFError, RuntimeError, struct.error) as error:
        raise CheckpointError(f"{_what_it_is_instead(path)} (file: {path})") from error


class _FrugalFile(io.BufferedReader):
    """A file that gives no more at once than a description has, whatever the headers claim."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= _MAX_DESCRIPTION_BYTES:
            size = _MAX_DESCRIPTION_BYTES
        return super().read(size)


def _checked_entries(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """The entries by their name inside the archive's one folder, all of them stored plainly."""
    names = [entry.filename.partition("/")[2] for entry in archive.infolist()]
    if "data.pkl" not in names:
        raise CheckpointError(
            "A zip archive, but none of torch.save: it has no data.pkl. Take the .pth file"
        )
    if "constants.pkl" in names:
        raise CheckpointError(
            "A TorchScript archive, which is a program. Take a file of the model's state_dict() "
            "alone"
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
    for name in entries.keys() & {"data.pkl", "byteorder"}:
        if entries[name].file_size > _MAX_DESCRIPTION_BYTES:
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
) -> Storage:
    _, dtype, key, _, _ = identity
    if not isinstance(dtype, str) or dtype not in _DTYPES or not isinstance(key, str):
        raise CheckpointError(f"The description of a storage makes no sense. {FETCH}")
    entry = entries.get(f"data/{key}")
    if entry is None:
        raise CheckpointError(
            f"The archive lacks the storage {key!r:.100}, which it describes. {FETCH}"
        )
    start = _start(file, entry)
    return Storage(path, start, entry.file_size, entry.CRC, _DTYPES[dtype])


def _start(file: io.BufferedReader, entry: zipfile.ZipInfo) -> int:
    """Where the bytes of an entry begin: after a header whose length only the header tells."""
    file.seek(entry.header_offset)
    magic, name_length, extra_length = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    start = entry.header_offset + _LOCAL_HEADER.size + name_length + extra_length
    if magic != b"PK\x03\x04" or start + entry.file_size > os.fstat(file.fileno()).st_size:
        raise CheckpointError(f"The archive is damaged at {entry.filename!r}. {FETCH}")
    return start


def _rebuild_tensor(
    storage: object, offset: object, shape: object, strides: object
) -> StoredTensor:
    if not (
        isinstance(storage, Storage)
        and isinstance(offset, int)
        and isinstance(shape, tuple)
        and isinstance(strides, tuple)
        and len(shape) == len(strides) <= MAX_AXES
        and all(type(number) is int for number in (offset, *shape, *strides))
    ):
        raise CheckpointError(f"The description of a tensor makes no sense. {FETCH}")
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
    with open(path, "rb") as file:
        start = file.read(512).lstrip()
    if not start:
        return f"The file is empty. {FETCH}"
    if start.startswith(b"<"):
        return "This is a web page, not a checkpoint: the download went wrong. Fetch it again"
    if start.startswith(b"PK"):
        return f"The file is cut or damaged, though it begins as a zip archive. {FETCH}"
    if start.startswith(b"version https://git-lfs"):
        return "This is a pointer of Git LFS, not what it points to: run `git lfs pull`"
    if start.startswith(b"\x80"):
        return (
            "Not a zip archive but a bare pickle, as torch before 1.6 wrote. Save it again with a "
            "newer torch: torch.save(torch.load(path, weights_only=True), path)"
        )
    return "Not a PyTorch file: it is no zip archive. Take the .pth file"


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
                if tensor.dtype.name not in _DTYPES:
                    raise ValueError(
                        f"A .pth file takes {', '.join(_DTYPES)}. "
                        f"Received: {name} of dtype {tensor.dtype.name}"
                    )
                array = np.asarray(tensor, _DTYPES[tensor.dtype.name])
                described.append((name, str(index), array.dtype.name, array.shape))
                with archive.open(f"archive/data/{index}", "w", force_zip64=True) as entry:
                    for strip in _strips(array):
                        entry.write(strip.reshape(-1).view(np.uint8).data)
            archive.writestr("archive/data.pkl", torch_pickle.dump(described, key))
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
