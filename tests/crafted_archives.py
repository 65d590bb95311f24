"""Handcrafted archives and pickles, for the tests of the reader."""

import io
import pickle
import re
import struct
import zipfile
from collections import OrderedDict
from typing import NamedTuple

import numpy as np
import pytest
import torch

from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.torch_file import read_torch_file

ONES = np.ones(4, np.float32)


class Call:
    """Pickles as a function call, to be executed by the reader."""

    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


class Storage(NamedTuple):
    kind: object = torch.FloatStorage
    key: object = "0"


class _Pickler(pickle.Pickler):
    def persistent_id(self, value):
        if isinstance(value, Storage):
            return ("storage", value.kind, value.key, "cpu", 4)
        return None


def pickled(value, protocol=2):
    buffer = io.BytesIO()
    _Pickler(buffer, protocol).dump(value)
    return buffer.getvalue()


def tensor(shape=(4,), strides=(1,), offset=0, storage=None, dtype=None):
    storage = Storage() if storage is None else storage
    described = storage, offset, shape, strides, False, OrderedDict()
    if dtype is None:
        return Call(torch._utils._rebuild_tensor_v2, *described)
    return Call(torch._utils._rebuild_tensor_v3, *described, dtype)


def archive(*entries):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in entries:
            file.writestr(name, content)
    return buffer.getvalue()


def archive_of(description):
    return archive(("archive/data.pkl", description), ("archive/data/0", ONES.tobytes()))


def write(tmp_path, content):
    path = tmp_path / "checkpoint.pth"
    path.write_bytes(content)
    return path


def refusal(path):
    """Returns the error message for a rejected file, and checks that it names the file."""
    with pytest.raises(CheckpointError) as caught:
        read_torch_file(path)
    message = str(caught.value)
    assert str(path) in message
    assert len(message.replace(str(path), "")) < 600
    return message


def read_or_told(path, then=lambda saved: None):
    """Reads a file, and returns the error message if it is rejected."""
    try:
        then(read_torch_file(path))
    except CheckpointError as error:
        return str(error)
    return ""


GOOD_PICKLE = pickled({"model": {"w": tensor()}})
GOOD = archive_of(GOOD_PICKLE)
DIRECTORY = [match.start() for match in re.finditer(b"PK\x01\x02", GOOD)]
END = GOOD.rindex(b"PK\x05\x06")


def patched(position, layout, *values):
    """Returns the valid archive with other numbers at one position."""
    patch = struct.pack(layout, *values)
    return GOOD[:position] + patch + GOOD[position + len(patch) :]


def in_directory(entry, field, layout, *values):
    return patched(DIRECTORY[entry] + field, layout, *values)


def with_zip64_end(size, offset):
    """Returns the valid archive with a zip64 record of the directory's position."""
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 2, 2, size, offset)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, END, 1)
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 2**32 - 1, 2**32 - 1, 0)
    return GOOD[:END] + record + locator + end


def with_zip64_entry(size, offset):
    """Returns the valid archive with 64-bit offset and size of its last entry."""
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
