"""Small files that ask for far more work than honest ones of their size are refused first."""

import io
import struct
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf
from damaged_pictures import PNG, chunk
from PIL import Image

from keras_convnext.data import decoding
from keras_convnext.data.images import evaluation_image
from keras_convnext.demo.answers import Classifier, UploadError, answer
from keras_convnext.export import saved_model
from keras_convnext.preprocessing import ImageError, load_image

END = b"\xff\xd9"
EMPTY_SCAN = b"\xff\xda\x00\x08\x01\x01\x00\x01\x3f\x10"  # refines component 1, without data


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def progressive(scans, size=(400, 300)):
    image = encoded(Image.new("RGB", size, (90, 120, 40)), "JPEG", progressive=True)
    return image.removesuffix(END) + EMPTY_SCAN * scans + END


def jpeg_in_tiff(jpeg, size, strips, rows):
    """A TIFF whose strips are all the same JPEG."""
    tags = [
        (256, 4, [size[0]]), (257, 4, [size[1]]), (258, 3, [8, 8, 8]), (259, 3, [7]), (262, 3, [6]),
        (273, 4, [None] * strips), (277, 3, [3]), (278, 4, [rows]), (279, 4, [len(jpeg)] * strips),
        (530, 3, [2, 2]),
    ]  # fmt: skip
    body, entries, at = b"", b"", 8 + 2 + 12 * len(tags) + 4
    for tag, kind, values in tags:
        values = [8 + 6 + 12 * len(tags) + 8 * strips + 6 if v is None else v for v in values]
        data = struct.pack(f"<{len(values)}{' HI'[kind - 2]}", *values)
        if len(data) > 4:
            body, data = body + data, struct.pack("<I", at + len(body))
        entries += struct.pack("<HHI", tag, kind, len(values)) + data.ljust(4, b"\0")
    start = 8 + 6 + 12 * len(tags) + 8 * strips + 6
    file = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + body
    return file.ljust(start, b"\0") + jpeg


def by_page(data, tmp_path):
    (tmp_path / "upload.jpg").write_bytes(data)
    answer(Classifier(lambda pixels: np.ones((1, 2)), 32, ["a", "b"]), tmp_path / "upload.jpg")


def test_the_usual_scans_of_a_progressive_jpeg_are_read(tmp_path):
    data = progressive(0)
    assert 1 < data.count(b"\xff\xda") < 20
    assert load_image(data, 32).shape == (32, 32, 3)
    assert evaluation_image(tf.constant(data), 32).shape == (32, 32, 3)
    by_page(data, tmp_path)
    assert saved_model.decode(tf.constant([data]), 32)[1].numpy().tolist() == [True]


def test_thousands_of_scans_are_refused(tmp_path):
    data = progressive(20_000, (4000, 3000))  # 70 s to decode
    started = time.perf_counter()
    with pytest.raises(ImageError, match=f"more than 100 scans.*Received: {len(data)} bytes"):
        load_image(data, 32)
    with pytest.raises(tf.errors.InvalidArgumentError, match="more than 100 scans"):
        evaluation_image(tf.constant(data), 32)
    with pytest.raises(UploadError, match=r"upload\.jpg"):
        by_page(data, tmp_path)
    assert saved_model.decode(tf.constant([data]), 32)[1].numpy().tolist() == [False]
    assert time.perf_counter() - started < 10


def damaged_pngs():
    """Returns PNGs for which Pillow raises ValueError and struct.error, or warns."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 40, 30, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(30 * 121))) + chunk(b"IEND", b"")
    text = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(10**7)))
    frames = chunk(b"acTL", struct.pack(">II", 0, 0))
    return {
        "a long text": PNG + header + text + pixels,
        "a short header": PNG + chunk(b"IHDR", bytes(7)) + pixels,
        "impossible frames": PNG + header + frames + pixels,
    }


@pytest.mark.parametrize("name", damaged_pngs())
def test_damaged_pngs_are_read_or_refused_without_a_word(name, tmp_path, recwarn):
    data = damaged_pngs()[name]
    (tmp_path / "x.png").write_bytes(data)
    if name == "impossible frames":
        assert not load_image(tmp_path / "x.png", 32).any()
        by_page(data, tmp_path)
    else:
        with pytest.raises(ImageError, match=rf"a damaged image.*Received: {tmp_path}/x\.png"):
            load_image(tmp_path / "x.png", 32)
        with pytest.raises(UploadError, match=r"upload\.jpg"):
            by_page(data, tmp_path)
    assert not recwarn.list


def test_a_chunk_that_claims_much_memory_is_not_given_to_tensorflow():
    names = ("iTXt", "tEXt", "zTXt", "iCCP", "sPLT", "eXIf", "pCAL", "sCAL")
    png = encoded(Image.new("RGB", (40, 30)), "PNG")
    huge = [png[:33] + struct.pack(">I", 2**28) + name.encode() + png[33:] for name in names]
    honest = encoded(Image.effect_noise((400, 300), 90).convert("RGB"), "PNG", icc_profile=b"x" * 9)
    readable = saved_model.decode(tf.constant([*huge, png, honest]), 32)[1].numpy()
    assert readable.tolist() == [False] * len(huge) + [True, True]
    for data in huge:
        assert not decoding.has_modest_chunks(tf.constant(data))
        assert not decoding._is_plain_png(tf.constant(data))
    assert decoding._is_plain_png(tf.constant(honest))
    within = PNG + chunk(b"IHDR", bytes(13)) + chunk(b"IDAT", b"\x10\0\0\0tEXt")
    assert decoding.has_modest_chunks(tf.constant(within))


def test_pillows_warnings_are_hidden_only_while_it_reads():
    apng = damaged_pngs()["impossible frames"]
    filters = list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: load_image(apng, 32), range(50)))
    assert warnings.filters == filters
    with pytest.warns(UserWarning, match="Invalid APNG"):
        Image.open(io.BytesIO(apng)).load()


def test_scans_within_a_tiff_are_counted():
    scans = progressive(3000, (64, 64))
    with pytest.raises(ImageError, match="more than 100 scans"):
        load_image(jpeg_in_tiff(scans, (64, 64), 1, 64), 32)


def test_strips_that_share_their_bytes_are_refused():
    jpeg = encoded(Image.effect_noise((64, 64), 90).convert("RGB"), "JPEG")
    with pytest.raises(ImageError, match="strips or tiles of the TIFF overlap"):
        load_image(jpeg_in_tiff(jpeg, (64, 64 * 50), 50, 64), 32)


def webp_header(kind, width, height):
    if kind == b"VP8X":
        sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        body = bytes(4) + sides
    elif kind == b"VP8L":
        body = b"\x2f" + struct.pack("<I", (width - 1) | (height - 1) << 14)
    else:
        body = b"\x10\x00\x00\x9d\x01\x2a" + struct.pack("<HH", width, height)
    chunk = kind + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(chunk) + 4) + b"WEBP" + chunk + bytes(64)


@pytest.mark.parametrize("kind", [b"VP8 ", b"VP8L", b"VP8X"])
def test_the_served_model_knows_the_size_of_a_webp(kind):
    def pixels(width, height):
        return float(saved_model._pixels_of(tf.constant(webp_header(kind, width, height))))

    assert pixels(640, 480) == 640 * 480
    assert pixels(9000, 9001) == 9000 * 9001
    with pytest.raises(tf.errors.InvalidArgumentError):
        pixels(16000, 16000)


EXIF = b"Exif\0\0MM\0*\0\0\0\x08\0\0"


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"exif": EXIF}])
def test_a_header_of_pillows_webp_is_read(options):
    data = encoded(Image.new("RGB", (321, 123)), "WEBP", **options)
    assert float(saved_model._pixels_of(tf.constant(data))) == 321 * 123


def test_a_request_has_a_limit_of_pixels(monkeypatch):
    monkeypatch.setattr(saved_model, "MOST_PIXELS_OF_REQUEST", 100_000)
    images = [encoded(Image.new("RGB", (200, 200)), kind) for kind in ("PNG", "JPEG", "BMP", "GIF")]
    readable = saved_model.decode(tf.constant([b"none", *images]), 32)[1]
    assert readable.numpy().tolist() == [False, True, True, False, False]
