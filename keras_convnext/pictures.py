"""Any picture file as RGB pixels, upright, at its own size; or the reason why not.

Files come from strangers. Only decoders that run no other program are used, and no pixel is decoded
before the size of the picture is known to be within Pillow's limit.
"""

import io
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from keras_convnext.pixel_levels import PixelError, to_eight_bits
from keras_convnext.printable import printable

ImageSource = str | Path | bytes | IO[bytes] | Image.Image | np.ndarray

# What Pillow reads by itself. Others of its decoders run Ghostscript, or read formats without a
# signature, for which any file may be taken. HEIF is here once pillow-heif is installed.
FORMATS = (
    "JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF",
)  # fmt: skip
_MANY_FRAMES = {"MPO": "", "TIFF": "A file of several pages: the first is used."}
_ANIMATION = "An animation: the first frame is used."
# Tags of TIFF.
_COMPRESSION, _STRIP_BYTES, _TILE_WIDTH, _TILE_LENGTH, _TILE_BYTES = 259, 279, 322, 323, 325
_JPEG_IN_TIFF = (6, 7)  # values of its compression
_LARGEST_TILE = 2**24  # px, of a TIFF that is smaller itself
MOST_SCANS = 100  # of a JPEG: a camera writes 1, a progressive encoder about 10
START_OF_SCAN = b"\xff\xda"  # in a JPEG, never within compressed data

_HEIC = rb"....ftyp(heic|heix|heim|heis|hevc|hevx|mif1|msf1)"
# What people take for pictures: how such files begin, and what to do.
_NO_PICTURES = (
    (rb"PK\x03\x04", "a ZIP archive: unpack it, and name the folder"),
    (rb"\x1f\x8b|7z\xbc\xaf|Rar!", "an archive: unpack it, and name the folder"),
    (rb"%PDF", "a PDF document: save the page as PNG"),
    (rb"%!PS", "a PostScript file: export it as PNG"),
    (rb"(?i)\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?<svg", "an SVG drawing: export it as PNG"),
    (rb"(?i)\s*<(!doctype html|html)", "a web page: the download did not give the picture"),
    (_HEIC, "a HEIC picture, which needs pillow-heif: pip install pillow-heif"),
    (rb"....ftypavi[fs]", "an AVIF picture, which needs Pillow 11.3: pip install -U pillow"),
    (rb"....ftyp|\x1aE\xdf\xa3", "a video: save a frame of it as PNG"),
    (rb"II[*+]\x00|MM\x00[*+]", "a TIFF of a kind that Pillow does not read: save it as PNG"),
)  # fmt: skip


class ImageError(ValueError):
    """A file or an array is not an image that can be read."""


class TooManyPixelsError(ImageError):
    """An image has more pixels than are allowed, as a decompression bomb has."""


class ImageWarning(UserWarning):
    """A picture is read, but not all of it, or with its pixels scaled."""


class Picture(NamedTuple):
    """A picture in memory.

    Args:
        image: PIL image. In RGB, upright.
        notice: str. What was left out or scaled; empty for almost all.
    """

    image: Image.Image
    notice: str = ""


def open_image(source: ImageSource) -> Image.Image:
    """Opens a picture, upright and in RGB, at its own size.

    Warns with `ImageWarning` if only the first frame of several is used, or if pixels of more than
    8 bits had to be scaled by their values.

    Args:
        source: as `load_image` takes it.

    Returns:
        PIL image, in RGB.

    Raises:
        ImageError: As `load_image` does.
        FileNotFoundError: As `load_image` does.
    """
    image, notice = read_picture(source)
    if notice:
        warnings.warn(f"{notice} Received: {name_of(source)}", ImageWarning, stacklevel=2)
    return image


def read_picture(
    source: ImageSource, name: str | None = None, most_pixels: int | None = None
) -> Picture:
    """Opens a picture as `open_image` does, and returns the notice instead of warning.

    Args:
        source: as `load_image` takes it.
        name: str or None. What errors call it. Defaults to None, its own name.
        most_pixels: int or None. The most that a file may have. Defaults to None: `pixel_limit()`.
    """
    name = name_of(source) if name is None else name
    if isinstance(source, np.ndarray):
        return Picture(_image_of_array(source))
    if isinstance(source, Image.Image):
        try:
            return _in_rgb(ImageOps.exif_transpose(source), name)
        except ImageError:
            raise
        except Exception as error:
            raise _damaged(error, name) from error
    with _stream(source, name) as file:
        return _read(file, name, pixel_limit() if most_pixels is None else most_pixels)


def name_of(source: ImageSource) -> str:
    """Names a source in messages; characters that would control a terminal are escaped."""
    if isinstance(source, bytes):
        return f"{len(source)} bytes"
    if isinstance(source, Image.Image):
        return "a PIL image"
    if isinstance(source, np.ndarray):
        return f"an array of shape {source.shape}"
    name = source if isinstance(source, str | Path) else getattr(source, "name", "an open file")
    return printable(name)


@contextmanager
def _stream(source: str | Path | bytes | IO[bytes], name: str) -> Iterator[IO[bytes]]:
    if isinstance(source, bytes):
        yield io.BytesIO(source)
    elif isinstance(source, str | Path):
        # `os.path` says False of a name that is too long, where `pathlib` raises.
        if os.path.isdir(source):
            raise ImageError(
                "This is a folder, not a picture; `prediction.find_images` lists those in it. "
                f"Received: {name}"
            )
        if not os.path.isfile(source):
            raise FileNotFoundError(f"There is no such file. Received: {name}")
        with open(source, "rb") as file:
            yield file
    elif not hasattr(source, "read"):
        raise ImageError(
            "An image is a path, the bytes of a file, an open file, a PIL image or a uint8 array. "
            f"Received: {type(source).__name__}"
        )
    elif isinstance(source, io.TextIOBase):  # type: ignore[unreachable]
        raise ImageError(f'Open the file in binary mode: open(path, "rb"). Received: {name}')
    elif source.seekable():
        yield source
    else:
        yield io.BytesIO(source.read())


def _read(file: IO[bytes], name: str, most_pixels: int | None) -> Picture:
    file.seek(0)
    start = file.read(64)
    if re.match(_HEIC, start, re.DOTALL):
        _register_heif()
    Image.init()
    try:
        with Image.open(file, formats=[kind for kind in FORMATS if kind in Image.OPEN]) as image:
            _refuse_bombs(image, name, most_pixels)
            _refuse_passes(file, image, name)
            notice = ""
            if getattr(image, "is_animated", False):
                notice = _MANY_FRAMES.get(image.format or "", _ANIMATION)
            sixteen_bits = ";16" in str(getattr(image, "tile", ""))
            ImageOps.exif_transpose(image, in_place=True)
            picture = _in_rgb(image, name)
            if sixteen_bits and picture.image is image:
                _refuse_dark(image, name)
            return Picture(picture.image, " ".join(filter(None, (notice, picture.notice))))
    except ImageError:
        raise
    except Image.DecompressionBombError as error:
        raise _too_many(most_pixels, name) from error
    # Pillow's decoders let many kinds of error out at a damaged file.
    except Exception as error:
        raise _damaged(error, name, _kind_of(start)) from error


def _in_rgb(image: Image.Image, name: str) -> Picture:
    """Converts an image that may be changed."""
    notice = ""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        try:
            levels, notice = to_eight_bits(np.asarray(image))
        except PixelError as error:
            raise ImageError(f"{error} Received: {name}") from error
        image = Image.fromarray(levels)
    if image.mode == "RGB":
        return Picture(image, notice)
    image.info.pop("transparency", None)  # which is dropped, and Pillow would warn of it
    return Picture(image.convert("RGB"), notice)


def _refuse_bombs(image: Image.Image, name: str, most_pixels: int | None) -> None:
    """Refuses pixels that cost far more memory than those of a photograph."""
    width, height = image.size
    if most_pixels is not None and width * height > most_pixels:
        raise _too_many(most_pixels, name)
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        tile = int(tags.get(_TILE_WIDTH, 0)) * int(tags.get(_TILE_LENGTH, 0))
        if tile > max(_LARGEST_TILE, 4 * width * height):
            raise ImageError(f"A TIFF of tiles far larger than the picture. Received: {name}")


def _refuse_passes(file: IO[bytes], image: Image.Image, name: str) -> None:
    """Refuses files of a few bytes whose pixels are decoded again and again.

    Each scan of a JPEG passes over all its pixels, even if it is empty. Strips and tiles of a TIFF
    may share their bytes, which are then decoded for each of them.
    """
    most_scans = MOST_SCANS
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        sizes = tags.get(_STRIP_BYTES) or tags.get(_TILE_BYTES) or ()
        if sum(sizes) > 2 * _length(file):
            raise ImageError(f"A TIFF of strips or tiles that overlap. Received: {name}")
        if tags.get(_COMPRESSION) not in _JPEG_IN_TIFF:
            return
        most_scans *= max(len(sizes), 1)
    elif image.format not in ("JPEG", "MPO"):
        return
    if _has_more(file, START_OF_SCAN, most_scans):
        raise ImageError(
            f"A JPEG with more than {most_scans} scans, which would take far longer to decode than "
            f"others of its size: save it again. Received: {name}"
        )


def _length(file: IO[bytes]) -> int:
    return file.seek(0, os.SEEK_END)


def _has_more(file: IO[bytes], mark: bytes, most: int) -> bool:
    """Tells whether a file contains a mark of two bytes more than so many times."""
    file.seek(0)
    count, last = 0, b""
    while count <= most and (chunk := file.read(1 << 20)):
        count += (last + chunk).count(mark)
        last = chunk[-1:]
    return count > most


def _refuse_dark(image: Image.Image, name: str) -> None:
    """Refuses colours of 16 bits of which Pillow, which keeps the upper 8, left next to none."""
    highest = max(high for _, high in image.getextrema())  # type: ignore[misc]
    if 0 < highest < 16:
        raise ImageError(
            "Colours of 16 bits that use the lower 12 at most, and would be almost black: scale "
            f"them to 0..65535, or save the picture with 8 bits. Received: {name}"
        )


def pixel_limit() -> int | None:
    """The most pixels a picture may have: twice `PIL.Image.MAX_IMAGE_PIXELS`, as in Pillow."""
    return None if Image.MAX_IMAGE_PIXELS is None else 2 * Image.MAX_IMAGE_PIXELS


def _too_many(most_pixels: int | None, name: str) -> ImageError:
    return TooManyPixelsError(
        f"The picture has more than {most_pixels or 0:,} pixels, which is too large: it may be a "
        "decompression bomb. Make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it. "
        f"Received: {name}"
    )


def _kind_of(start: bytes) -> str:
    for pattern, kind in _NO_PICTURES:
        if re.match(pattern, start, re.DOTALL):
            return kind
    return ""


def _damaged(error: Exception, name: str, kind: str = "") -> ImageError:
    if kind:
        return ImageError(f"This is {kind}. Received: {name}")
    if isinstance(error, Image.UnidentifiedImageError):
        return ImageError(f"Not an image, or of an unknown format. Received: {name}")
    return ImageError(f"Not an image, or a damaged one: {error}. Received: {name}")


def _register_heif() -> None:
    try:
        import pillow_heif
    except ImportError:
        return
    pillow_heif.register_heif_opener()


def _image_of_array(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or 0 in array.shape:
        raise ImageError(
            "An array is an image if it is uint8 in 0..255, of shape (H, W) or (H, W, channels). "
            f"Received: dtype {array.dtype}, shape {array.shape}"
        )
    if array.ndim == 3 and array.shape[2] not in (1, 3, 4):
        raise ImageError(f"An image has 1, 3 or 4 channels, last. Received: shape {array.shape}")
    return Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else array).convert("RGB")
