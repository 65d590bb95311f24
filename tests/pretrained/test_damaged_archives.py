"""An archive that is damaged, cut or something else is refused, and the message says what it is."""

import argparse
import io
import pickle
import random
import re
import struct
import zipfile

import numpy as np
import pytest
import torch
from crafted_archives import (
    ONES,
    archive,
    archive_of,
    pickled,
    read_all,
    read_or_told,
    refusal,
    tensor,
    write,
)
from torch import nn

from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.torch_file import read_torch_file, write_torch_file

GOOD_PICKLE = pickled({"model": {"w": tensor()}})
GOOD = archive_of(GOOD_PICKLE)
DIRECTORY = [match.start() for match in re.finditer(b"PK\x01\x02", GOOD)]
END = GOOD.rindex(b"PK\x05\x06")


def patched(position, layout, *values):
    """The good archive with other numbers at one position."""
    patch = struct.pack(layout, *values)
    return GOOD[:position] + patch + GOOD[position + len(patch) :]


def in_directory(entry, field, layout, *values):
    return patched(DIRECTORY[entry] + field, layout, *values)


def with_zip64_end(size, offset):
    """The good archive with a zip64 record of where its directory stands."""
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 2, 2, size, offset)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, END, 1)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 2**32 - 1, 2**32 - 1, 0)
    return GOOD[:END] + record + locator + end


def with_zip64_entry(size, offset):
    """The good archive with the place and size of its last entry in 64 bits."""
    start = DIRECTORY[1]
    entry = bytearray(GOOD[start:END])
    entry[20:28] = b"\xff" * 8
    entry[42:46] = b"\xff" * 4
    extra = struct.pack("<HHQQQ", 1, 24, size, size, offset)
    entry[30:32] = struct.pack("<H", len(extra))
    content = GOOD[:start] + bytes(entry) + extra
    end = bytearray(GOOD[END:])
    end[12:16] = struct.pack("<I", len(content) - DIRECTORY[0])
    return content + bytes(end)


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
    "encrypted description": (in_directory(0, 8, "<H", 1), "neither compresses nor encrypts"),
    "encrypted numbers": (in_directory(1, 8, "<H", 1), "neither compresses nor encrypts"),
    "strong encryption": (in_directory(0, 8, "<H", 0x41), "neither compresses nor encrypts"),
    "compressed": (compressed(), "neither compresses nor encrypts"),
    "unknown method": (in_directory(1, 10, "<H", 99), "neither compresses nor encrypts"),
    "two sizes": (in_directory(1, 20, "<I", 3), "neither compresses nor encrypts"),
    "wrong checksum": (in_directory(0, 16, "<I", 1), "cut or damaged"),
    "later version": (in_directory(0, 6, "<H", 255), "cut or damaged"),
    "1 GiB claimed": (in_directory(1, 20, "<II", 2**30, 2**30), "claims more bytes"),
    "header at the end": (in_directory(1, 42, "<I", len(GOOD) - 20), "claims more bytes"),
    "no header": (patched(GOOD.index(b"PK\x03\x04", 4), "<I", 0), "damaged at 'archive/data/0'"),
    "header elsewhere": (in_directory(1, 42, "<I", 1), "damaged at 'archive/data/0'"),
    "directory elsewhere": (patched(END + 16, "<I", DIRECTORY[0] + 99), "claims more bytes"),
    "large directory": (patched(END + 12, "<I", 2**32 - 2), "cut or damaged"),
    "zip64 offset": (with_zip64_end(END - DIRECTORY[0], 2**63), "claims more bytes"),
    "zip64 size": (with_zip64_end(2**63, DIRECTORY[0]), "cut or damaged"),
    "zip64 entry size": (with_zip64_entry(2**64 - 1, 0), "claims more bytes"),
    "zip64 entry offset": (with_zip64_entry(16, 2**64 - 1), "claims more bytes"),
    "many entries": (of_many_entries(60_000), "cut or damaged"),
    "two descriptions": (archive(PKL, ("b/data.pkl", b"N.")), "two entries 'b/data.pkl'"),
    "parent folder": (archive(PKL, ("a/../x", b"")), "leave its folder: 'a/../x'"),
    "absolute": (archive(PKL, ("/etc/x", b"")), "leave its folder"),
    "no data.pkl": (archive(("a/x", b""), ("y", b""), ("z", b"")), "none of torch.save"),
    "at the root": (archive(("data.pkl", GOOD_PICKLE)), "none of torch.save"),
    "no entries": (archive(), "none of torch.save"),
    "torchscript": (torchscript(), "TorchScript archive"),
    "big-endian": (archive(PKL, ("a/byteorder", b"big")), "big-endian"),
    "large byteorder": (archive(PKL, ("a/byteorder", b"x" * (3 << 20))), "byteorder has 3145728"),
    "empty": (b"", "The file is empty"),
    "web page": (b"\n  <!DOCTYPE html><html>404</html>", "web page"),
    "lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d", "git lfs pull"),
    "bare pickle": (pickle.dumps({"model": 1}, 2), "torch before 1.6"),
    "text": (b"hello", "no zip archive"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + b"\0" * 99, "no zip archive"),
}


def test_the_zip64_archives_are_sound(tmp_path):
    offset = struct.unpack_from("<I", GOOD, DIRECTORY[1] + 42)[0]
    for content in (with_zip64_end(END - DIRECTORY[0], DIRECTORY[0]), with_zip64_entry(16, offset)):
        loaded = read_torch_file(write(tmp_path, content))
        np.testing.assert_array_equal(loaded["model"]["w"].read(), ONES)


@pytest.mark.parametrize(("content", "told"), ARCHIVES.values(), ids=ARCHIVES)
def test_a_damaged_archive_is_refused(content, told, tmp_path):
    assert told in refusal(write(tmp_path, content))


def test_files_of_torch_that_are_no_archives_of_weights_are_refused(tmp_path):
    path = tmp_path / "checkpoint.pth"
    torch.save({"x": torch.ones(4)}, path, _use_new_zipfile_serialization=False)
    assert "torch before 1.6" in refusal(path)
    torch.save(nn.Linear(2, 2), path)
    assert "'torch.nn.modules.linear.Linear'" in refusal(path)


def test_a_wrong_checksum_of_the_numbers_is_found_on_reading(tmp_path):
    start = GOOD.index(ONES.tobytes())
    path = write(tmp_path, patched(start, "<f", 2.0))
    stored = read_torch_file(path)["model"]["w"]
    with pytest.raises(CheckpointError, match=r"checkpoint\.pth are damaged: a checksum"):
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


def mutated(content, generator):
    content = bytearray(content)
    for _ in range(generator.choice((1, 1, 2, 4))):
        position = generator.randrange(len(content))
        match generator.randrange(4):
            case 0:
                content[position] = generator.randrange(256)
            case 1:
                content[position] ^= 1 << generator.randrange(8)
            case 2:
                del content[position : position + generator.randrange(1, 9)]
            case 3:
                content[position:position] = generator.choice(
                    [b"(", b"t", b"R", b"Q", b"u", b"h\x01", b"\x85", b"\x81", b"b", b"\xff" * 4]
                )
    return bytes(content)


@pytest.mark.parametrize("part", ["file", "pickle"])
def test_random_damage_is_read_or_refused(part, tmp_path):
    path = tmp_path / "checkpoint.pth"
    tensors = {"x": torch.ones(4, 6)[1:, ::2], "y": torch.tensor(1)}
    torch.save({"model": tensors, "args": argparse.Namespace(a=1)}, path)
    content = path.read_bytes()
    with zipfile.ZipFile(path) as file:
        entries = {entry.filename: file.read(entry) for entry in file.infolist()}
    outcomes = set()
    for seed in range(400):
        generator = random.Random(seed)
        if part == "pickle":  # under a right checksum, or it would not be looked at
            name = "checkpoint/data.pkl"
            damaged = archive(*{**entries, name: mutated(entries[name], generator)}.items())
        else:
            damaged = mutated(content, generator)
        path.write_bytes(damaged)
        told = read_or_told(path, then=read_all)
        assert not told or str(path) in told, seed
        outcomes.add(bool(told))
    assert outcomes == {True, False}
