"""PyTorch files (`.pth`), read and written without PyTorch.

Such a file is an uncompressed zip archive: `data.pkl` describes the objects, and the numbers of
each storage lie in an entry `data/KEY` of their own.
"""

import os
import struct
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from keras_convnext.pretrained import torch_pickle
from keras_convnext.pretrained.errors import CheckpointError

# A training checkpoint of the largest network describes itself in a few hundred kilobytes.
_MAX_PICKLE_BYTES = 4 << 20
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_DTYPES = {"bfloat16": np.dtype(ml_dtypes.bfloat16)}


@dataclass(frozen=True)
class _Storage:
    """The place of a storage's numbers in the file."""

    path: Path
    start: int
    size: int
    crc: int
    dtype: np.dtype


@dataclass(frozen=True)
class StoredTensor:
    """A tensor of a PyTorch file whose numbers are still in it.

    Args:
        shape: tuple of int.
        strides: tuple of int, in elements.
        offset: int. First element in the storage.
    """

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype:
        """The dtype of the numbers, `ml_dtypes.bfloat16` among them."""
        return self.storage.dtype

    def read(self) -> np.ndarray:
        """Reads the part of the storage that the tensor covers, and no more.

        Raises:
            CheckpointError: If a whole storage was read and its checksum is not the file's.
        """
        itemsize = self.dtype.itemsize
        count = _extent(self.shape, self.strides)
        with open(self.storage.path, "rb") as file:
            file.seek(self.storage.start + self.offset * itemsize)
            data = np.fromfile(file, np.uint8, count * itemsize)
        if data.nbytes < count * itemsize:
            raise CheckpointError(f"The file was cut while it was read: {self.storage.path}")
        if data.nbytes == self.storage.size and zlib.crc32(data) != self.storage.crc:
            raise CheckpointError(
                f"The numbers in {self.storage.path} are damaged: a checksum does not match. "
                "Fetch the file again"
            )
        strides = tuple(stride * itemsize for stride in self.strides)
        return np.lib.stride_tricks.as_strided(
            data.view(self.dtype), self.shape, strides, writeable=False
        )


def _extent(shape: tuple[int, ...], strides: tuple[int, ...]) -> int:
    """Number of elements from the first that a tensor reaches to the last."""
    if 0 in shape:
        return 0
    return 1 + sum((side - 1) * stride for side, stride in zip(shape, strides))


def read_torch_file(path: str | Path) -> Any:
    """Reads what `torch.save` wrote, leaving the numbers in the file.

    Nothing in the file is run or imported, and memory is bounded by its description: tensors come
    as `StoredTensor`.

    Args:
        path: str or path.

    Returns:
        What was saved: dicts, lists, tuples, numbers, strings, and `StoredTensor`s.

    Raises:
        CheckpointError: If the file is damaged, no PyTorch archive, or does more than hold data.
        FileNotFoundError: If there is no such file.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            entries = _checked_entries(archive, path)
            pickled = archive.read(entries["data.pkl"])
    except CheckpointError as error:
        raise CheckpointError(f"{error} (file: {path})") from error
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, struct.error) as error:
        raise CheckpointError(f"{_what_it_is_instead(path)} (file: {path})") from error

    def load_storage(identity: tuple) -> _Storage:
        _, dtype, key, _, _ = identity
        entry = entries.get(f"data/{key}")
        if entry is None:
            raise CheckpointError(f"The archive lacks the storage {key}, which it describes")
        return _Storage(
            path,
            _start(path, entry),
            entry.file_size,
            entry.CRC,
            _DTYPES.get(dtype) or np.dtype(dtype),
        )

    try:
        return torch_pickle.load(pickled, load_storage, _rebuild_tensor)
    except CheckpointError as error:
        raise CheckpointError(f"{error} (file: {path})") from error


def _checked_entries(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """The entries by their name inside the archive's one folder, all of them stored plainly."""
    size = path.stat().st_size
    entries = {}
    for entry in archive.infolist():
        _, _, name = entry.filename.partition("/")
        if ".." in entry.filename.split("/") or entry.filename.startswith("/"):
            raise CheckpointError(f"An entry would leave its folder: {entry.filename!r}")
        if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
            raise CheckpointError(f"torch.save compresses nothing, but {entry.filename!r} is")
        if entry.header_offset + entry.file_size > size:
            raise CheckpointError(f"{entry.filename!r} claims more bytes than the file has")
        if name in entries:
            raise CheckpointError(f"There are two entries {entry.filename!r}")
        entries[name] = entry
    if "data.pkl" not in entries:
        raise CheckpointError("A zip archive, but none of torch.save: it has no data.pkl")
    if entries["data.pkl"].file_size > _MAX_PICKLE_BYTES:
        raise CheckpointError(
            f"The description of the tensors is of {entries['data.pkl'].file_size} bytes, far more "
            "than a checkpoint needs"
        )
    if "byteorder" in entries and archive.read(entries["byteorder"]) != b"little":
        raise CheckpointError("The file was written on a big-endian machine")
    return entries


def _start(path: Path, entry: zipfile.ZipInfo) -> int:
    """Where the bytes of an entry begin: after a header whose length only the header tells."""
    with open(path, "rb") as file:
        file.seek(entry.header_offset)
        header = file.read(_LOCAL_HEADER.size)
    magic, name_length, extra_length = _LOCAL_HEADER.unpack(header)
    start = entry.header_offset + _LOCAL_HEADER.size + name_length + extra_length
    if magic != b"PK\x03\x04" or start + entry.file_size > path.stat().st_size:
        raise CheckpointError(f"The archive is damaged at {entry.filename!r}")
    return start


def _rebuild_tensor(storage: Any, offset: int, shape: tuple, strides: tuple) -> StoredTensor:
    numbers = (offset, *shape, *strides)
    if not isinstance(storage, _Storage) or len(shape) != len(strides):
        raise CheckpointError("The description of a tensor makes no sense")
    if not all(isinstance(number, int) and 0 <= number < 2**48 for number in numbers):
        raise CheckpointError(f"A tensor has an impossible shape: {shape}, strides {strides}")
    available = storage.size // storage.dtype.itemsize
    if offset + _extent(shape, strides) > available:
        raise CheckpointError(
            f"A tensor of shape {shape} reaches past its storage of {available} elements"
        )
    return StoredTensor(storage, offset, tuple(shape), tuple(strides))


def _what_it_is_instead(path: Path) -> str:
    with open(path, "rb") as file:
        start = file.read(512).lstrip()
    if not start:
        return "The file is empty"
    if start.startswith(b"<"):
        return "This is a web page, not a checkpoint: the download went wrong. Fetch it again"
    if start.startswith(b"PK"):
        return "The file is cut or damaged: it begins as a zip archive but does not end as one"
    if start.startswith(b"\x80"):
        return (
            "Not a zip archive but a bare pickle, as torch before 1.6 wrote: load and save it "
            "again with a newer torch"
        )
    return "Not a PyTorch file: it is no zip archive"


def write_torch_file(
    path: str | Path, tensors: Iterable[tuple[str, np.ndarray]], key: str = "model"
) -> None:
    """Writes `{key: tensors}` as `torch.save` would, for `torch.load(weights_only=True)`.

    The file appears under its name once it is whole.

    Args:
        path: str or path.
        tensors: iterable of (name, array). Taken one at a time, so a generator saves memory.
        key: str. Where the tensors stand; the official files keep them under "model".

    Raises:
        OSError: If the file cannot be written; nothing is left of it.
    """
    path = Path(path)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
            described = []
            for index, (name, tensor) in enumerate(tensors):
                array = np.require(tensor, requirements="C")
                described.append((name, str(index), array.dtype.name, array.shape))
                with archive.open(f"archive/data/{index}", "w", force_zip64=True) as entry:
                    entry.write(array.reshape(-1).view(np.uint8).data)
            archive.writestr("archive/data.pkl", torch_pickle.dump(described, key))
            archive.writestr("archive/byteorder", "little")
            archive.writestr("archive/version", "3\n")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
