"""Reads scenes of any size from top to bottom, with the memory of a few rows if possible.

A PNG file is decoded row by row: its compressed stream is read in parts, and Pillow decodes each
part as a PNG of its own, which begins with the row before. Other files are decoded at once, which
takes three bytes per pixel.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np
from PIL import Image

from keras_convnext.data.errors import DataError
from keras_convnext.pictures import ImageError, read_picture
from keras_convnext.printable import printable

MOST_PIXELS = 2**31  # of a PNG file
MOST_AT_ONCE = 2**29  # pixels of other files: 1.6 GB
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by the color type of PNG
_KEPT = (b"PLTE", b"tRNS")  # chunks that tell colors
_MOST_COLORS = 4096  # bytes of such a chunk
_READ = 2**20  # bytes at a time


@contextmanager
def large_images() -> Iterator[None]:
    """Lets Pillow open images of up to `MOST_AT_ONCE` pixels, as scenes may have."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and limit < MOST_AT_ONCE:
        Image.MAX_IMAGE_PIXELS = MOST_AT_ONCE
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def size_of(path: Path) -> tuple[int, int]:
    """Returns height and width of an image, from the beginning of the file.

    Raises:
        DataError: If it is not an image.
    """
    try:
        with path.open("rb") as file:
            start = file.read(24)
        if start.startswith(_SIGNATURE) and start[12:16] == b"IHDR":
            width, height = struct.unpack(">II", start[16:])
            return height, width
        with large_images(), Image.open(path) as image:
            return image.height, image.width
    except Exception as error:  # Pillow raises many kinds
        raise DataError(
            f"This is not an image that can be read: {error} (file: {printable(path)})"
        ) from error


class Scene:
    """An image whose rows are read in order.

    Args:
        source: str, path or array (H, W, 3). A file, or the pixels.

    Attributes:
        height: int. In pixels.
        width: int. In pixels.
    """

    def __init__(self, source: str | Path | np.ndarray) -> None:
        self.path = Path() if isinstance(source, np.ndarray) else Path(source)
        self._file: IO[bytes] | None = None
        self._stream: _Rows | None = None
        self._rows = source if isinstance(source, np.ndarray) else np.zeros((0, 0, 3), np.uint8)
        self._first = 0
        if not isinstance(source, np.ndarray):
            self._open()
        stream = self._stream
        self.height: int = len(self._rows) if stream is None else stream.height
        self.width: int = self._rows.shape[1] if stream is None else stream.width

    def _open(self) -> None:
        try:
            self._file = self.path.open("rb")
            self._stream = _rows_of(self._file)
            if self._stream is None:
                with large_images():
                    picture = read_picture(self.path, most_pixels=MOST_AT_ONCE)
                self._rows = np.asarray(picture.image)
        except (ImageError, OSError) as error:
            self.close()
            raise DataError(f"{error} (file: {printable(self.path)})") from error

    def band(self, top: int, height: int) -> np.ndarray:
        """Returns rows of the scene.

        Args:
            top: int. The first row, not above that of the call before.
            height: int. Number of rows; fewer are returned at the end of the scene.

        Returns:
            uint8 array (rows, W, 3).

        Raises:
            DataError: If the file is damaged.
        """
        last = min(top + height, self.height)
        if self._stream is not None:
            kept = self._rows[top - self._first :] if len(self._rows) else self._rows
            done = self._first + len(self._rows)
            parts = [kept] if len(kept) else []
            try:
                if top > done:
                    for _ in self._stream.read(top - done):
                        pass
                    done = top
                parts += list(self._stream.read(last - done))
            except (ImageError, OSError, zlib.error, EOFError, ValueError) as error:
                raise DataError(
                    f"The image is damaged: {error} (file: {printable(self.path)})"
                ) from error
            self._rows, self._first = np.concatenate(parts), top
        return self._rows[top - self._first : last - self._first]

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()

    def __enter__(self) -> "Scene":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _Rows:
    """The rows of a PNG file."""

    def __init__(self, file: IO[bytes], header: bytes, colors: list[tuple[bytes, bytes]]) -> None:
        self.width, self.height, self._depth, self._type = struct.unpack(">IIBB", header[:10])
        self._file, self._header, self._colors = file, header, colors
        self._before = bytes(self.width * _CHANNELS[self._type])
        self._inflate = zlib.decompressobj()
        self._left = 0  # bytes of the chunk that is being read
        self._rest = b""  # compressed
        self.at_once = max(1, 2**24 // len(self._before))  # rows: 16 MB

    def read(self, rows: int) -> Iterator[np.ndarray]:
        """Yields the next rows in parts (some rows, W, 3)."""
        while rows > 0:
            now = min(rows, self.at_once)
            rows -= now
            length = now * (1 + len(self._before))
            raw = b"\0" + self._before + self._inflated(length)
            header = struct.pack(">II", self.width, now + 1) + self._header[8:]
            chunks = [
                (b"IHDR", header),
                *self._colors,
                (b"IDAT", zlib.compress(raw, 0)),
                (b"IEND", b""),
            ]
            file = io.BytesIO(_SIGNATURE + b"".join(_chunk(*each) for each in chunks))
            with Image.open(file, formats=["PNG"]) as image:
                image.load()
                self._before = np.asarray(image)[-1].tobytes()
                yield np.asarray(read_picture(image).image)[1:]

    def _inflated(self, length: int) -> bytes:
        parts = []
        while length:
            if not self._rest:
                self._rest = self._compressed()
            found = self._inflate.decompress(self._rest, length)
            self._rest = self._inflate.unconsumed_tail
            length -= len(found)
            parts.append(found)
            if self._inflate.eof and length:
                raise EOFError("it ends too early")
        return b"".join(parts)

    def _compressed(self) -> bytes:
        while not self._left:
            start = self._file.read(8)
            if len(start) < 8 or start[4:] == b"IEND":
                raise EOFError("it ends too early")
            (size,) = struct.unpack(">I", start[:4])
            if start[4:] == b"IDAT":
                self._left = size
            else:
                self._file.seek(size, 1)
            if not self._left:
                self._file.seek(4, 1)  # the checksum
        part = self._file.read(min(self._left, _READ))
        if not part:
            raise EOFError("it ends too early")
        self._left -= len(part)
        if not self._left:
            self._file.seek(4, 1)
        return part


def _rows_of(file: IO[bytes]) -> _Rows | None:
    """Returns the rows of a PNG file that can be read in parts, or None for other files."""
    if file.read(8) != _SIGNATURE:
        return None
    header, colors = b"", []
    while True:
        start = file.read(8)
        if len(start) < 8:
            return None
        (size,), kind = struct.unpack(">I", start[:4]), start[4:]
        if kind == b"IDAT":
            file.seek(-8, 1)
            break
        if kind == b"eXIf":  # which may turn the image
            return None
        if kind == b"IHDR":
            header = file.read(13)
        elif kind in _KEPT and size <= _MOST_COLORS:
            colors.append((kind, file.read(size)))
        else:
            file.seek(size, 1)
        file.seek(4, 1)
    if len(header) != 13:
        return None
    width, height, depth, color, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    if not 0 < width * height <= MOST_PIXELS:
        raise ImageError(f"The PNG must have 1 to {MOST_PIXELS:,} pixels")
    if depth != 8 or interlaced or color not in _CHANNELS:
        return None
    return _Rows(file, header, colors)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )
