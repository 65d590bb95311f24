"""Opens image files in any format as upright RGB images in their original size.

Files may come from strangers. Only decoders that run no other program are used, and no pixel is
decoded before the image size is known to be within Pillow's limit.
"""

import io
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from keras_convnext.pillow_output import silent_pillow
from keras_convnext.pixel_levels import PixelError, to_eight_bits
from keras_convnext.printable import PrintableError, PrintableMessage, printable

ImageSource = str | Path | bytes | IO[bytes] | Image.Image | np.ndarray

# Formats that Pillow decodes itself. Its other decoders run Ghostscript, or read formats without a
# signature, which match any file. HEIF is available if pillow-heif is installed.
FORMATS = (
    "JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "AVIF", "HEIF",
)  # fmt: skip
_MANY_FRAMES = {"MPO": "", "TIFF": "The file has several pages: only the first is used."}
_ANIMATION = "The file is an animation: only the first frame is used."
# TIFF tags.
_COMPRESSION, _STRIP_BYTES, _TILE_WIDTH, _TILE_LENGTH, _TILE_BYTES = 259, 279, 322, 323, 325
_JPEG_IN_TIFF = (6, 7)  # values of the compression tag
_LARGEST_TILE = 2**24  # px, allowed even if the TIFF image is smaller than its tiles
MOST_SCANS = 100  # of a JPEG: a camera writes 1, a progressive encoder about 10
START_OF_SCAN = b"\xff\xda"  # in a JPEG, never inside compressed data

_HEIC = rb"....ftyp(heic|heix|heim|heis|hevc|hevx|mif1|msf1)"
# Files that are often mistaken for images: how they begin, and what to do.
_NO_PICTURES = (
    (rb"PK\x03\x04", "a ZIP archive: unpack it, and pass the folder"),
    (rb"\x1f\x8b|7z\xbc\xaf|Rar!", "an archive: unpack it, and pass the folder"),
    (rb"%PDF", "a PDF document: save the page as PNG"),
    (rb"%!PS", "a PostScript file: export it as PNG"),
    (rb"(?i)\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)?<svg", "an SVG drawing: export it as PNG"),
    (rb"(?i)\s*<(!doctype html|html)", "a web page, not an image: download the image again"),
    (_HEIC, "a HEIC image, which needs pillow-heif: pip install pillow-heif"),
    (rb"....ftypavi[fs]", "an AVIF image, which this build of Pillow cannot read: save it as PNG"),
    (rb"....ftyp|\x1aE\xdf\xa3", "a video: save one of its frames as PNG"),
    (rb"\xff\x0a|\0\0\0\x0cJXL ", "a JPEG XL image: save it as PNG"),
    (rb"8BPS", "a Photoshop document: export it as PNG"),
    (rb".{128}DICM", "a DICOM file: scale its pixels to 0..255 and save them as PNG"),
    (rb"v/1\x01|#\?RADIANCE", "a high dynamic range image: save it as 8-bit PNG"),
    (rb"\x93NUMPY", "a NumPy array: load it with numpy.load and pass the array"),
    (rb"\0\0[\1\2]\0", "an icon or a Targa image: save it as PNG"),
    (rb"version https://git-lfs", "a Git LFS pointer, not the image: run `git lfs pull`"),
    (rb"II[*+]\x00|MM\x00[*+]", "a kind of TIFF that Pillow does not support: save it as PNG"),
)  # fmt: skip


class ImageError(PrintableError):
    """A file or array is not an image, or the image cannot be read."""


class TooManyPixelsError(ImageError):
    """An image has too many pixels and may be a decompression bomb."""


class ImageWarning(PrintableMessage, UserWarning):
    """Only part of an image file was read, or its pixels were rescaled."""


class Picture(NamedTuple):
    """An image in memory.

    Args:
        image: PIL image. In RGB, upright.
        notice: str. Which parts were skipped or how pixels were rescaled; "" for most images.
    """

    image: Image.Image
    notice: str = ""


def open_image(source: ImageSource) -> Image.Image:
    """Opens an image as upright RGB in its original size.

    Issues an `ImageWarning` if only the first of several frames is used, or if pixels with more
    than 8 bits were rescaled depending on their values.

    Args:
        source: as in `load_image`.

    Returns:
        PIL image in RGB.

    Raises:
        ImageError: As in `load_image`.
        FileNotFoundError: As in `load_image`.
    """
    image, notice = read_picture(source)
    if notice:
        warnings.warn(f"{notice} Received: {name_of(source)}", ImageWarning, stacklevel=2)
    return image


def read_picture(
    source: ImageSource, name: str | None = None, most_pixels: int | None = None
) -> Picture:
    """Opens an image like `open_image`, but returns the notice instead of warning.

    Args:
        source: as in `load_image`.
        name: str or None. The name to use in errors. Defaults to None, for `name_of(source)`.
        most_pixels: int or None. Maximum number of pixels. Defaults to None, for `pixel_limit()`.

    Returns:
        A `Picture`.
    """
    name = name_of(source) if name is None else name
    if isinstance(source, np.ndarray):
        return Picture(_image_of_array(source))
    if isinstance(source, Image.Image):
        try:
            with silent_pillow():
                return _in_rgb(ImageOps.exif_transpose(source), name)
        except ImageError:
            raise
        except Exception as error:
            raise _damaged(error, name) from error
    with _stream(source, name) as file:
        return _read(file, name, pixel_limit() if most_pixels is None else most_pixels)


def below_one_another(images: Sequence[Image.Image]) -> Image.Image:
    """Returns a sheet of RGB images, on white."""
    sides = max(each.width for each in images), sum(each.height for each in images)
    sheet, top = Image.new("RGB", sides, "white"), 0
    for each in images:
        sheet.paste(each, (0, top))
        top += each.height
    return sheet


def name_of(source: ImageSource) -> str:
    """Returns the name of a source for messages, with control characters escaped."""
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
        # `os.path` returns False for a name that is too long, where `pathlib` raises.
        if os.path.isdir(source):
            raise ImageError(
                "This is a folder, not an image. `prediction.find_images` lists the images in it. "
                f"Received: {name}"
            )
        if not os.path.isfile(source):
            if os.path.exists(source):
                raise ImageError(f"This is a pipe or a device, not a file. Received: {name}")
            on_a_server = str(source).startswith(("http:", "https:"))
            remedy = ": download it first, and pass its path" * on_a_server
            raise FileNotFoundError(f"There is no such file{remedy}. Received: {name}")
        with open(source, "rb") as file:
            yield file
    elif not hasattr(source, "read"):
        raise ImageError(
            "An image must be a path, the bytes of a file, an open file, a PIL image or a uint8 "
            f"array. Received: {type(source).__name__}"
        )
    elif isinstance(source, io.TextIOBase):  # type: ignore[unreachable]
        raise ImageError(f'Open the file in binary mode: open(path, "rb"). Received: {name}')
    elif source.seekable():
        yield source
    else:
        yield io.BytesIO(source.read())


def _read(file: IO[bytes], name: str, most_pixels: int | None) -> Picture:
    file.seek(0)
    start = file.read(132)
    if re.match(_HEIC, start, re.DOTALL):
        _register_heif()
    Image.init()
    try:
        formats = [kind for kind in FORMATS if kind in Image.OPEN]
        with silent_pillow(), Image.open(file, formats=formats) as image:
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
    # Pillow's decoders raise many kinds of errors for damaged files.
    except Exception as error:
        raise _damaged(error, name, _kind_of(start)) from error


def _in_rgb(image: Image.Image, name: str) -> Picture:
    """Converts an image to RGB. May modify it."""
    notice = ""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        try:
            levels, notice = to_eight_bits(np.asarray(image))
        except PixelError as error:
            raise ImageError(f"{error} Received: {name}") from error
        image = Image.fromarray(levels)
    if image.mode == "RGB":
        return Picture(image, notice)
    image.info.pop("transparency", None)  # dropped in RGB; Pillow would warn about it
    return Picture(image.convert("RGB"), notice)


def _refuse_bombs(image: Image.Image, name: str, most_pixels: int | None) -> None:
    """Refuses images that need far more memory than a photograph."""
    width, height = image.size
    if most_pixels is not None and width * height > most_pixels:
        raise _too_many(most_pixels, name)
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        tile = int(tags.get(_TILE_WIDTH, 0)) * int(tags.get(_TILE_LENGTH, 0))
        if tile > max(_LARGEST_TILE, 4 * width * height):
            raise ImageError(
                f"The tiles of the TIFF are far larger than the image. Received: {name}"
            )


def _refuse_passes(file: IO[bytes], image: Image.Image, name: str) -> None:
    """Refuses small files whose pixels are decoded many times.

    Each scan of a JPEG passes over all pixels, even if it is empty. Strips and tiles of a TIFF may
    share bytes, which are then decoded repeatedly.
    """
    most_scans = MOST_SCANS
    if image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        sizes = tags.get(_STRIP_BYTES) or tags.get(_TILE_BYTES) or ()
        if sum(sizes) > 2 * _length(file):
            raise ImageError(f"The strips or tiles of the TIFF overlap. Received: {name}")
        if tags.get(_COMPRESSION) not in _JPEG_IN_TIFF:
            return
        most_scans *= max(len(sizes), 1)
    elif image.format not in ("JPEG", "MPO"):
        return
    if _has_more(file, START_OF_SCAN, most_scans):
        raise ImageError(
            f"The JPEG has more than {most_scans} scans, and would take far longer to decode than "
            f"other images of its size. Save it again. Received: {name}"
        )


def _length(file: IO[bytes]) -> int:
    return file.seek(0, os.SEEK_END)


def _has_more(file: IO[bytes], mark: bytes, most: int) -> bool:
    """Whether a file contains a two-byte marker more than `most` times."""
    file.seek(0)
    count, last = 0, b""
    while count <= most and (chunk := file.read(1 << 20)):
        count += (last + chunk).count(mark)
        last = chunk[-1:]
    return count > most


def _refuse_dark(image: Image.Image, name: str) -> None:
    """Refuses 16-bit colors that become nearly black, as Pillow keeps only the upper 8 bits."""
    highest = max(high for _, high in image.getextrema())  # type: ignore[misc]
    if 0 < highest < 16:
        raise ImageError(
            "The 16-bit colors use at most the lower 12 bits and would be almost black. Scale "
            f"them to 0..65535, or save the image with 8 bits. Received: {name}"
        )


def pixel_limit() -> int | None:
    """Maximum number of pixels: twice `PIL.Image.MAX_IMAGE_PIXELS`, as in Pillow."""
    return None if Image.MAX_IMAGE_PIXELS is None else 2 * Image.MAX_IMAGE_PIXELS


def _too_many(most_pixels: int | None, name: str) -> ImageError:
    return TooManyPixelsError(
        f"The image has more than {most_pixels or 0:,} pixels and may be a decompression bomb. "
        "Make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust it. "
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
    if isinstance(error, MemoryError):
        return ImageError(f"There is not enough memory for the image. Received: {name}")
    if isinstance(error, Image.UnidentifiedImageError):
        return ImageError(f"Not an image, or an unsupported format. Received: {name}")
    return ImageError(f"Not an image, or a damaged image: {error}. Received: {name}")


def _register_heif() -> None:
    try:
        import pillow_heif
    except ImportError:
        return
    pillow_heif.register_heif_opener()


def _image_of_array(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or 0 in array.shape:
        raise ImageError(
            "An image array must be uint8 in 0..255, of shape (H, W) or (H, W, channels). "
            f"Received: dtype={array.dtype}, shape={array.shape}"
        )
    if array.ndim == 3 and array.shape[2] not in (1, 3, 4):
        raise ImageError(
            "An image array must have 1, 3 or 4 channels in its last axis. "
            f"Received: shape={array.shape}"
        )
    return Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else array).convert("RGB")
