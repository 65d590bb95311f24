"""A pickle out for harm runs nothing and takes no memory to speak of; a damaged one is refused."""

import argparse
import os
import pathlib
import re
import struct
import subprocess
import time
import tracemalloc

import numpy as np
import pytest
import torch
from crafted_archives import (
    ONES,
    Call,
    Storage,
    archive_of,
    pickled,
    read_or_told,
    refusal,
    tensor,
    write,
)

from keras_convnext.pretrained.checkpoint import open_checkpoint
from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.placeholder import Placeholder
from keras_convnext.pretrained.torch_file import read_torch_file


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
    assert "that may run code" in message or "torch.save never writes" in message
    assert "only the model's state_dict()" in message
    assert not os.path.exists(trace)


RAW_CODE = {
    "inst": b"(X\x01\x00\x00\x00xios\nsystem\n.",
    "obj": b"(cos\nsystem\nX\x01\x00\x00\x00xo.",
    "newobj": b"cos\nsystem\nX\x01\x00\x00\x00x\x85\x81.",
    "name as text": b"X\x09\x00\x00\x00os.systemX\x01\x00\x00\x00x\x85R.",
    "ext": b"\x82\x01.",
    "dunder": b"ctorch._utils\n__class__\n.",
    "persistent name": b"P0\n.",
    "buffer": b"\x97.",
    "build on class": b"cargparse\nNamespace\n}b.",
    "items on class": b"ccollections\nCounter\nX\x01\x00\x00\x00xNs.",
    "append on class": b"ccollections\ndeque\nNa.",
    "call of a list": b"])R.",
    "class of no name": b"NN\x93.",
    "build on name": b"ctorch\nSize\n}b.",
    "build on tensor": b"ctorch\nSize\n)\x85R}X\x01\x00\x00\x00xNsb.",
}


@pytest.mark.parametrize("description", RAW_CODE.values(), ids=RAW_CODE)
def test_no_other_operation_is_obeyed(description, tmp_path):
    refusal(write(tmp_path, archive_of(b"\x80\x02" + description)))


UNSAFE = {
    "module": "os environ",
    "package": "importlib._bootstrap _call_with_frames_removed",
    "old name": "__builtin__ execfile",
    "built-in": "builtins __import__",
    "built-in of a built-in": "builtins int.__subclasses__",
    "by way of another module": "posixpath os.system",
    "by way of a class": "torch.serialization _open_file.__init__.__globals__",
    "member": "torch.hub load",
    "class's member": "torch FloatStorage.from_file",
    "path's method": "pathlib PosixPath.unlink",
    "special package": "torch.__future__ x",
    "code": "types CodeType",
    "partial's target": "functools reduce",
}


@pytest.mark.parametrize("called", [b"", b")R", b")\x81", b")}\x92"])
@pytest.mark.parametrize("name", UNSAFE.values(), ids=UNSAFE)
def test_an_unsafe_name_is_refused_wherever_it_stands(name, called, tmp_path):
    module, qualified = (part.encode() for part in name.split())
    for opening in (
        b"c%b\n%b\n" % (module, qualified),
        b"\x8c%c%b\x8c%c%b\x93" % (len(module), module, len(qualified), qualified),
    ):
        description = b"\x80\x04}\x8c\x05model" + opening + called + b"s."
        assert "that may run code" in refusal(write(tmp_path, archive_of(description)))


def test_a_method_of_an_object_is_not_called(tmp_path):
    path = pathlib.Path(tmp_path / "trace")
    path.touch()
    for method in (path.unlink, path.with_suffix):
        call = Call(method)
        for protocol in (2, 4):
            message = refusal(write(tmp_path, archive_of(pickled({"model": call}, protocol))))
            assert "that may run code" in message
    assert path.exists()


def test_a_member_of_an_unsafe_module_is_not_reached_step_by_step(tmp_path):
    steps = b"cbuiltins\ngetattr\nq\0(ctorch._utils\nos\nX\x06\0\0\0systemtR."
    assert "that may run code" in refusal(write(tmp_path, archive_of(b"\x80\x02" + steps)))


def test_a_state_lands_in_its_placeholder_alone(tmp_path):
    namespace = argparse.Namespace()
    vars(namespace).update({"__class__": "x", "name": {"y": 1}, "attributes": 1})
    loaded = read_torch_file(write(tmp_path, archive_of(pickled(namespace))))
    assert type(loaded) is Placeholder
    assert loaded.name == "argparse.Namespace"
    assert loaded.attributes == vars(namespace)
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
    "getattr": b"cbuiltins\ngetattr\nq\x00cx\ny\nq\x01" + b"h\x00h\x01X\x05\x00\x00\x00xxxxx"
               b"\x86Rq\x01" * 5000,
    "placeholders": b"cx\ny\nq\x00" + b"h\x00)\x81" * 100_000,
    "ordered dict": b"ccollections\nOrderedDict\nq\x00}" + large(9000) + b"u\x85q\x01"
                    + b"h\x00h\x01R" * 5000,
    "subclass": b"ctorch._tensor\n_rebuild_from_type_v2\nq\x00)q\x01"
                + b"h\x00h\x00Nh\x01N(tRq\x01" * 10_000,
    "memoized": b"]\x94" * 100_000,
    "large memo": b"p" + b"9" * 4000 + b"\n",
    "bytes": b"\x8e" + struct.pack("<Q", 2**40) + b"x",
    "bytearray": b"\x96" + struct.pack("<Q", 2**40) + b"x",
    "long text": b"\x8d" + struct.pack("<Q", 2**62) + b"x",
    "frame": b"\x95" + struct.pack("<Q", 2**40) + b"N",
    "laughs in device": b")q\x00" + b"h\x00h\x00\x86q\x00" * 24
                        + b"ctorch\ndevice\nh\x00K\x01\x86R",
    "laughs in storage": b")q\x00" + b"h\x00h\x00\x86q\x00" * 24
                         + b"(X\x00\x00\x00\x00ctorch\nFloatStorage\nh\x00X\x00\x00\x00\x00K\x04tQ",
    "laughs in shape": b")q\x00" + b"h\x00h\x00\x86q\x00" * 24
                       + b"ctorch._utils\n_rebuild_tensor_v2\n((X\x00\x00\x00\x00ctorch\n"
                       + b"FloatStorage\nX\x01\x00\x00\x000X\x00\x00\x00\x00K\x04tQK\x00h\x00h\x00"
                       + b"\x89NtR",
    "laughs in axes": b"ctorch._utils\n_rebuild_tensor_v2\n(("
                      + b"X\x00\x00\x00\x00ctorch\nFloatStorage\nX\x01\x00\x00\x000NK\x04tQK\x00"
                      + b"(\x8a\xff" + b"\x7f" * 255 + b"q\x00" + b"h\x00" * 200_000 + b"tq\x01"
                      + b"h\x01\x89NtR",
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


def module(children, parameters=b"", opening=b"h\x00)\x81"):
    """The operations that make a module of PyTorch, of a class that stands at 0 of the memo."""
    members = {b"_parameters": parameters, b"_buffers": b"", b"_modules": children}
    pairs = b"".join(b"\x8c%c%b}(%bu" % (len(key), key, value) for key, value in members.items())
    return opening + b"}(" + pairs + b"ub"


CLASS = b"ctorch.nn\nModule\nq\x00"
WEIGHT = b"\x8c\x01wctorch\nSize\n)\x85R"
MODULES = {
    "doubled": module(b"", WEIGHT) + b"q\x01"
               + (module(b"\x8c\x01ah\x01\x8c\x01bh\x01") + b"q\x01") * 40,
    "in itself": b"h\x00)\x81q\x01" + module(b"\x8c\x01ah\x01", opening=b"h\x01")
                 + module(b"\x8c\x01ah\x01"),
    "deep": module(b"", WEIGHT) + b"q\x01" + (module(b"\x8c\x01ah\x01") + b"q\x01") * 5000,
    "one state": b"}(" + b"\x8c\x0b_parameters}\x8c\x08_buffers}\x8c\x08_modules}("
                 + b"".join(b"\x8c\x03%03dN" % i for i in range(900))
                 + b"uuq\x01" + b"h\x00)\x81h\x01b" * 20_000,
}  # fmt: skip


@pytest.mark.parametrize("description", MODULES.values(), ids=MODULES)
def test_modules_without_end_are_refused(description, tmp_path):
    path = write(tmp_path, archive_of(b"\x80\x04(" + CLASS + description + b"t."))
    began = time.process_time()
    tracemalloc.start()
    assert "more tensors than any network" in refusal(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 << 20
    assert time.process_time() - began < 5


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
    assert "a dict key is an integer of" in refusal(write(tmp_path, archive_of(description)))


PICKLES = {
    "empty": (b"", "exhausted"),
    "no end": (b"\x80\x02N", "exhausted"),
    "no result": (b"\x80\x02.", "pop from empty"),
    "two results": (b"\x80\x02NN.", "left on the stack"),
    "mark for result": (b"\x80\x02(.", "an item is missing"),
    "odd items": (b"\x80\x02}(Nu.", "damaged"),
    "no such memo": (b"\x80\x02h\x07.", "damaged"),
    "append to dict": (b"\x80\x02}Na.", "expected a list, received a dict"),
    "unknown operation": (b"\x80\x02\xff.", "damaged"),
    "not utf-8": (b"\x80\x02X\x01\x00\x00\x00\xff.", "damaged"),
    "name not ascii": (b"\x80\x02c\xff\n\xff\n.", "damaged"),
    "escape code in name": (b"\x80\x02cos\n\x1b[2J\n.", re.escape(r"'os.\x1b[2J'")),
    "long name": (b"\x80\x02c" + b"x" * 10_000 + b"\ny\n.", "state_dict"),
    "long number": (b"\x80\x02F" + b"x" * 10_000 + b"\n.", "to float: b'xxx"),
    "many names": (
        b"\x80\x02" + b"".join(b"cx\ny%d\n" % i for i in range(10_001)) + b".",
        "names more than 10,000 classes",
    ),
    "too large": (b"\x80\x02" + b"N" * (3 << 20), "more than 3,145,728 operations"),
}


@pytest.mark.parametrize(("description", "told"), PICKLES.values(), ids=PICKLES)
def test_a_damaged_pickle_is_refused(description, told, tmp_path):
    assert re.search(told, refusal(write(tmp_path, archive_of(description))))


TENSORS = {
    "negative side": (tensor((-1,)), r"impossible shape .*shape=\(-1,\)"),
    "negative stride": (tensor((2,), (-1,)), "impossible shape"),
    "negative offset": (tensor(offset=-1), "impossible shape"),
    "past the end": (tensor((5,)), "extends past its storage of 4 elements"),
    "offset past the end": (tensor(offset=1), "extends past its storage"),
    "stride past the end": (tensor((2, 2), (3, 1)), "extends past its storage"),
    "empty past the end": (tensor((0,), offset=5), "extends past its storage"),
    "2**40 elements": (tensor((2**40,)), "extends past its storage"),
    "2**63 bytes of stride 0": (tensor((2**40, 2**40), (0, 0)), "impossible shape"),
    "2**63 bytes beside a 0": (tensor((0, 2**40, 2**40), (1, 1, 1)), "impossible shape"),
    "huge stride": (tensor((1, 4), (2**62, 1)), "impossible shape"),
    "huge number": (tensor((2**1900,)), "impossible shape"),
    "float side": (tensor((4.0,)), "is invalid"),
    "bool side": (tensor((True,)), "is invalid"),
    "none": (tensor(None, None), "is invalid"),
    "text": (tensor("ab", "ab"), "is invalid"),
    "dict": (tensor({4: 0}, {1: 0}), "is invalid"),
    "fewer strides": (tensor((2, 2), (1,)), "is invalid"),
    "33 axes": (tensor((1,) * 33, (1,) * 33), "is invalid"),
    "no storage": (tensor(storage="float32"), "is invalid"),
    "few arguments": (Call(torch._utils._rebuild_tensor_v2, Storage()), "damaged"),
    "absent storage": (tensor(storage=Storage(key="7")), "storage '7' is missing"),
    "storage outside": (tensor(storage=Storage(key="../data.pkl")), "is missing from the archive"),
    "key no text": (tensor(storage=Storage(key=0)), "storage is invalid"),
    "dtype object": (tensor(storage=Storage(kind="O")), "storage is invalid"),
    "dtype of no size": (tensor(storage=Storage(kind="V0")), "storage is invalid"),
    "dtype of fields": (tensor(storage=Storage(kind="i4,f8")), "storage is invalid"),
    "dtype list": (tensor(storage=Storage(kind=["f4"])), "storage is invalid"),
    "complex": (tensor(storage=Storage(kind=torch.ComplexFloatStorage)), "past its storage of 2"),
    "dtype of the tensor": (
        tensor(storage=Storage(kind=torch.UntypedStorage), dtype=torch.uint64),
        "past its storage of 2 elements",
    ),
}


@pytest.mark.parametrize(("described", "told"), TENSORS.values(), ids=TENSORS)
def test_an_impossible_tensor_is_refused(described, told, tmp_path):
    path = write(tmp_path, archive_of(pickled({"model": {"w": described}})))
    assert re.search(told, refusal(path))


def test_a_name_of_countless_wrappers_is_refused_at_once(tmp_path):
    """Taken off one by one, they take time that grows with the square of their number."""
    path = write(tmp_path, archive_of(pickled({"module." * 250_000 + "x": tensor()})))
    began = time.perf_counter()
    with pytest.raises(CheckpointError, match="Not a ConvNeXt"):
        open_checkpoint(path)
    assert time.perf_counter() - began < 1
