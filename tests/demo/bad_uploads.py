"""Malformed and oversized uploads."""

import io
import struct
import zlib

from PIL import Image


def png_of(width, height):
    """Returns the contents of a black PNG, without allocating its pixels."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    packer = zlib.compressobj(9)
    row = bytes(1 + -(-width // 8))
    data = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", data), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def encoded(kind, size=(90, 60)):
    """Returns the contents of a small picture."""
    file = io.BytesIO()
    Image.effect_noise(size, 90).convert("RGB").save(file, kind)
    return file.getvalue()


def scanned(scans, size):
    """Returns the contents of a JPEG that is decoded in many scans."""
    file = io.BytesIO()
    Image.new("RGB", size, (90, 120, 40)).save(file, "JPEG", progressive=True)
    empty = b"\xff\xda\x00\x08\x01\x01\x00\x01\x3f\x10"  # refines component 1, without data
    return file.getvalue().removesuffix(b"\xff\xd9") + empty * (scans - 10) + b"\xff\xd9"


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 90 60\n%%EndComments\nshowpage\n%%EOF\n"

# File name, contents and error message. Pillow itself would reject the first bomb, but not the
# second.
REFUSED = {
    "empty.jpg": (lambda: b"", "empty.jpg is empty"),
    "large.jpg": (
        lambda: encoded("JPEG") + bytes(20 * 2**20),
        "the limit is 20 MB, and the file has 20.1 MB",
    ),
    "notes.txt": (lambda: b"no picture at all", "Not an image"),
    "bomb.png": (lambda: png_of(30_000, 30_000), "too many pixels: the limit is 50 million"),
    "wide.png": (lambda: png_of(8_000, 7_000), "too many pixels: the limit is 50 million"),
    "cut.jpg": (lambda: encoded("JPEG")[:1500], "a damaged image"),
    "flipped.png": (lambda: encoded("PNG")[:300] + bytes(9999), "a damaged image"),
    "page.eps": (lambda: EPS, "a PostScript file"),
}
