"""What torch saved is read to the bit; a file that is damaged or out for harm is refused."""

import argparse
import io
import math
import os
import pickle
import random
import re
import struct
import subprocess
import tracemalloc
import zipfile
from collections import OrderedDict
from typing import NamedTuple

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import nn

from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.torch_file import StoredTensor, read_torch_file, write_torch_file

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32,
          torch.int16, torch.int8, torch.uint8, torch.bool]  # fmt: skip
MATRIX = torch.arange(24, dtype=torch.float32).reshape(4, 6).sin()
ONES = np.ones(4, np.float32)


def numpy_of(tensor):
    """The array with the bits of a tensor."""
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.detach().numpy()


def assert_same(ours, theirs):
    if isinstance(theirs, torch.Tensor):
        assert isinstance(ours, StoredTensor)
        array, expected = ours.read(), numpy_of(theirs)
        assert (array.dtype, array.shape) == (expected.dtype, expected.shape)
        assert array.tobytes() == expected.tobytes()
    elif isinstance(theirs, argparse.Namespace):
        assert type(ours) is argparse.Namespace
        assert_same(vars(ours), vars(theirs))
    elif isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key in theirs:
            assert_same(ours[key], theirs[key])
    elif isinstance(theirs, list | tuple):
        assert type(ours) is (list if isinstance(theirs, list) else tuple)
        assert len(ours) == len(theirs)
        for item, expected in zip(ours, theirs):
            assert_same(item, expected)
    else:
        assert type(ours) is type(theirs)
        assert ours == theirs


def training_checkpoint():
    """The entries that the official `utils.save_model` writes."""
    network = nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4), nn.GELU(), nn.Conv2d(4, 2, 1))
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.05)
    network(torch.randn(2, 3, 4, 4)).square().sum().backward()
    optimizer.step()
    assert network.state_dict()._metadata
    return {
        "model": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 299,
        "scaler": {},
        "args": argparse.Namespace(
            model="convnext_tiny", data_path="/data/imagenet/é", nb_classes=1000, seed=0, lr=4e-3,
            opt_betas=None, opt_eps=1e-8, distributed=True, crop_pct=None, gpu=-1, big=2**40,
            layers=["stem", ["head"]], size=(224, 224), inner=argparse.Namespace(empty={}),
        ),
        "model_ema": network.state_dict(),
    }  # fmt: skip


def nested_namespace():
    namespace = argparse.Namespace(rate=0.1)
    return {"args": namespace, "vars": vars(namespace), "empty": argparse.Namespace()}


SAVED = {
    "training": training_checkpoint(),
    "tensor": MATRIX,
    "list": [MATRIX, 1, "x", [None]],
    "none": None,
    "namespace": nested_namespace(),
    "dtypes": {str(dtype): torch.arange(-3, 3).to(dtype).reshape(2, 3) for dtype in DTYPES},
    "nonfinite": {"x": torch.tensor([math.nan, math.inf, -math.inf, -0.0, 1e-45])},
    "transposed": {"x": MATRIX.t(), "axes": torch.randn(2, 3, 4).permute(2, 0, 1)},
    "sliced": {"rows": MATRIX[1:3], "both": MATRIX[1:, 2:5], "steps": MATRIX[::2, ::3]},
    "expanded": {"x": torch.ones(1, 3).expand(5, 3), "0-d": torch.tensor(2.0).expand(3, 4)},
    "overlapping": {"x": torch.arange(9).unfold(0, 3, 1), "y": MATRIX.diagonal()},
    "empty": {"x": torch.zeros(0, 3), "y": torch.zeros(3, 0, 2), "z": torch.zeros(0)},
    "0-d": {"x": torch.tensor(5), "y": MATRIX[3, 4]},
    "shared": {"x": MATRIX, "same": MATRIX, "part": MATRIX[2], "flat": MATRIX.view(-1)},
    "channels_last": {"x": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)},
    "parameter": {"x": nn.Parameter(MATRIX), "frozen": nn.Parameter(MATRIX, requires_grad=False)},
    "ddp": OrderedDict({"module.head.weight": MATRIX, "module.head.bias": MATRIX[0]}),
    "size": {"shape": MATRIX.shape},
    "numbers": [0, -1, 255, 256, 65536, 2**31, -(2**31), 2**63, -(2**70), 0.1, math.inf, True],
    "many": {"list": list(range(3000)), "dict": {f"key {i}": i for i in range(3000)}},
    "text": {"é\n\x00": "x" * 70_000},
    "random": {"state": torch.get_rng_state()},
}


@pytest.mark.parametrize("saved", SAVED.values(), ids=SAVED)
def test_what_torch_saved_is_read_to_the_bit(saved, tmp_path):
    path = tmp_path / "saved.v1..pth"
    torch.save(saved, path)
    assert_same(read_torch_file(path), saved)


def test_a_set_comes_as_a_list_and_a_device_as_its_parts(tmp_path):
    path = tmp_path / "saved.pth"
    torch.save({"set": {1}, "device": torch.device("cuda", 1)}, path)
    assert read_torch_file(path) == {"set": [1], "device": ("cuda", 1)}


def test_tensors_are_read_when_asked_and_only_their_part(tmp_path):
    path = tmp_path / "saved.pth"
    torch.save(torch.zeros(1 << 22)[5:9], path)
    tracemalloc.start()
    tensor = read_torch_file(path)
    tensor.read()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20


def test_a_file_cut_after_it_was_opened_is_refused(tmp_path):
    path = tmp_path / "saved.pth"
    torch.save(MATRIX, path)
    tensor = read_torch_file(path)
    os.truncate(path, 100)
    with pytest.raises(CheckpointError, match=r"saved\.pth was cut while it was read"):
        tensor.read()


# Writer.


def test_torch_loads_what_is_written_to_the_bit(tmp_path):
    generator = np.random.default_rng(0)
    numbers = generator.normal(size=(4, 6)) * 50
    arrays = {str(dtype): numbers.astype(numpy_of(torch.zeros(1, dtype=dtype)).dtype)
              for dtype in DTYPES}  # fmt: skip
    arrays |= {
        "transposed": numbers.T,
        "strided": numbers[::2, 1:4],
        "broadcast": np.broadcast_to(np.float32(2), (3, 2)),
        "0-d": np.array(3.0),
        "empty": np.zeros((0, 3), np.float32),
        "é": ONES,
    }
    path = tmp_path / "written.pth"
    write_torch_file(path, arrays.items(), key="ema")
    for mmap in (False, True):
        loaded = torch.load(path, weights_only=True, mmap=mmap)["ema"]
        assert list(loaded) == list(arrays)
        for key, array in arrays.items():
            theirs = numpy_of(loaded[key])
            assert loaded[key].is_contiguous()
            assert (theirs.dtype, theirs.shape) == (array.dtype, array.shape)
            assert theirs.tobytes() == array.tobytes()
    assert zipfile.ZipFile(path).testzip() is None
    ours = read_torch_file(path)["ema"]
    assert all(ours[key].read().tobytes() == array.tobytes() for key, array in arrays.items())


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    def tensors():
        yield "first", ONES
        raise RuntimeError("no more")

    path = tmp_path / "written.pth"
    with pytest.raises(RuntimeError, match="no more"):
        write_torch_file(path, tensors())
    assert not list(tmp_path.iterdir())
    path.write_text("older")
    with pytest.raises(RuntimeError, match="no more"):
        write_torch_file(path, tensors())
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]


# Pickles out for harm.


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


def test_the_crafted_archive_is_sound(tmp_path):
    """Else each of the tests below would pass for the wrong reason."""
    path = write(tmp_path, archive_of(pickled({"model": {"w": tensor()}})))
    np.testing.assert_array_equal(read_torch_file(path)["model"]["w"].read(), ONES)


CODE = {
    "os.system": (os.system, "touch {trace}"),
    "eval": (eval, "open({trace!r}, 'w')"),
    "exec": (exec, "open({trace!r}, 'w')"),
    "open": (open, "{trace}", "w"),
    "popen": (subprocess.Popen, ["touch", "{trace}"]),
    "getattr": (getattr, argparse.Namespace, "__init__"),
    "torch.load": (torch.load, "{trace}"),
    "storage": (torch.FloatStorage.from_file, "{trace}", True, 4),
}


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
@pytest.mark.parametrize("attempt", CODE.values(), ids=CODE)
def test_no_code_runs(attempt, protocol, tmp_path):
    trace = str(tmp_path / "trace")
    function, *arguments = attempt
    arguments = [a.format(trace=trace) if isinstance(a, str) else a for a in arguments]
    call = Call(function, *arguments)
    message = refusal(write(tmp_path, archive_of(pickled({"model": call}, protocol))))
    assert "that may run code" in message or "torch.save never does" in message
    assert "state_dict() alone" in message
    assert not os.path.exists(trace)


RAW_CODE = {
    "inst": b"(X\x01\x00\x00\x00xios\nsystem\n.",
    "obj": b"(cos\nsystem\nX\x01\x00\x00\x00xo.",
    "newobj": b"cos\nsystem\nX\x01\x00\x00\x00x\x85\x81.",
    "name as text": b"X\x09\x00\x00\x00os.systemX\x01\x00\x00\x00x\x85R.",
    "ext": b"\x82\x01.",
    "dunder": b"ctorch._utils\n__class__\n.",
    "namespace call": b"cargparse\nNamespace\n)R.",
    "build on name": b"ctorch\nSize\n}b.",
    "build on tensor": b"ctorch\nSize\n)\x85R}X\x01\x00\x00\x00xNsb.",
}


@pytest.mark.parametrize("description", RAW_CODE.values(), ids=RAW_CODE)
def test_no_other_operation_is_obeyed(description, tmp_path):
    refusal(write(tmp_path, archive_of(b"\x80\x02" + description)))


def test_a_state_lands_in_its_namespace_alone(tmp_path):
    namespace = argparse.Namespace()
    vars(namespace).update({"__class__": "x", "__dict__": {"y": 1}})
    loaded = read_torch_file(write(tmp_path, archive_of(pickled(namespace))))
    assert type(loaded) is argparse.Namespace
    assert vars(loaded) == vars(namespace)
    assert vars(argparse.Namespace()) == {}


def large(number):
    return b"(" + b"".join(b"M" + struct.pack("<H", i) for i in range(number))


# Each makes something large once and then asks for it again and again, a few bytes a time, or puts
# it into itself: copied or printed, it would take hundreds of megabytes.
BOMBS = {
    "size": b"ctorch\nSize\nq\x00" + large(9000) + b"tq\x01" + b"h\x00h\x01\x85R" * 5000,
    "size of text": b"ctorch\nSize\nq\x00X\x40\x42\x0f\x00" + b"x" * 1_000_000 + b"\x85q\x01"
                    + b"h\x00h\x01R" * 50,
    "set": b"c__builtin__\nset\nq\x00]" + large(9000) + b"e\x85q\x01" + b"h\x00h\x01R" * 5000,
    "device": b"ctorch\ndevice\nq\x00X\x40\x42\x0f\x00" + b"x" * 1_000_000 + b"q\x01"
              + b"h\x00h\x01h\x01\x86R" * 200,
    "namespace": b"cargparse\nNamespace\nq\x00}" + large(9000) + b"uq\x01"
                 + b"h\x00)\x81h\x01b" * 3000,
    "laughs in device": b")q\x00" + b"h\x00h\x00\x86q\x00" * 24
                        + b"ctorch\ndevice\nh\x00K\x01\x86R",
    "laughs in storage": b")q\x00" + b"h\x00h\x00\x86q\x00" * 24
                         + b"(X\x00\x00\x00\x00ctorch\nFloatStorage\nh\x00X\x00\x00\x00\x00K\x04tQ",
    "laughs in shape": b")q\x00" + b"h\x00h\x00\x86q\x00" * 24
                       + b"ctorch._utils\n_rebuild_tensor_v2\n((X\x00\x00\x00\x00ctorch\n"
                       + b"FloatStorage\nX\x01\x00\x00\x000X\x00\x00\x00\x00K\x04tQK\x00h\x00h\x00"
                       + b"\x89NtR",
    "memo": b"N" + b"".join(b"r" + struct.pack("<I", i << 20) for i in range(4000)),
    "long": b"\x8b" + struct.pack("<i", 2**31 - 1) + b"\xff",
    "text": b"X\xff\xff\xff\xffx",
    "int": b"I" + b"9" * 100_000 + b"\n",
}  # fmt: skip


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_memory_is_bounded_by_the_file(bomb, tmp_path):
    path = write(tmp_path, archive_of(b"\x80\x02(" + bomb + b"t."))
    tracemalloc.start()
    told = read_or_told(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 << 20
    assert len(told) < 1000


DEPTH = 200_000  # a hash of this exhausts the usual 8 MiB
DEEP = {
    "tuple": b")" + b"\x85" * DEPTH,
    "list": b"]" * DEPTH + b"a" * (DEPTH - 1),
    "dict": b"}" + b"K\x00}" * DEPTH + b"s" * DEPTH,
    "namespace": b"cargparse\nNamespace\nq\x00)\x81" + b"}K\x00h\x00)\x81" * (DEPTH // 4)
                 + b"sb" * (DEPTH // 4),
    "key": b"})" + b"\x85" * DEPTH + b"Ns",
    "set": b"c__builtin__\nset\n])" + b"\x85" * DEPTH + b"a\x85R",
    "device": b"ctorch\ndevice\n)" + b"\x85" * DEPTH + b"\x85R",
    "dtype": b"(X\x00\x00\x00\x00)" + b"\x85" * DEPTH + b"X\x01\x00\x00\x000NNtQ",
    "storage": b"(X\x00\x00\x00\x00ctorch\nFloatStorage\n)" + b"\x85" * DEPTH + b"NNtQ",
    "arguments": b"cargparse\nNamespace\n)" + b"\x85" * DEPTH + b"\x81",
}  # fmt: skip


@pytest.mark.parametrize("deep", DEEP.values(), ids=DEEP)
def test_depth_does_not_exhaust_the_stack(deep, tmp_path):
    path = write(tmp_path, archive_of(b"\x80\x02" + deep + b"."))
    assert len(read_or_told(path)) < 1000


def test_what_contains_itself_is_read(tmp_path):
    items = []
    items.append((items, {"again": items}))
    loaded = read_torch_file(write(tmp_path, archive_of(pickled(items))))
    assert loaded[0][0] is loaded
    assert loaded[0][1]["again"] is loaded


def test_keys_that_hash_alike_are_refused(tmp_path):
    """A dict of them takes time that grows with the square of their number."""
    modulus = 2**61 - 1
    description = pickled({i * modulus**2: None for i in range(1, 100)})
    assert "for a key" in refusal(write(tmp_path, archive_of(description)))


PICKLES = {
    "empty": (b"", "exhausted"),
    "no end": (b"\x80\x02N", "exhausted"),
    "no result": (b"\x80\x02.", "pop from empty"),
    "two results": (b"\x80\x02NN.", "leaves something over"),
    "mark for result": (b"\x80\x02(.", "an item is lacking"),
    "odd items": (b"\x80\x02}(Nu.", "damaged"),
    "no such memo": (b"\x80\x02h\x07.", "damaged"),
    "append to dict": (b"\x80\x02}Na.", "takes a dict for a list"),
    "unknown operation": (b"\x80\x02\xff.", "damaged"),
    "not utf-8": (b"\x80\x02X\x01\x00\x00\x00\xff.", "damaged"),
    "name not ascii": (b"\x80\x02c\xff\n\xff\n.", "damaged"),
    "escape code in name": (b"\x80\x02c\x1b[2J\nx\n.", re.escape(r"'\x1b[2J.x'")),
    "long name": (b"\x80\x02c" + b"x" * 10_000 + b"\ny\n.", "state_dict"),
    "long number": (b"\x80\x02F" + b"x" * 10_000 + b"\n.", "to float: b'xxx"),
    "too large": (b"\x80\x02" + b"N" * (3 << 20), "3145730 bytes, far more than"),
}


@pytest.mark.parametrize(("description", "told"), PICKLES.values(), ids=PICKLES)
def test_a_damaged_pickle_is_refused(description, told, tmp_path):
    assert re.search(told, refusal(write(tmp_path, archive_of(description))))


TENSORS = {
    "negative side": (tensor((-1,)), r"impossible shape \(-1,\)"),
    "negative stride": (tensor((2,), (-1,)), "impossible shape"),
    "negative offset": (tensor(offset=-1), "impossible shape"),
    "past the end": (tensor((5,)), "reaches past its storage of 4 elements"),
    "offset past the end": (tensor(offset=1), "reaches past its storage"),
    "stride past the end": (tensor((2, 2), (3, 1)), "reaches past its storage"),
    "empty past the end": (tensor((0,), offset=5), "reaches past its storage"),
    "2**40 elements": (tensor((2**40,)), "reaches past its storage"),
    "2**63 bytes of stride 0": (tensor((2**40, 2**40), (0, 0)), "impossible shape"),
    "2**63 bytes beside a 0": (tensor((0, 2**40, 2**40), (1, 1, 1)), "impossible shape"),
    "huge stride": (tensor((1, 4), (2**62, 1)), "impossible shape"),
    "huge number": (tensor((2**1900,)), "impossible shape"),
    "float side": (tensor((4.0,)), "makes no sense"),
    "bool side": (tensor((True,)), "makes no sense"),
    "none": (tensor(None, None), "makes no sense"),
    "text": (tensor("ab", "ab"), "makes no sense"),
    "dict": (tensor({4: 0}, {1: 0}), "makes no sense"),
    "fewer strides": (tensor((2, 2), (1,)), "makes no sense"),
    "33 axes": (tensor((1,) * 33, (1,) * 33), "makes no sense"),
    "no storage": (tensor(storage="float32"), "makes no sense"),
    "few arguments": (Call(torch._utils._rebuild_tensor_v2, Storage()), "damaged"),
    "absent storage": (tensor(storage=Storage(key="7")), "lacks the storage '7'"),
    "storage outside": (tensor(storage=Storage(key="../data.pkl")), "lacks the storage"),
    "key no text": (tensor(storage=Storage(key=0)), "storage makes no sense"),
    "dtype object": (tensor(storage=Storage(kind="O")), "storage makes no sense"),
    "dtype of no size": (tensor(storage=Storage(kind="V0")), "storage makes no sense"),
    "dtype of fields": (tensor(storage=Storage(kind="i4,f8")), "storage makes no sense"),
    "dtype list": (tensor(storage=Storage(kind=["f4"])), "storage makes no sense"),
    "complex": (tensor(storage=Storage(kind=torch.ComplexFloatStorage)), "ComplexFloatStorage"),
}


@pytest.mark.parametrize(("described", "told"), TENSORS.values(), ids=TENSORS)
def test_an_impossible_tensor_is_refused(described, told, tmp_path):
    path = write(tmp_path, archive_of(pickled({"model": {"w": described}})))
    assert re.search(told, refusal(path))


# Damaged archives.

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
    torch.save({"x": MATRIX}, path, _use_new_zipfile_serialization=False)
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
    torch.save(
        {"model": {"x": MATRIX[1:, ::2], "y": torch.tensor(1)}, "args": argparse.Namespace(a=1)},
        path,
    )
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
