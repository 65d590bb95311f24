"""The sizes of images, from the beginnings of their files."""

import io
from pathlib import Path

from PIL import Image

from keras_convnext.data.errors import DataError
from keras_convnext.detection.checks import Size
from keras_convnext.detection.coco import MOST_PIXELS
from keras_convnext.printable import printable

_ORIENTATION = 0x0112  # EXIF; from 5 on, height and width are exchanged


def size_of_picture(source: Path | bytes, name: str | None = None) -> Size:
    """Returns height and width of an image, turned upright, without decoding it.

    Args:
        source: path, or bytes of a file.
        name: str or None. Name for messages. Defaults to None, for the path.

    Raises:
        DataError: If it is not an image, or has too many pixels.
    """
    name = name or printable(source)
    try:
        with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
            width, height = image.size
            exif = Image.Exif()
            if "exif" in image.info:  # `getexif` would decode a PNG
                exif.load(image.info["exif"])
            elif image.format == "TIFF":
                exif = image.getexif()
            is_turned = exif.get(_ORIENTATION, 1) in (5, 6, 7, 8)
    except Exception as error:  # Pillow raises many kinds
        raise DataError(f"This is not an image that can be read: {error} (file: {name})") from error
    if width * height > MOST_PIXELS:
        raise DataError(f"An image has at most {MOST_PIXELS:,} pixels (file: {name})")
    return Size(width, height) if is_turned else Size(height, width)
