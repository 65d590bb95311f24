"""An archive that is damaged, cut or something else is refused, and the message says what it is."""

import io
import pickle
import re
import struct
import zipfile

import numpy as np
import pytest
from crafted_archives import (
    DIRECTORY,
    END,
    GOOD,
    GOOD_PICKLE,
    ONES,
    archive,
    in_directory,
    patched,
    refusal,
    with_zip64_end,
    with_zip64_entry,
    write,
)  # fmt: skip

from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.torch_file import read_torch_file
from keras_convnext.pretrained.torch_writer import write_torch_file


def of_many_entries(number):
    header = struct.pack("<4s4B4HL2L5H2L", b"PK\x01\x02", 20, 3, 20, *[0] * 8, 8, *[0] * 6)
    directory = b"".join(header + b"a/%06d" % i for i in range(number))
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, len(directory), 0, 0)
    return directory + end


def compressed():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", GOOD_PICKLE)
    return buffer.getvalue()


def torchscript():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name in ("data.pkl", "code/__torch__.py", "constants.pkl"):
            file.writestr(f"archive/{name}", b"")
    return buffer.getvalue()


PKL = ("a/data.pkl", GOOD_PICKLE)
ARCHIVES = {
    "encrypted description": (in_directory(0, 8, "<H", 1), "is compressed or encrypted"),
    "encrypted numbers": (in_directory(1, 8, "<H", 1), "is compressed or encrypted"),
    "strong encryption": (in_directory(0, 8, "<H", 0x41), "is compressed or encrypted"),
    "compressed": (compressed(), "is compressed or encrypted"),
    "unknown method": (in_directory(1, 10, "<H", 99), "is compressed or encrypted"),
    "two sizes": (in_directory(1, 20, "<I", 3), "is compressed or encrypted"),
    "wrong checksum": (in_directory(0, 16, "<I", 1), "truncated or damaged"),
    "no checksum": (in_directory(0, 16, "<I", 0), "truncated or damaged"),  # where others have one
    "later version": (in_directory(0, 6, "<H", 255), "truncated or damaged"),
    "1 GiB claimed": (in_directory(1, 20, "<II", 2**30, 2**30), "claims more bytes"),
    "header at the end": (in_directory(1, 42, "<I", len(GOOD) - 20), "claims more bytes"),
    "no header": (patched(GOOD.index(b"PK\x03\x04", 4), "<I", 0), "damaged at 'archive/data/0'"),
    "header elsewhere": (in_directory(1, 42, "<I", 1), "damaged at 'archive/data/0'"),
    "directory elsewhere": (patched(END + 16, "<I", DIRECTORY[0] + 99), "claims more bytes"),
    "large directory": (patched(END + 12, "<I", 2**32 - 2), "truncated or damaged"),
    "zip64 offset": (with_zip64_end(END - DIRECTORY[0], 2**63), "claims more bytes"),
    "zip64 size": (with_zip64_end(2**63, DIRECTORY[0]), "truncated or damaged"),
    "zip64 entry size": (with_zip64_entry(2**64 - 1, 0), "claims more bytes"),
    "zip64 entry offset": (with_zip64_entry(16, 2**64 - 1), "claims more bytes"),
    "many entries": (of_many_entries(60_000), "truncated or damaged"),
    "two descriptions": (archive(PKL, ("b/data.pkl", b"N.")), "the entry 'b/data.pkl' twice"),
    "parent folder": (archive(PKL, ("a/../x", b"")), "leaves the archive: 'a/../x'"),
    "absolute": (archive(PKL, ("/etc/x", b"")), "leaves the archive"),
    "no data.pkl": (archive(("a/x", b""), ("y", b""), ("z", b"")), "not written by torch.save"),
    "at the root": (archive(("data.pkl", GOOD_PICKLE)), "not written by torch.save"),
    "no entries": (archive(), "not written by torch.save"),
    "torchscript": (torchscript(), "TorchScript archive"),
    "big-endian": (archive(PKL, ("a/byteorder", b"big")), "big-endian"),
    "large byteorder": (archive(PKL, ("a/byteorder", b"x" * (3 << 20))), "byteorder has 3145728"),
    "empty": (b"", "The file is empty"),
    "web page": (b"\n  <!DOCTYPE html><html>404</html>", "web page"),
    "lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d", "git lfs pull"),
    "bare pickle": (pickle.dumps({"model": 1}, 2), "This is a plain pickle"),
    "gzip": (b"\x1f\x8b\x08" + b"\0" * 99, "This is a compressed archive"),
    "tar": (b"model".ljust(257, b"\0") + b"ustar\0", "This is a compressed archive"),
    "text": (b"hello", "Not a PyTorch, safetensors or HDF5 file"),
}


def test_the_zip64_archives_are_sound(tmp_path):
    offset = struct.unpack_from("<I", GOOD, DIRECTORY[1] + 42)[0]
    for content in (with_zip64_end(END - DIRECTORY[0], DIRECTORY[0]), with_zip64_entry(16, offset)):
        loaded = read_torch_file(write(tmp_path, content))
        np.testing.assert_array_equal(loaded["model"]["w"].read(), ONES)


@pytest.mark.parametrize(("content", "told"), ARCHIVES.values(), ids=ARCHIVES)
def test_a_damaged_archive_is_refused(content, told, tmp_path):
    assert told in refusal(write(tmp_path, content))


def test_a_wrong_checksum_of_the_numbers_is_found_on_reading(tmp_path):
    start = GOOD.index(ONES.tobytes())
    path = write(tmp_path, patched(start, "<f", 2.0))
    stored = read_torch_file(path)["model"]["w"]
    with pytest.raises(CheckpointError, match="file is damaged: a checksum"):
        stored.read()


def test_an_absent_file_and_a_folder_are_the_systems_own_errors(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.pth"):
        read_torch_file(tmp_path / "absent.pth")
    with pytest.raises(OSError, match=re.escape(str(tmp_path))):
        read_torch_file(tmp_path)


def test_a_file_cut_at_any_length_is_refused(tmp_path):
    path = tmp_path / "checkpoint.pth"
    write_torch_file(path, [("w", ONES)])
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        refusal(path)
