"""Decodes uploads, in a process that `process` starts and ends.

Imports neither Keras nor a backend, so that the process starts in a fraction of a second.
"""

import io
import json
import math
import os
import sys
import time
from contextlib import suppress
from typing import IO, Any, NamedTuple

import numpy as np
from PIL import Image

from keras_convnext.pictures import (
    FORMATS,
    MOST_SCANS,
    START_OF_SCAN,
    ImageError,
    TooManyPixelsError,
    read_picture,
)
from keras_convnext.preprocessing import WARP_FROM, square
from keras_convnext.printable import PrintableError

MOST_BYTES = 20 * 2**20
MOST_PIXELS = 50_000_000  # decoding and rotating takes 12 bytes per pixel, 19 for 16-bit images
MOST_MEMORY = 2 * 2**30  # address space of the process, in bytes

# Time to decode a pixel, in ns, rounded up: measured on noise, the slowest content.
PIXEL = {"JPEG": 20, "MPO": 20, "JPEG2000": 400}
ANY_PIXEL = 50  # of the other formats
PASS = 5  # of each scan of a JPEG over a pixel


class UploadError(PrintableError):
    """A rejected upload. The message is shown to the user."""


class Squares(NamedTuple):
    """What remains of an upload.

    Args:
        seen: uint8 array (size, size, 3). The input of the network.
        sharp: uint8 array (side, side, 3). The same part of the picture, of at least 224 px, to
            draw on.
        notice: str. As in `Picture`.
        seconds: float. Time to decode the file.
    """

    seen: np.ndarray
    sharp: np.ndarray
    notice: str
    seconds: float


def squares(file: IO[bytes], name: str, size: int) -> Squares:
    """Checks and decodes an upload.

    Args:
        file: open binary file, untrusted.
        name: str. The name of the file in errors, printable.
        size: int. Side of the network's input, in pixels.

    Raises:
        UploadError: As in `answer`.
    """
    started = time.perf_counter()
    length = file.seek(0, os.SEEK_END)
    if length == 0:
        raise UploadError(f"{name} is empty. Choose another picture.")
    if length > MOST_BYTES:
        raise UploadError(
            f"{name} is too large: the limit is {MOST_BYTES >> 20} MB, and the file has "
            f"{math.ceil(length / 2**20 * 10) / 10:,} MB. Choose a smaller picture."
        )
    try:
        picture, notice = read_picture(file, name, MOST_PIXELS)
    except TooManyPixelsError as error:
        raise UploadError(
            f"{name} has too many pixels: the limit is {MOST_PIXELS // 10**6} million. Choose a "
            "smaller picture."
        ) from error
    except (ImageError, OSError) as error:
        raise UploadError(str(error)) from error
    seen = square(picture, size)
    # The input of a low-resolution network is enlarged; the heat map is drawn on a sharp picture.
    sharp = seen if size > WARP_FROM // 2 else square(picture, WARP_FROM - 1)
    return Squares(seen, sharp, notice, time.perf_counter() - started)


def expected_seconds(file: IO[bytes]) -> float:
    """Returns the most time that decoding may take, without decoding a pixel.

    0 for a file that `squares` refuses without decoding it.
    """
    file.seek(0)
    with suppress(Exception):
        formats = [kind for kind in FORMATS if kind in Image.OPEN]
        with Image.open(file, formats=formats) as image:
            pixels, kind = math.prod(image.size), image.format
        if pixels > MOST_PIXELS:
            return 0
        scans = 0
        if kind in ("JPEG", "MPO", "TIFF"):
            file.seek(0)
            scans = min(file.read().count(START_OF_SCAN), MOST_SCANS)
        return pixels * (PIXEL.get(kind or "", ANY_PIXEL) + PASS * scans) / 1e9
    return 0


def main(niceness: int = 0) -> None:
    """Answers requests on stdin until it is closed.

    A request is a line of JSON, followed by the contents of the file. So is the answer, followed by
    the pixels. Neither can contain objects, as `pickle` could.

    Args:
        niceness: int. As in `Decoder`. Defaults to 0.
    """
    if hasattr(os, "nice"):
        os.nice(niceness)
    with suppress(ImportError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    Image.init()
    # The libraries behind Pillow print warnings about files.
    output = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    while line := sys.stdin.buffer.readline():
        asked = json.loads(line)
        file = io.BytesIO(sys.stdin.buffer.read(asked["bytes"]))
        for part in _answer(file, asked["name"], asked["size"], asked["seconds"]):
            output.write(part)
        output.flush()


def _answer(file: IO[bytes], name: str, size: int, most_seconds: float | None) -> list[bytes]:
    started = time.process_time()
    said: dict[str, Any] = {}
    pixels = []
    try:
        if most_seconds is None or expected_seconds(file) <= most_seconds:
            seen, sharp, notice, seconds = squares(file, name, size)
            said = {"notice": notice, "seconds": seconds, "sides": [len(seen), len(sharp)]}
            pixels = [seen.tobytes(), sharp.tobytes()]
    except UploadError as error:
        said = {"refused": str(error)}
    said["cpu"] = time.process_time() - started
    return [json.dumps(said).encode() + b"\n", *pixels]
