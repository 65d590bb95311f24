"""Reads the weights and configuration in `.keras` files, without running any of their code."""

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.foreign_files import foreign_file
from keras_convnext.pretrained.h5_file import H5Tensor, read_h5_within

SUFFIX = ".keras"

_WEIGHTS, _CONFIG = "model.weights.h5", "config.json"
_LONGEST_CONFIG = 1 << 23  # bytes: a network of 100 layers takes 100 kB
_MAX_EXPANSION = 16  # bytes that all members may have for each byte of the file; Keras has 1
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, then the lengths of name and extra field
_AGAIN = "Download the file again, or save the model again with model.save"


def read_keras(path: str | Path) -> dict[str, H5Tensor]:
    """Reads the addresses and shapes of the weights in a `.keras` file, but not the tensors.

    Raises:
        CheckpointError: If the file is damaged or was not saved by Keras.
        FileNotFoundError: If the file does not exist.
    """
    with _member_of(path, _WEIGHTS) as (_, member), open(path, "rb") as file:
        if member.compress_type != zipfile.ZIP_STORED:
            raise CheckpointError(f"Its {_WEIGHTS} is compressed, which Keras never does. {_AGAIN}")
        file.seek(member.header_offset)
        signature, *lengths = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        start = member.header_offset + _LOCAL_HEADER.size + sum(lengths)
        if signature != b"PK\3\4" or start + member.file_size > Path(path).stat().st_size:
            raise CheckpointError(
                f"Its {_WEIGHTS} is not where the archive's directory says. {_AGAIN}"
            )
        return read_h5_within(path, _Window(file, start, member.file_size), start, member.file_size)


def read_config(path: str | Path) -> dict[str, Any]:
    """Reads the model configuration in a `.keras` file.

    Raises:
        CheckpointError: If the file is damaged or was not saved by Keras.
        FileNotFoundError: If the file does not exist.
    """
    with _member_of(path, _CONFIG) as (archive, member):
        return _read_object(archive, member)


def read_entry(path: str | Path, name: str) -> dict[str, Any] | None:
    """Reads a JSON object in the archive of a `.keras` file, or returns None if there is none.

    Raises:
        CheckpointError: If the file is damaged or was not saved by Keras.
        FileNotFoundError: If the file does not exist.
    """
    with _member_of(path, _CONFIG) as (archive, _):
        if name not in archive.namelist():
            return None
        return _read_object(archive, archive.getinfo(name))


def _read_object(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> dict[str, Any]:
    try:
        with archive.open(member) as file:
            text = file.read(_LONGEST_CONFIG + 1)
    except OSError as error:  # the place of the member is before the start of the file
        raise CheckpointError(f"Its directory is damaged. {_AGAIN}") from error
    if len(text) > _LONGEST_CONFIG:
        raise CheckpointError(f"Its {member.filename} is larger than 8 MiB. {_AGAIN}")
    found = json.loads(text)
    if not isinstance(found, dict):
        raise CheckpointError(f"Its {member.filename} is not a JSON object. {_AGAIN}")
    return found


@contextmanager
def _member_of(path: str | Path, name: str) -> Iterator[tuple[zipfile.ZipFile, zipfile.ZipInfo]]:
    """Opens the archive and a member of it; read errors become a `CheckpointError`."""
    damages = (zipfile.BadZipFile, zlib.error, struct.error, ValueError, EOFError, RuntimeError)
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if names.count(name) != 1:
                raise CheckpointError(
                    f"The archive contains no {name}, as written by model.save in Keras 3. {_AGAIN}"
                )
            unpacked = sum(member.file_size for member in archive.infolist())
            if unpacked > _MAX_EXPANSION * Path(path).stat().st_size:
                raise CheckpointError(
                    f"The archive unpacks to far more bytes than it has, which Keras never writes. "
                    f"{_AGAIN}"
                )
            yield archive, archive.getinfo(name)
    except CheckpointError as error:
        if str(path) in str(error):
            raise
        raise CheckpointError(f"{error} (file: {path})") from error
    except damages as error:  # RecursionError and NotImplementedError are RuntimeErrors
        told = foreign_file(Path(path)) or f"Not a valid .keras file: {error}. {_AGAIN}"
        raise CheckpointError(f"{told} (file: {path})") from error


class _Window(io.RawIOBase):
    """A section of a file as a seekable file."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        super().__init__()
        self._file, self._start, self._size, self._position = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = max(offset + (0, self._position, self._size)[whence], 0)
        return self._position

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        view = view[: max(self._size - self._position, 0)]
        self._file.seek(self._start + self._position)
        count = self._file.readinto(view)  # type: ignore[attr-defined]
        self._position += count
        return count
