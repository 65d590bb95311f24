"""Picture files in all formats and pixel formats."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

PHOTO = Image.open(Path(__file__).parents[1] / "examples" / "photos" / "cat.jpg").convert("RGB")
SIDES = (90, 70)


def encoded(image, format, **options):
    file = io.BytesIO()
    image.copy().save(file, format, **options)  # a copy: saving leaves settings behind
    return file.getvalue()


def exif(orientation, endian="<"):
    tags = Image.Exif()
    tags.endian = endian
    tags[0x110] = "a camera"
    tags[0x112] = orientation
    return tags


def xmp(orientation):
    return (
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description '
        f'tiff:Orientation="{orientation}"/></x:xmpmeta>'
    ).encode()


def kinds():
    """Returns by name the file, and whether a SavedModel, without Pillow, reads the same pixels.

    Names that begin with "!" are read with a notice.
    """
    rgb = PHOTO.resize(SIDES)
    gray, palette, cmyk = rgb.convert("L"), rgb.convert("P"), rgb.convert("CMYK")
    bits = rgb.convert("1")
    alpha = Image.linear_gradient("L").resize(SIDES)
    rgba, la = rgb.convert("RGBA"), gray.convert("LA")
    rgba.putalpha(alpha)
    la.putalpha(alpha)
    levels = np.asarray(gray)
    sixteen = Image.fromarray(levels.astype("u2") * 257 + 3)
    twelve = Image.fromarray(levels.astype("u2") * 16 + 3)
    whole = Image.fromarray(levels.astype("i4") * 16)
    fraction = Image.fromarray((levels / 255).astype("f4"))
    floating = Image.fromarray(levels.astype("f4"))

    def moving():
        return {"save_all": True, "append_images": [rgb.rotate(90)]}

    return {
        "jpeg": (encoded(rgb, "JPEG"), True),
        "jpeg, progressive": (encoded(rgb, "JPEG", progressive=True), True),
        "jpeg, gray": (encoded(gray, "JPEG"), True),
        "jpeg, cmyk": (encoded(cmyk, "JPEG"), True),
        **{
            f"jpeg, orientation {number} {endian}": (
                encoded(rgb, "JPEG", exif=exif(number, endian)),
                True,
            )
            for number, endian in ((1, "<"), (2, "<"), (3, ">"), (5, "<"), (6, ">"), (8, "<"))
        },
        "jpeg, orientation in xmp": (encoded(rgb, "JPEG", xmp=xmp(6)), True),
        "mpo": (encoded(rgb, "MPO", **moving()), True),
        "png": (encoded(rgb, "PNG"), True),
        "png, gray": (encoded(gray, "PNG"), True),
        "png, 1 bit": (encoded(bits, "PNG"), True),
        "png, la": (encoded(la, "PNG"), True),
        "png, rgba": (encoded(rgba, "PNG"), True),
        "png, palette": (encoded(palette, "PNG"), True),
        "png, palette of 4": (encoded(rgb.quantize(4), "PNG", bits=2), True),
        "png, palette with a transparent color": (encoded(palette, "PNG", transparency=3), True),
        "png, palette with transparency": (
            encoded(palette, "PNG", transparency=bytes(range(256))),
            True,
        ),
        "png, gray with a transparent level": (encoded(gray, "PNG", transparency=90), True),
        "png, orientation": (encoded(rgb, "PNG", exif=exif(6)), True),
        "png, 16 bits": (encoded(sixteen, "PNG"), True),
        "!png, 12 bits in 16": (encoded(twelve, "PNG"), False),
        "!apng": (encoded(rgb, "PNG", **moving()), True),
        "gif": (encoded(palette, "GIF"), True),
        "gif, transparent": (encoded(palette, "GIF", transparency=3), True),
        "!gif, animated": (encoded(palette, "GIF", **moving()), True),
        "webp": (encoded(rgb, "WEBP"), True),
        "webp, lossless": (encoded(rgb, "WEBP", lossless=True), True),
        "webp, transparent": (encoded(rgba, "WEBP"), False),
        "!webp, animated": (encoded(rgb, "WEBP", **moving()), False),
        "bmp": (encoded(rgb, "BMP"), True),
        "bmp, gray": (encoded(gray, "BMP"), False),
        "bmp, 1 bit": (encoded(bits, "BMP"), False),
        "bmp, palette": (encoded(palette, "BMP"), False),
        "tiff": (encoded(rgb, "TIFF"), False),
        "tiff, cmyk": (encoded(cmyk, "TIFF"), False),
        "tiff, 16 bits": (encoded(sixteen, "TIFF"), False),
        "!tiff, 12 bits in 16": (encoded(twelve, "TIFF"), False),
        "!tiff, 32 bits": (encoded(whole, "TIFF"), False),
        "!tiff, floats to 1": (encoded(fraction, "TIFF"), False),
        "!tiff, floats to 255": (encoded(floating, "TIFF"), False),
        "!tiff, two pages": (encoded(rgb, "TIFF", **moving()), False),
        "jpeg 2000": (encoded(rgb, "JPEG2000"), False),
        "avif": (encoded(rgb, "AVIF"), False),
        "ppm": (encoded(rgb, "PPM"), False),
        "pgm": (encoded(gray, "PPM"), False),
    }


def not_pictures():
    """Returns by name the file, and its error message in Python, on the page and in training."""
    floats = np.asarray(PHOTO.resize(SIDES).convert("L")).astype("f4")
    return {
        "empty": (b"", "Not an image"),
        "text": (b"some text", "Not an image"),
        "cut off jpeg": (encoded(PHOTO, "JPEG")[:3000], "a damaged image"),
        "cut off png": (encoded(PHOTO, "PNG")[:3000], "a damaged image"),
        "zip": (b"PK\x03\x04" + bytes(60), "a ZIP archive: unpack it"),
        "pdf": (b"%PDF-1.7 ...", "a PDF document"),
        "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "a PostScript file"),
        "svg": (b'<?xml version="1.0"?>\n<svg xmlns="...">', "an SVG drawing"),
        "web page": (b"\n<!DOCTYPE html><html>", "a web page"),
        "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "pip install pillow-heif"),
        "jpeg xl": (b"\xff\x0a" + bytes(60), "a JPEG XL image"),
        "photoshop": (b"8BPS" + bytes(60), "a Photoshop document"),
        "dicom": (bytes(128) + b"DICM" + bytes(60), "a DICOM file"),
        "exr": (b"v/1\x01" + bytes(60), "a high dynamic range image"),
        "npy": (b"\x93NUMPY" + bytes(60), "a NumPy array"),
        "icon": (b"\0\0\1\0" + bytes(60), "an icon"),
        "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d", "git lfs pull"),
        "video": (b"\0\0\0\x18ftypisom\0\0\0\0", "a video"),
        "tiff of negative floats": (
            encoded(Image.fromarray(floats - 100), "TIFF"),
            "have no known range",
        ),
        "tiff of no numbers": (
            encoded(Image.fromarray(floats * np.nan), "TIFF"),
            "have no known range",
        ),
    }
