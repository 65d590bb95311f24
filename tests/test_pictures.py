"""Where pictures come from, how many bits their pixels have, and what is refused."""

import io
import struct
import sys
import types
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from pictures_of_every_kind import PHOTO, SIDES, encoded
from PIL import Image

from keras_convnext.pictures import ImageError, ImageWarning, name_of, open_image, read_picture
from keras_convnext.pixel_levels import PixelError, to_eight_bits
from keras_convnext.preprocessing import load_image, load_images

HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"


@pytest.fixture
def photo(tmp_path):
    PHOTO.save(tmp_path / "photo.jpg")
    return tmp_path / "photo.jpg"


def test_an_open_file_is_read_from_its_beginning_and_stays_open(photo):
    expected = load_image(photo)
    with open(photo, "rb") as file:
        file.read(100)
        for _ in range(2):
            np.testing.assert_array_equal(load_image(file), expected)
    np.testing.assert_array_equal(load_image(io.BytesIO(photo.read_bytes())), expected)


def test_a_pipe_is_read_once(photo):
    class Pipe(io.RawIOBase):
        data = photo.read_bytes()

        def readable(self):
            return True

        def readinto(self, buffer):
            count = min(len(buffer), len(self.data))
            buffer[:count], self.data = self.data[:count], self.data[count:]
            return count

    np.testing.assert_array_equal(load_image(Pipe()), load_image(photo))


def test_a_picture_is_not_changed_by_opening_it():
    image = PHOTO.resize(SIDES).convert("P")
    image.info["transparency"] = bytes(range(256))
    image.getexif()[0x112] = 6
    assert open_image(image).size == SIDES[::-1]
    assert image.info["transparency"] == bytes(range(256))
    assert (image.size, image.mode) == (SIDES, "P")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (None, "Received: NoneType"),
        (["photo.jpg"], "Received: list"),
        (io.StringIO("text"), 'binary mode: open.path, "rb".'),
        (Path(__file__).parent, "This is a folder.*find_images"),
    ],
)
def test_other_sources_are_refused(source, said):
    with pytest.raises(ImageError, match=said):
        load_image(source)


@pytest.mark.parametrize("name", ["nowhere.jpg", "n" * 300, "a\0b"])
def test_a_file_that_is_not_there(name):
    with pytest.raises(FileNotFoundError, match=r"There is no such file. Received: "):
        load_image(name)


def test_names_cannot_control_a_terminal():
    assert name_of("a\x1b[31m\n\u202eb.jpg") == "a\\x1b[31m\\n\\u202eb.jpg"
    for name in ("[red]50% {x}.jpg", "été 猫 👩‍👧.jpg"):
        assert name_of(name) == name


@pytest.mark.parametrize("size", [(224, 320), 224.0, "224", None, 0])
def test_a_size_that_is_no_side_is_refused(size, photo):
    for load, source in ((load_image, photo), (load_images, [photo])):
        with pytest.raises(ValueError, match=r"side of the square.*Received: size="):
            load(source, size)
    assert load_image(photo, np.int64(8)).shape == (8, 8, 3)


@pytest.mark.parametrize("size", [20_000, 10**7, 10**12])
def test_a_size_that_takes_all_memory_is_refused(size, photo):
    for load, source in ((load_image, photo), (load_images, [photo])):
        with pytest.raises(ValueError, match=rf"at most 16,384.*Received: size={size}"):
            load(source, size)


def test_an_address_is_to_be_downloaded():
    with pytest.raises(FileNotFoundError, match=r"download it first.*https://example\.org/a\.jpg"):
        load_image("https://example.org/a.jpg")


def test_one_picture_is_not_several(photo):
    image = Image.open(photo)
    with open(photo, "rb") as file:
        pixels = np.asarray(image)
        for one in (str(photo), photo, photo.read_bytes(), file, image, pixels, pixels[..., 0]):
            with pytest.raises(ValueError, match="wrap a single image in a list"):
                load_images(one)
    assert load_images(np.stack([pixels, pixels]), 8).shape == (2, 8, 8, 3)


def test_notices_are_warnings_where_the_caller_is(tmp_path):
    path = tmp_path / "moving.gif"
    PHOTO.save(path, save_all=True, append_images=[PHOTO.rotate(90)])
    for load, source in ((load_image, path), (load_images, [path]), (open_image, path)):
        with pytest.warns(ImageWarning, match=f"first frame is used. Received: {path}") as warned:
            load(source)
        assert warned[0].filename == __file__


def test_pillow_warns_of_nothing_itself():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_image(encoded(PHOTO.resize(SIDES).convert("P"), "PNG", transparency=bytes(range(256))))


# Pixels of more than 8 bits


@pytest.mark.parametrize(
    ("values", "kind", "expected", "said"),
    [
        ([0, 255, 256, 65535], "u2", [0, 0, 1, 255], ""),
        ([0, 0], "u2", [0, 0], ""),
        ([0, 16, 4095], "u2", [0, 1, 255], "16-bit pixels were scaled from 0..4095"),
        ([0, 7, 255], "u2", [0, 7, 255], "16-bit pixels were scaled from 0..255"),
        ([0, 7, 255], "i4", [0, 7, 255], "32-bit pixels were scaled from 0..255"),
        ([0, 256, 65535], "i4", [0, 1, 255], "32-bit pixels were scaled from 0..65535"),
        ([0, 0.5, 1], "f4", [0, 128, 255], "Floating-point pixels were scaled from 0..1 "),
        ([0, 1.4, 200], "f4", [0, 1, 200], "Floating-point pixels were scaled from 0..255 "),
        ([0, 257, 65535], "f4", [0, 1, 255], "Floating-point pixels were scaled from 0..65535 "),
    ],
)
def test_levels(values, kind, expected, said):
    levels, notice = to_eight_bits(np.array([values], kind))
    assert levels.dtype == np.uint8
    assert levels.tolist() == [expected]
    assert notice.startswith(said)
    assert bool(notice) == bool(said)


@pytest.mark.parametrize("values", [[-1.0, 1], [0, np.nan], [0, np.inf], [0, 65536]])
def test_levels_of_no_known_range_are_refused(values):
    with pytest.raises(PixelError, match="have no known range"):
        to_eight_bits(np.array([values], "f4"))


def png_of_16_bits(colors):
    """A PNG of colors of 16 bits, which Pillow does not write."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    height, width, _ = colors.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colors)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def test_colors_of_16_bits_keep_their_upper_eight_unless_these_are_next_to_nothing():
    colors = np.asarray(PHOTO.resize(SIDES)).astype("u2")
    np.testing.assert_array_equal(open_image(png_of_16_bits(colors * 257)), colors.astype("u1"))
    with pytest.raises(ImageError, match="almost black"):
        open_image(png_of_16_bits(colors * 16))
    assert not np.asarray(open_image(png_of_16_bits(colors * 0))).any()


def test_colors_that_are_not_rgb_are_converted_or_named():
    for mode in ("HSV", "LAB", "YCbCr", "PA"):
        assert open_image(Image.new(mode, SIDES)).mode == "RGB"
    with pytest.raises(ImageError, match="conversion from La"):
        open_image(Image.new("La", SIDES))


# HEIC


def test_heic_is_read_once_its_package_is_there(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match="HEIC image, which needs pillow-heif: pip install"):
        load_image(HEIC)

    def register():
        monkeypatch.setitem(Image.OPEN, "HEIF", (lambda file, name: PHOTO.copy(), None))

    opener = types.SimpleNamespace(register_heif_opener=register)
    monkeypatch.setitem(sys.modules, "pillow_heif", opener)
    np.testing.assert_array_equal(load_image(HEIC), load_image(PHOTO))


# Bombs


def test_a_tiff_of_huge_tiles_is_refused():
    data = bytearray(encoded(PHOTO.resize(SIDES), "TIFF"))
    fields = struct.unpack_from("<H", data, offset := struct.unpack_from("<I", data, 4)[0])[0]
    entries = [data[offset + 2 + 12 * i : offset + 14 + 12 * i] for i in range(fields)]
    entries += [struct.pack("<HHII", tag, 4, 1, 2**14) for tag in (322, 323)]
    start = len(data)
    data += struct.pack("<H", len(entries)) + b"".join(sorted(entries)) + bytes(4)
    data[4:8] = struct.pack("<I", start)
    with pytest.raises(ImageError, match="are far larger than the image"):
        load_image(bytes(data))


def test_the_limit_of_pixels_is_pillows_and_can_be_raised(monkeypatch):
    data = encoded(Image.new("1", (200, 200)), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20_000)
    assert read_picture(data).image.size == (200, 200)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 15_000)
    with pytest.raises(ImageError, match=r"more than 30,000 pixels.*decompression bomb.*MAX_IMAGE"):
        read_picture(data)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert read_picture(data).image.size == (200, 200)
