"""Weights files with random damage, reproducible from a kind and a seed."""

import argparse
import collections
import functools
import io
import json
import pathlib
import pickletools
import random
import struct
import zipfile
from collections import OrderedDict

import crafted_archives
import numpy as np
import safetensors.numpy
import torch

NUMBERS = (0, 1, 2, 4, 7, 8, 16, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**40,
           2**63 - 1, 2**63, 2**64 - 1)  # fmt: skip
NAMES = (
    "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter", "torch Size",
    "torch device", "torch FloatStorage", "torch BoolStorage", "collections OrderedDict",
    "__builtin__ set", "argparse Namespace", "os system", "__builtin__ eval", "builtins exec",
    "torch load", "subprocess Popen", "keras.saving load_model", "torch._utils __class__",
    "torch._utils _rebuild_tensor", "torch._utils _rebuild_tensor_v3", "torch uint16",
    "torch.storage UntypedStorage", "torch QInt8Storage", "torch._tensor _rebuild_from_type_v2",
    "torch.nn.modules.linear Linear", "collections Counter", "builtins getattr", "builtins list",
    "functools partial", "copy_reg _reconstructor", "numpy.core.multiarray scalar",
    "pathlib PosixPath", "somebodys.training Outer.Inner",
)  # fmt: skip
DTYPES = ("F64", "F32", "F16", "BF16", "I64", "BOOL", "F8_E4M3", "F4", "C64", "", "V0")
# (offset, length) of the fields of a zip archive's records: PKZIP APPNOTE, section 4.3.
FIELDS = {
    b"PK\x03\x04": ((4, 2), (6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2)),
    b"PK\x01\x02": ((4, 2), (6, 2), (8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2),
                    (32, 2), (34, 2), (38, 4), (42, 4)),
    b"PK\x05\x06": ((4, 2), (6, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2)),
    b"PK\x06\x06": ((4, 8), (12, 2), (14, 2), (24, 8), (32, 8), (40, 8), (48, 8)),
    b"PK\x06\x07": ((4, 4), (8, 8), (16, 4)),
    b"\x01\x00\x18\x00": ((0, 2), (2, 2), (4, 8), (12, 8), (20, 8)),  # sizes and place in 64 bits
}  # fmt: skip


@functools.cache
def archives():
    """Returns valid files, written by torch and by hand."""
    matrix = torch.arange(24.0).reshape(4, 6)
    values = (
        {"model": {"x": matrix[1:, ::2], "y": torch.tensor(1), "z": torch.ones(1).expand(5, 3)},
         "args": argparse.Namespace(a=1, b=[0.5, None, "x"], c=(1, 2))},
        OrderedDict(w=torch.nn.Parameter(matrix), half=matrix.half(), same=matrix, flag=True),
        [{1}, matrix.shape, torch.device("cuda", 1), -1, 70_000, 2**40, ("x",), (1, 2, 3, 4)],
        {"model": torch.nn.Sequential(torch.nn.Conv2d(1, 2, 2), torch.nn.BatchNorm2d(2))},
        {"w": matrix.to(torch.uint16), "scale": np.float64(0.5), "path": pathlib.Path("x"),
         "count": collections.Counter("ab"), "partial": functools.partial(print, 1)},
    )  # fmt: skip
    saved = []
    for value in values:
        for protocol in (2, 4, 5):
            buffer = io.BytesIO()
            torch.save(value, buffer, pickle_protocol=protocol)
            saved.append(buffer.getvalue())
    end, directory = crafted_archives.END, crafted_archives.DIRECTORY
    place = struct.unpack_from("<I", crafted_archives.GOOD, directory[1] + 42)[0]
    return (
        *saved,
        crafted_archives.with_zip64_end(end - directory[0], directory[0]),
        crafted_archives.with_zip64_entry(16, place),
    )


@functools.cache
def older_file():
    """Returns a valid file of torch before 1.6 in three parts; the second is its description."""
    matrix = torch.arange(6.0).reshape(2, 3)
    value = {"w": matrix, "t": matrix.t(), "b": torch.ones(2).bool(), "n": torch.nn.Linear(1, 1)}
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=False)
    content, ends = buffer.getvalue(), []
    buffer.seek(0)
    for _ in range(4):
        list(pickletools.genops(buffer))
        ends.append(buffer.tell())
    return content[: ends[2]], content[ends[2] : ends[3]], content[ends[3] :]


def older(change, rng):
    """Returns a file in the older format with a changed description."""
    before, description, behind = older_file()
    return before + change(description, rng) + behind


@functools.cache
def shards():
    arrays = {"x": np.ones((2, 3), np.float32), "y": np.zeros(2, np.float32)}
    files = {key: safetensors.numpy.save({key: array}) for key, array in arrays.items()}
    return {f"{key}.safetensors": content for key, content in files.items()}


def index():
    """Returns the index of the shards."""
    where = {name.partition(".")[0]: name for name in shards()}
    return json.dumps({"metadata": {"total_size": 32}, "weight_map": where}).encode()


PIECES_OF_JSON = (b"[", b"]", b"0", b"9" * 30, b'"', b"{", b"}", b"../", b"\\u0000", b"null", b"/",
                  b'"x.safetensors"', b"[" * 2000, b"1e999", b"\xff")  # fmt: skip


@functools.cache
def safe_file():
    arrays = {"x": np.ones((2, 3), np.float32), "y": np.zeros(0), "z": np.array(1, np.float16)}
    return safetensors.numpy.save(arrays, {"format": "pt"})


def mutated(kind, seed):
    """Returns the file of a kind and a seed."""
    return KINDS[kind](random.Random(f"{kind} {seed}"))


def scrambled(content, rng, pieces=()):
    """Sets, removes, moves, repeats or inserts bytes, or replaces them by extreme numbers."""
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        start = rng.randrange(len(content) + 1)
        stop = start + rng.randrange(1, 1 << rng.randrange(1, 7))
        match rng.randrange(9):
            case 0:
                content[start : start + 1] = rng.randbytes(1)
            case 1:
                content[start : start + 1] = bytes(
                    byte ^ 1 << rng.randrange(8) for byte in content[start : start + 1]
                )
            case 2:
                del content[start:stop]
            case 3:
                content[start:start] = content[start:stop]
            case 4:
                moved = content[start:stop]
                del content[start:stop]
                position = rng.randrange(len(content) + 1)
                content[position:position] = moved
            case 5:
                length = rng.choice((1, 2, 4, 8))
                number = rng.choice(NUMBERS) % 256**length
                content[start : start + length] = number.to_bytes(length, "little")
            case 6 | 7:
                content[start:start] = rng.choice(pieces) if pieces else rng.randbytes(4)
            case 8:
                del content[start if rng.random() < 0.2 else len(content) :]
    return bytes(content)


def with_other_fields(content, rng):
    """Replaces numbers in the records of an archive."""
    content = bytearray(content)
    places = [
        (position + offset, length)
        for magic, fields in FIELDS.items()
        for position in _places(content, magic)
        for offset, length in fields
    ]
    for _ in range(rng.choice((1, 1, 2, 3))):
        start, length = rng.choice(places)
        there = int.from_bytes(content[start : start + length], "little")
        other_start, _ = rng.choice(places)
        number = rng.choice((
            rng.choice(NUMBERS), there + rng.randrange(-9, 10), rng.randrange(2 * len(content)),
            int.from_bytes(content[other_start : other_start + length], "little"),
        ))  # fmt: skip
        number %= 256**length
        content[start : start + length] = number.to_bytes(length, "little")
    return bytes(content)


def _places(content, magic):
    place = content.find(magic)
    while place >= 0:
        yield place
        place = content.find(magic, place + 1)


def repacked(change, rng):
    """Returns an archive with a changed description and a valid checksum."""
    with zipfile.ZipFile(io.BytesIO(rng.choice(archives()))) as file:
        entries = {entry.filename: file.read(entry) for entry in file.infolist()}
    name = next(name for name in entries if name.endswith("/data.pkl"))
    return crafted_archives.archive(*{**entries, name: change(entries[name], rng)}.items())


OPERATIONS = tuple(opcode.code.encode("latin-1") for opcode in pickletools.opcodes)


def with_other_operations(description, rng):
    """Removes, repeats, swaps, moves or replaces whole operations of a pickle."""
    starts = [start for _, _, start in pickletools.genops(description)]
    tokens = [description[a:b] for a, b in zip(starts, [*starts[1:], len(description)])]
    for _ in range(rng.choice((1, 2, 4))):
        one, other = (rng.randrange(len(tokens)) for _ in range(2))
        match rng.randrange(7):
            case 0:
                tokens[one] = b""
            case 1:
                tokens[one] *= rng.choice((2, 3, 50))
            case 2:
                tokens[one], tokens[other] = tokens[other], tokens[one]
            case 3:
                tokens[one] = tokens[other]
            case 4:
                tokens[one] = rng.choice(OPERATIONS) + tokens[one][1:]
            case 5:
                tokens[one] = value(rng, 2)
            case 6:
                tokens[one:one] = tokens[min(one, other) : max(one, other)]
    return b"".join(tokens)


# Operations with arguments on the stack.
ON_STACK = tuple(bytes([code]) for code in b"R\x81bQaseut\x90\x91\x92\x93012old")


def value(rng, depth):
    """Returns pickle operations that build a value, mostly of the kinds that torch saves."""

    def inner(number=1):
        return b"".join(value(rng, depth - 1) for _ in range(number))

    def text(string):
        return b"X" + struct.pack("<I", len(string)) + string

    def sizes():
        if rng.random() < 0.2:
            return inner()
        return b"(" + b"".join(b"K" + rng.randbytes(1) for _ in range(rng.randrange(4))) + b"t"

    dtype = b"ctorch\n" + rng.choice((b"Float", b"BFloat16", b"Bool", b"Char")) + b"Storage\n"
    number = rng.choice(NUMBERS)
    many = rng.randrange(4)
    rare = rng.random() < 0.1
    match rng.randrange(9) if depth <= 0 else rng.randrange(20):
        case 0:
            return rng.choice((b"N", b"\x88", b"\x89", b")", b"]", b"}", b"(", b""))
        case 1:
            return b"K" + rng.randbytes(1)
        case 2:
            return b"J" + struct.pack("<I", number % 2**32)
        case 3:
            return b"\x8a\x09" + struct.pack("<Qb", number, 0)
        case 4:
            return b"G" + rng.randbytes(8)
        case 5:
            return text(rng.choice((b"", b"0", b"7", b"x", b"storage", b"__class__", b"\xff")))
        case 6:
            return b"h" + bytes([rng.randrange(4)])
        case 7:
            return b"c" + rng.choice(NAMES).replace(" ", "\n").encode() + b"\n"
        case 8:
            return rng.choice(OPERATIONS) + rng.randbytes(rng.choice((0, 1, 4))) if rare else b"K\1"
        case 9 | 10:
            storage = b"(" + text(b"storage") + dtype + text(b"0") + text(b"cpu") + b"K\x04tQ"
            storage = inner() if rare else storage
            shapes = b"K" + rng.randbytes(1) + sizes() + sizes() if rng.random() < 0.5 else (
                b"K\x00K\x02K\x02\x86K\x02K\x01\x86"
            )  # fmt: skip
            return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + shapes + b"\x89}tR"
        case 11 | 12:
            keys = (b"_parameters", b"_buffers", b"_modules", b"k", b"k0")
            pairs = b"".join(text(rng.choice(keys)) + inner() for _ in range(many))
            return b"}(" + (inner(2) if rare else b"") + pairs + b"u"
        case 13:
            return b"](" + inner(many) + b"e"
        case 14:
            return b"(" + inner(many) + b"t"
        case 15:
            members = b"".join(
                text(key) + (inner() if rare else b"}" + text(b"a") + inner() + b"s")
                for key in (b"_parameters", b"_buffers", b"_modules")
            )
            state = inner() if rng.random() < 0.1 else b"}(" + members + b"u"
            return b"cargparse\nNamespace\n)\x81" + state + b"b"
        case 16:
            return inner() + rng.choice((b"q" + bytes([rng.randrange(4)]), b"\x94"))
        case 17:
            return inner(2) + b"\x86"
        case 18:
            return inner() + rng.choice(ON_STACK)
        case 19:
            name = rng.choice(NAMES).replace(" ", "\n").encode()
            return b"c" + name + b"\n(" + inner(many) + b"tR"


def safe_file_of(header, numbers=None):
    """Returns a safetensors file with a correct header length."""
    numbers = safe_file()[-26:] if numbers is None else numbers
    return struct.pack("<Q", len(header)) + header + numbers


def with_other_header(rng):
    """Returns a safetensors header with changed tensors, which may overlap or leave gaps."""
    length = int.from_bytes(safe_file()[:8], "little")
    header = json.loads(safe_file()[8 : 8 + length])
    for key in rng.sample(["x", "y", "z"], rng.choice((1, 1, 2))):
        tensor = header.pop(key)
        match rng.randrange(6):
            case 0:
                tensor["dtype"] = rng.choice(DTYPES)
            case 1:
                tensor["shape"] = [rng.choice(NUMBERS) for _ in range(rng.choice((0, 1, 2, 70)))]
            case 2:
                tensor["shape"] = [*tensor["shape"], rng.choice((0, 1, 2, -1, 1.5, None, "1"))]
            case 3:
                tensor["data_offsets"] = [rng.choice((0, 2, 24, 26, *NUMBERS)) for _ in range(2)]
            case 4:
                key = rng.choice(("", "x\0", "é" * 50, "__metadata__", "x" * 3000))
            case 5:
                tensor[rng.choice(list(tensor))] = rng.choice((None, [], {}, [[]], "", 1e400, -1))
        header[key] = tensor
    if rng.random() < 0.3:
        header["__metadata__"] = rng.choice(({}, None, [], {"a": 1}, {"a": "é" * 99}))
    return json.dumps(header).encode()


def older_of_value(rng):
    """Returns a file in the older format with a random value and the storage it may refer to."""
    description = b"\x80\x02" + value(rng, 5).replace(b"K\x04tQ", b"K\x04NtQ") + b"."
    key = b"X\x01\x00\x00\x000a" if b"NtQ" in description else b""
    numbers = struct.pack("<q", 4) + crafted_archives.ONES.tobytes() if key else b""
    return older_file()[0] + description + b"\x80\x02]" + key + b"." + numbers


KINDS = {
    "file": lambda rng: scrambled(rng.choice(archives()), rng, tuple(FIELDS)),
    "directory": lambda rng: with_other_fields(rng.choice(archives()), rng),
    "pickle": lambda rng: repacked(lambda old, rng: scrambled(old, rng, OPERATIONS), rng),
    "operations": lambda rng: repacked(with_other_operations, rng),
    "grammar": lambda rng: crafted_archives.archive_of(b"\x80\x02" + value(rng, 5) + b"."),
    "older": lambda rng: scrambled(older(lambda old, _: old, rng), rng, OPERATIONS),
    "older operations": lambda rng: older(with_other_operations, rng),
    "older grammar": older_of_value,
    "index": lambda rng: scrambled(index(), rng, PIECES_OF_JSON),
    "safetensors": lambda rng: scrambled(safe_file(), rng, (b"[", b"]", b"0", b"9" * 30, b'"')),
    "header": lambda rng: safe_file_of(with_other_header(rng)),
}
