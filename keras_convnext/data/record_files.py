"""Random access to the records of TFRecord and ArrayRecord files, numbered across all files."""

from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Protocol

import google_crc32c
import numpy as np

from keras_convnext.data.errors import DataError, missing_extra

# Threads: opening a file mostly waits for the disk.
_OPENERS = 16


class Part(NamedTuple):
    """Consecutive records of one file: `take` records after `skip`, or all if `take` is None."""

    path: Path
    skip: int = 0
    take: int | None = None


class RecordFile(Protocol):
    """A file whose records can be read in any order."""

    def __len__(self) -> int:
        """Number of records in the file."""

    def read(self, number: int) -> bytes:
        """Reads one record."""


class RecordFiles(ABC):
    """The records of `parts`, in order."""

    def __init__(self, parts: list[Part]) -> None:
        self._parts = parts
        with ThreadPoolExecutor(_OPENERS) as pool:
            self._files = list(pool.map(self._open, (part.path for part in parts)))
        taken = [self._taken(part, len(file)) for part, file in zip(parts, self._files)]
        self._ends = np.cumsum(taken)

    @abstractmethod
    def _open(self, path: Path) -> RecordFile:
        """Opens a file."""

    @staticmethod
    def _taken(part: Part, records: int) -> int:
        taken = records - part.skip if part.take is None else part.take
        if not 0 <= taken <= records - part.skip:
            raise DataError(
                f"The file has {records:,} records, but its dataset expects {part.take:,} after "
                f"record {part.skip:,}. Prepare the dataset again. Received: {part.path}"
            )
        return taken

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> bytes:
        file, number = self._locate(index)
        return self._files[file].read(number)

    def place(self, index: int) -> str:
        """Returns the file of record `index` and its number in it, for a message."""
        file, number = self._locate(index)
        return f"{self._parts[file].path}, record {number}"

    def starts(self) -> list[int]:
        """Returns the index of the first record of each file that is not empty."""
        begins = np.concatenate([[0], self._ends[:-1]])
        return begins[begins < self._ends].tolist()

    def _locate(self, index: int) -> tuple[int, int]:
        file = int(np.searchsorted(self._ends, index, side="right"))
        begin = self._ends[file - 1] if file else 0
        return file, int(index - begin) + self._parts[file].skip


class TFRecordFiles(RecordFiles):
    """TFRecord files."""

    def _open(self, path: Path) -> RecordFile:
        return _TFRecordFile(path)


class _TFRecordFile:
    """A TFRecord file.

    A record consists of its length (8 bytes, little-endian), a checksum (4 bytes), the data and
    another checksum (4 bytes). Reading only the lengths locates all records. They can then be read
    in any order, without a shuffle buffer and without reading the records that a resumed run or
    another worker has already used. The checksum of a length is verified when the file is opened,
    that of the data when a record is read.
    """

    _LENGTH, _CHECKSUM = 8, 4
    _HEADER, _FOOTER = _LENGTH + _CHECKSUM, _CHECKSUM

    def __init__(self, path: Path) -> None:
        starts, size = [0], path.stat().st_size
        with open(path, "rb", buffering=0) as file:
            while starts[-1] < size:
                file.seek(starts[-1])
                header = file.read(self._HEADER)
                length = header[: self._LENGTH]
                if _checksum(length) != header[self._LENGTH :]:
                    raise DataError(
                        f"The checksum of record {len(starts) - 1}, at byte {starts[-1]:,}, is "
                        "wrong: the file is damaged, compressed or not a TFRecord file. "
                        f"Received: {path}"
                    )
                data = int.from_bytes(length, "little")
                starts.append(starts[-1] + self._HEADER + data + self._FOOTER)
        if starts[-1] > size:
            raise DataError(
                f"Record {len(starts) - 2} ends after the end of the file: the file is truncated. "
                f"Received: {path}"
            )
        self._path = path
        self._starts = np.array(starts, np.int64)

    def __len__(self) -> int:
        return len(self._starts) - 1

    def read(self, number: int) -> bytes:
        start, end = self._starts[number : number + 2].tolist()
        length = end - start - self._HEADER - self._FOOTER
        with open(self._path, "rb", buffering=0) as file:
            file.seek(start + self._HEADER)
            record = file.read(length + self._FOOTER)
        if len(record) != length + self._FOOTER:
            raise DataError(f"The file was truncated while in use. Received: {self._path}")
        data = record[:length]
        if _checksum(data) != record[length:]:
            raise DataError(
                f"The checksum of record {number}, at byte {start:,}, is wrong: the file is "
                f"damaged. Received: {self._path}"
            )
        return data


def _checksum(data: bytes) -> bytes:
    """Returns the checksum of TFRecords: CRC-32C, rotated and shifted so that it can be nested."""
    crc = google_crc32c.value(data)
    return (((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")


class ArrayRecordFiles(RecordFiles):
    """ArrayRecord files, which contain an index of their records."""

    def __init__(self, parts: list[Part]) -> None:
        _allow_open_files(len(parts))
        super().__init__(parts)

    def _open(self, path: Path) -> RecordFile:
        return _ArrayRecordFile(path)


class _ArrayRecordFile:
    """An open ArrayRecord file."""

    def __init__(self, path: Path) -> None:
        try:
            from array_record.python import array_record_module
        except ImportError as error:
            raise missing_extra("array-record", "ArrayRecord files") from error
        # No read-ahead: the next record is probably elsewhere.
        options = {"options": "readahead_buffer_size:0", "file_reader_buffer_size": 32768}
        try:
            self._reader = array_record_module.ArrayRecordReader(str(path), **options)
            self._records = self._reader.num_records()
        except Exception as error:
            raise DataError(f"Not an ArrayRecord file: {error}. Received: {path}") from error

    def __len__(self) -> int:
        return self._records

    def read(self, number: int) -> bytes:
        return self._reader.read([number])[0]


def _allow_open_files(number: int) -> None:
    """Raises the soft limit of open files if the shards would exceed it."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = number + 512  # for files other than shards
    if soft < needed:
        wanted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
