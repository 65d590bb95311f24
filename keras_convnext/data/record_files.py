"""Records of TFRecord and ArrayRecord files at random access, numbered through all files."""

from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from keras_convnext.data.errors import DataError, missing_extra

# Threads: most of opening a file is waiting for the disk.
_OPENERS = 16


class Part(NamedTuple):
    """Consecutive records of one file; `take` is None for all from `skip` on."""

    path: Path
    skip: int = 0
    take: int | None = None


class RecordFile(Protocol):
    """A file whose records can be read in any order."""

    def __len__(self) -> int:
        """The number of its records."""

    def read(self, number: int) -> bytes:
        """Reads one record."""


class RecordFiles(ABC):
    """The records of `parts`, in their order."""

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
                f"The file has {records:,} records; its dataset counts on {part.take:,} from "
                f"{part.skip:,} on. Prepare it again. Received: {part.path}"
            )
        return taken

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, index: int) -> bytes:
        file, number = self._locate(index)
        return self._files[file].read(number)

    def place(self, index: int) -> str:
        """Says which file record `index` is in, and its number there."""
        file, number = self._locate(index)
        return f"{self._parts[file].path}, record {number}"

    def starts(self) -> list[int]:
        """Returns the index of the first record of each file that has any."""
        begins = np.concatenate([[0], self._ends[:-1]])
        return begins[begins < self._ends].tolist()

    def _locate(self, index: int) -> tuple[int, int]:
        file = int(np.searchsorted(self._ends, index, side="right"))
        begin = self._ends[file - 1] if file else 0
        return file, int(index - begin) + self._parts[file].skip


class TFRecordFiles(RecordFiles):
    """Files of TFRecords."""

    def _open(self, path: Path) -> RecordFile:
        return _TFRecordFile(path)


class _TFRecordFile:
    """A file of TFRecords.

    A record is its length (8 bytes, little-endian), a checksum of 4, the data, a checksum of 4.
    Hopping from length to length finds all records without reading their data. So they can be read
    in any order, which spares a shuffle buffer, and the reading of what a resumed run or another
    worker has had.
    """

    _HEADER, _FOOTER = 12, 4

    def __init__(self, path: Path) -> None:
        starts, size = [0], path.stat().st_size
        with open(path, "rb", buffering=0) as file:
            while starts[-1] < size:
                file.seek(starts[-1])
                length = int.from_bytes(file.read(8), "little")
                starts.append(starts[-1] + self._HEADER + length + self._FOOTER)
        if starts[-1] > size:
            raise DataError(
                f"Record {len(starts) - 2} would end after the file does: the file is cut off, "
                f"compressed, or none of TFRecords. Received: {path}"
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
            data = file.read(length)
        if len(data) != length:
            raise DataError(f"The file became shorter while it was in use. Received: {self._path}")
        return data


class ArrayRecordFiles(RecordFiles):
    """Files of ArrayRecords, each of which knows where its records are."""

    def __init__(self, parts: list[Part]) -> None:
        _allow_open_files(len(parts))
        super().__init__(parts)

    def _open(self, path: Path) -> RecordFile:
        return _ArrayRecordFile(path)


class _ArrayRecordFile:
    """An open file of ArrayRecords."""

    def __init__(self, path: Path) -> None:
        try:
            from array_record.python import array_record_module
        except ImportError as error:
            raise missing_extra("array-record", "ArrayRecord files") from error
        # No reading ahead: the next record wanted is in another place, most likely.
        options = {"options": "readahead_buffer_size:0", "file_reader_buffer_size": 32768}
        try:
            self._reader = array_record_module.ArrayRecordReader(str(path), **options)
            self._records = self._reader.num_records()
        except Exception as error:
            raise DataError(f"Not a file of ArrayRecords: {error}. Received: {path}") from error

    def __len__(self) -> int:
        return self._records

    def read(self, number: int) -> bytes:
        return self._reader.read([number])[0]


def _allow_open_files(number: int) -> None:
    """Raises the soft limit of open files where so many shards would pass it."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = number + 512  # for all that is not shards
    if soft < needed:
        wanted = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
