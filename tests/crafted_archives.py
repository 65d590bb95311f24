"""Archives and pickles as nobody would save them, made by hand for the tests of the reader."""

import argparse
import io
import math
import pickle
import zipfile
from collections import OrderedDict
from typing import NamedTuple

import numpy as np
import pytest
import torch

from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.torch_file import StoredTensor, read_torch_file

ONES = np.ones(4, np.float32)


class Call:
    """Pickles as the call of a function, which its reader is to make."""

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


def tensor(shape=(4,), strides=(1,), offset=0, storage=None):
    storage = Storage() if storage is None else storage
    rebuild = torch._utils._rebuild_tensor_v2
    return Call(rebuild, storage, offset, shape, strides, False, OrderedDict())


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
    """The message with which a file is refused; it names the file."""
    with pytest.raises(CheckpointError) as caught:
        read_torch_file(path)
    message = str(caught.value)
    assert str(path) in message
    assert len(message.replace(str(path), "")) < 600
    return message


def read_or_told(path, then=lambda saved: None):
    """Reads a file; returns the message if it was refused."""
    try:
        then(read_torch_file(path))
    except CheckpointError as error:
        return str(error)
    return ""


def read_all(value, depth=0):
    if isinstance(value, StoredTensor):
        if math.prod(value.shape) < 1 << 20:
            value.read().tobytes()
    elif isinstance(value, argparse.Namespace):
        read_all(vars(value), depth + 1)
    elif isinstance(value, dict | list | tuple) and depth < 10:
        for item in value.values() if isinstance(value, dict) else value:
            read_all(item, depth + 1)
