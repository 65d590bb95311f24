"""Picture files of all formats with random damage, reproducible from an entry point and a seed."""

import functools
import random
import struct
import zlib
from contextlib import suppress

import numpy as np
import PIL
from pictures_of_every_kind import PHOTO, encoded, kinds

NUMBERS = (0, 1, 2, 3, 7, 8, 16, 100, 255, 256, 2000, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31,
           2**32 - 1)  # fmt: skip
SIDES = (48, 40)
PNG = b"\x89PNG\r\n\x1a\n"
# Column, row and distances of the seven passes: PNG specification, section 8.2.
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
         (0, 1, 1, 2))  # fmt: skip
CHUNKS = (b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"iCCP", b"zTXt", b"iTXt", b"tEXt", b"eXIf",
          b"acTL", b"fcTL", b"fdAT", b"gAMA", b"cHRM", b"sRGB", b"pHYs", b"bKGD")  # fmt: skip
RIFF_CHUNKS = (b"VP8 ", b"VP8L", b"VP8X", b"ANIM", b"ANMF", b"ALPH", b"ICCP", b"EXIF", b"XMP ")
PIECES = (b"\xff\xda", b"\xff\xd9", b"\xff\xd8", b"\xff\xc0", b"\xff\xc2", b"\xff\xc4", b"\xff\xdd",
          b"\xff\xdb", b"\xff\xe1", b"II*\0", b"MM\0*", b"Exif\0\0", b"GIF89a", b"\x21\xf9\x04",
          b"\x21\xff\x0bNETSCAPE2.0", b"\x2c", b"\x3b", b"BM", b"P6 ", b"P5", b"9" * 30, b" ",
          b"\xff\x4f\xff\x51", b"ftyp", b"meta", b"mdat", b"iloc", PNG,
          *CHUNKS, *RIFF_CHUNKS)  # fmt: skip


@functools.cache
def pictures():
    """Returns undamaged files by name, in all formats, compressions and pixel formats."""
    photo = PHOTO.resize(SIDES)
    gray, bits = photo.convert("L"), photo.convert("1")
    rich = {"exif": photo.getexif().tobytes(), "icc_profile": bytes(range(256)) * 4}
    found = {name: data for name, (data, _) in kinds().items()}
    found |= {
        "png, interlaced": interlaced(np.asarray(photo)),
        "png, interlaced gray": interlaced(np.asarray(gray)[..., None]),
        "png, with metadata": encoded(photo, "PNG", **rich),
        "jpeg, with metadata": encoded(photo, "JPEG", **rich),
        "jpeg, progressive cmyk": encoded(photo.convert("CMYK"), "JPEG", progressive=True),
        "jpeg, restarts": encoded(photo, "JPEG", restart_marker_blocks=1),
        "jpeg 2000, tiles": encoded(photo, "JPEG2000", tile_size=(16, 16)),
        "jpeg 2000, stream": encoded(gray, "JPEG2000", no_jp2=True),
        "dib": encoded(photo, "DIB"),
        "pbm": encoded(bits, "PPM"),
        "webp, animated and lossless": encoded(
            photo, "WEBP", save_all=True, append_images=[photo.rotate(90)], lossless=True
        ),
    }
    compressions = {
        "tiff_lzw": photo, "tiff_adobe_deflate": photo, "packbits": photo, "jpeg": photo,
        "lzma": photo, "zstd": photo, "group3": bits, "group4": bits, "tiff_ccitt": bits,
    }  # fmt: skip
    if int(PIL.__version__.split(".")[0]) < 12:  # which crash where libtiff has no Zstandard
        del compressions["zstd"]
    for name, picture in compressions.items():
        with suppress(OSError):  # libtiff was built without it
            found[f"tiff, {name}"] = encoded(picture, "TIFF", compression=name)
    return found


def chunk(kind, body):
    """Returns a chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def interlaced(pixels):
    """Returns an interlaced PNG, which Pillow does not write."""
    height, width, channels = pixels.shape
    lines = b"".join(
        b"\0" + line.tobytes()
        for x, y, across, down in ADAM7
        for line in pixels[y::down, x::across]
    )
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 1)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b"")
    return PNG + b"".join(chunk(*part) for part in parts)


def damaged(seed):
    """Returns the name of the original picture and the damaged file of a seed."""
    name = list(pictures())[seed % len(pictures())]
    rng = random.Random(f"{name} {seed}")
    data = pictures()[name]
    change = next((change for magic, change in CHANGES.items() if data.startswith(magic)), None)
    for _ in range(rng.choice((1, 1, 2, 4))):
        data = change(data, rng) if change and rng.random() < 0.6 else scrambled(data, rng)
    return name, data


def scrambled(data, rng):
    """Sets, removes, repeats, moves or inserts bytes, or cuts off the rest."""
    start = rng.randrange(len(data) + 1)
    if rng.random() < 0.5:  # headers are short
        start = rng.randrange(min(len(data), 64) + 1)
    stop = start + rng.randrange(1, 1 << rng.randrange(1, 9))
    before, part, behind = data[:start], data[start:stop], data[stop:]
    match rng.randrange(8):
        case 0:
            return before + rng.randbytes(len(part)) + behind
        case 1:
            return before + behind
        case 2:
            return before + part * rng.choice((2, 3, 20)) + behind
        case 3:
            place = rng.randrange(len(before) + 1)
            return before[:place] + part + before[place:] + behind
        case 4:
            return before + rng.choice(PIECES) + part + behind
        case 5 | 6:
            return with_number(data, start, rng.choice((1, 2, 3, 4)), rng)
        case 7:
            return before if rng.random() < 0.3 else data[:start] + part[:1] + behind


def with_number(data, start, length, rng):
    """Replaces the bytes at a place by an extreme number."""
    number = rng.choice(NUMBERS) % 256**length
    order = rng.choice(("little", "big"))
    return data[:start] + number.to_bytes(length, order) + data[start + length :]


def changed_parts(parts, change, rng):
    """Removes, repeats, swaps or changes one of the parts of a file."""
    parts = list(parts)
    if not parts:
        return parts
    one, other = (rng.randrange(len(parts)) for _ in range(2))
    match rng.randrange(6):
        case 0:
            del parts[one]
        case 1:
            parts[one:one] = [parts[one]] * rng.choice((1, 2, 200))
        case 2:
            parts[one], parts[other] = parts[other], parts[one]
        case _:
            parts[one] = change(parts[one])
    return parts


def other_png(data, rng):
    """Changes the chunks of a PNG, with correct lengths and checksums."""
    parts, place = [], len(PNG)
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        parts.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += length + 12

    def change(part):
        kind, body = part
        match rng.randrange(4):
            case 0:
                return rng.choice(CHUNKS), body
            case 1 if kind == b"IDAT":
                try:
                    return kind, zlib.compress(scrambled(zlib.decompress(body), rng))
                except zlib.error:
                    return kind, scrambled(body, rng)
            case 2:
                return rng.choice((
                    (b"zTXt", b"a\0\0" + zlib.compress(bytes(10**rng.randrange(8)))),
                    (b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(10**rng.randrange(8)))),
                    (b"iCCP", b"a\0\0" + zlib.compress(bytes(10**rng.randrange(8)))),
                    (b"eXIf", b"II*\0" + rng.randbytes(40)),
                    (b"acTL", struct.pack(">II", rng.choice(NUMBERS), 0)),
                ))  # fmt: skip
            case _:
                return kind, scrambled(body, rng)

    return PNG + b"".join(chunk(*part) for part in changed_parts(parts, change, rng))


def other_jpeg(data, rng):
    """Changes the segments before the scan of a JPEG, with correct lengths."""
    parts, place = [], 2
    while data[place : place + 1] == b"\xff" and data[place + 1 : place + 2] != b"\xda":
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        parts.append((data[place : place + 2], data[place + 4 : place + 2 + length]))
        place += length + 2

    def change(part):
        marker, body = part
        if rng.random() < 0.2:
            return b"\xff\xe1", b"Exif\0\0II*\0\x08\0\0\0" + rng.randbytes(60)
        if rng.random() < 0.2:
            return bytes([0xFF, rng.randrange(0xC0, 0xFF)]), body
        return marker, scrambled(body, rng)

    changed = changed_parts(parts, change, rng)
    segments = (
        marker + struct.pack(">H", (len(body) + 2) % 2**16) + body for marker, body in changed
    )
    return data[:2] + b"".join(segments) + data[place:]


def other_tiff(data, rng):
    """Changes the tags of a little-endian TIFF."""
    start = int.from_bytes(data[4:8], "little")
    count = int.from_bytes(data[start : start + 2], "little")
    entries = [data[start + 2 + 12 * i : start + 14 + 12 * i] for i in range(min(count, 100))]

    def change(entry):
        field, length = rng.choice(((0, 2), (2, 2), (4, 4), (8, 4), (8, 2)))
        return with_number(entry, field, length, rng)[:12]

    body = b"".join(changed_parts(entries, change, rng))[: 12 * count]
    return data[: start + 2] + body.ljust(12 * count, b"\0") + data[start + 2 + 12 * count :]


def other_webp(data, rng):
    """Changes the chunks of a WebP, with correct lengths."""
    parts, place = [], 12
    while place + 8 <= len(data):
        length = int.from_bytes(data[place + 4 : place + 8], "little")
        parts.append((data[place : place + 4], data[place + 8 : place + 8 + length]))
        place += 8 + length + length % 2

    def change(part):
        kind, body = part
        return (
            (rng.choice(RIFF_CHUNKS), body) if rng.random() < 0.2 else (kind, scrambled(body, rng))
        )

    changed = changed_parts(parts, change, rng)
    body = b"".join(
        kind + struct.pack("<I", len(part)) + part + bytes(len(part) % 2) for kind, part in changed
    )
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


CHANGES = {PNG: other_png, b"\xff\xd8": other_jpeg, b"II*\0": other_tiff, b"RIFF": other_webp}
