"""The pickle inside a PyTorch file: written, and read by an interpreter that only builds data.

Python's own unpickler calls what a file names. Even with its imports restricted it can be made to
reserve memory that the file does not have (a memo index of 2**32), or to end the process (a dict
key nested a million deep). So the few operations that `torch.save` writes are carried out here one
by one and any other is refused; nothing is imported and nothing that the file names is called.

References:
    The operations: CPython, Lib/pickletools.py. Which of them occur: PyTorch,
    torch/serialization.py and torch/_utils.py.
"""

import argparse
import math
import pickletools
import struct
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from keras_convnext.pretrained.errors import CheckpointError

# The classes that stand for the dtype of a storage.
STORAGE_DTYPES = {
    "torch.DoubleStorage": "float64",
    "torch.FloatStorage": "float32",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
}

_MARK = object()

Kind = TypeVar("Kind")
LoadStorage = Callable[[tuple[object, ...]], object]
RebuildTensor = Callable[[object, object, object, object], object]


class _Name(str):
    """What the file wants imported: it stays a name."""


def load(
    pickled: bytes,
    load_storage: LoadStorage,
    rebuild_tensor: RebuildTensor,
) -> Any:
    """Returns the data that a pickle made by `torch.save` describes.

    Args:
        pickled: bytes. The whole pickle.
        load_storage: function of a storage's identity, ("storage", dtype, key, device, count).
        rebuild_tensor: function (storage, offset, shape, strides) that makes a tensor.

    Returns:
        Dicts, lists, tuples, strings, numbers, booleans, None, `argparse.Namespace`s, and what
        `rebuild_tensor` returned. A set comes as a list.

    Raises:
        CheckpointError: If the pickle is damaged, or does anything but describe data.
    """
    interpreter = _Interpreter(load_storage, rebuild_tensor)
    try:
        return interpreter.run(pickled)
    except CheckpointError:
        raise
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError) as error:
        raise CheckpointError(
            f"The pickle in the file is damaged: {error!s:.200}. Fetch the file again"
        ) from error


class _Interpreter:
    """A stack of values, and a memo of those that are used again."""

    def __init__(self, load_storage: LoadStorage, rebuild_tensor: RebuildTensor) -> None:
        self.stack: list[object] = []
        self.memo: dict[int, object] = {}
        self.load_storage = load_storage
        # None copies or prints what it is given: five bytes of pickle call it with a large argument
        # once more, and arguments inside arguments can be of any size.
        self.functions: dict[str, Callable[..., object]] = {
            "torch._utils._rebuild_tensor_v2": (
                lambda storage, offset, shape, strides, requires_grad, hooks, metadata=None: (
                    rebuild_tensor(storage, offset, shape, strides)
                )
            ),
            "torch._utils._rebuild_parameter": lambda tensor, requires_grad, hooks: tensor,
            "torch.Size": lambda sizes: _expect(tuple, sizes),
            "torch.device": lambda kind, index=None: (kind, index),
            "collections.OrderedDict": lambda: {},
            "__builtin__.set": lambda items: _expect(list, items),
        }

    def run(self, pickled: bytes) -> object:
        for operation, argument, _ in pickletools.genops(pickled):
            if operation.name == "STOP":
                result = self.pop()
                if self.stack:
                    raise ValueError("it leaves something over")
                return result
            self.step(operation.name, argument)
        raise ValueError("it has no end")

    def step(self, operation: str, argument: Any) -> None:
        stack = self.stack
        match operation:
            case "PROTO":
                pass
            case "NONE":
                stack.append(None)
            case "NEWTRUE" | "NEWFALSE":
                stack.append(operation == "NEWTRUE")
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT" | "BINUNICODE":
                stack.append(argument)
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "MARK":
                stack.append(_MARK)
            case "TUPLE":
                stack.append(tuple(self.pop_to_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = [self.pop() for _ in range(int(operation[-1]))]
                stack.append(tuple(reversed(items)))
            case "APPEND" | "APPENDS":
                items = [self.pop()] if operation == "APPEND" else self.pop_to_mark()
                _expect(list, stack[-1]).extend(items)
            case "SETITEM" | "SETITEMS":
                items = (
                    [self.pop(), self.pop()][::-1]
                    if operation == "SETITEM"
                    else (self.pop_to_mark())
                )
                pairs = zip(items[::2], items[1::2], strict=True)
                _expect(dict, stack[-1]).update({_flat(key): value for key, value in pairs})
            case "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(self.memo[argument])
            case "GLOBAL":
                stack.append(self.global_name(argument.replace(" ", ".")))
            case "REDUCE":
                arguments, name = _expect(tuple, self.pop()), _expect(_Name, self.pop())
                stack.append(self.functions[name](*arguments))
            case "NEWOBJ":
                arguments, name = _expect(tuple, self.pop()), _expect(_Name, self.pop())
                if name != "argparse.Namespace" or arguments:
                    raise TypeError("it makes an object of an unexpected class")
                stack.append(argparse.Namespace())
            case "BUILD":
                # Of what has a state, only a Namespace's counts: an OrderedDict of tensors carries
                # the version numbers of modules.
                state = _expect(dict, self.pop())
                if isinstance(stack[-1], argparse.Namespace):
                    stack[-1].__dict__ = state
                else:
                    _expect(dict, stack[-1])
            case "BINPERSID":
                stack.append(self.load_storage(_expect(tuple, self.pop())))
            case _:
                raise CheckpointError(
                    "The pickle in the file does what torch.save never does, and was not obeyed. "
                    "Take a file of the model's state_dict() alone. "
                    f"Received: operation {operation}"
                )

    def pop(self) -> object:
        item = self.stack.pop()
        if item is _MARK:
            raise IndexError("an item is lacking")
        return item

    def pop_to_mark(self) -> list[object]:
        items = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def global_name(self, dotted: str) -> str:
        if dotted in STORAGE_DTYPES:
            return STORAGE_DTYPES[dotted]
        if dotted not in self.functions and dotted != "argparse.Namespace":
            raise CheckpointError(
                "The pickle in the file asks for something that no weights need and that may run "
                "code; it did not get it. Take a file of the model's state_dict() alone. "
                f"Received: {dotted!r:.100}"
            )
        return _Name(dotted)


def _expect(kind: type[Kind], value: object) -> Kind:
    if not isinstance(value, kind):
        raise TypeError(f"it takes a {type(value).__name__} for a {kind.__name__}")
    return value


def _flat(value: object) -> str | int | float | None:
    """Lets only flat values be hashed: a deep tuple exhausts the C stack.

    Nor long integers, which can be made up to hash alike, so that a dict of them takes hours.
    """
    if not isinstance(value, str | int | float | None):
        raise TypeError(f"it takes a {type(value).__name__} for a key")
    if isinstance(value, int) and value.bit_length() > 64:
        raise ValueError(f"it takes a number of {value.bit_length()} bits for a key")
    return value


def dump(tensors: Iterable[tuple[str, str, str, tuple[int, ...]]], key: str | None) -> bytes:
    """Returns the pickle that `torch.save({key: tensors})` makes, or `torch.save(tensors)`.

    Args:
        tensors: iterable of (name, storage key, dtype name, shape). Each is the whole of a storage
            of its own, in C order.
        key: str or None. Where the dict of tensors stands; None if it is all there is.
    """
    storage_classes = {dtype: dotted for dotted, dtype in STORAGE_DTYPES.items()}
    opening = b"" if key is None else b"}" + _text(key)  # {, key
    pickled = [b"\x80\x02", opening, b"}("]  # PROTO 2, {, MARK
    for name, storage_key, dtype, shape in tensors:
        strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
        pickled += [
            _text(name),
            b"ctorch._utils\n_rebuild_tensor_v2\n((",  # GLOBAL, MARK, MARK
            _text("storage"),
            f"c{storage_classes[dtype].replace('.', chr(10))}\n".encode(),  # GLOBAL
            _text(storage_key),
            _text("cpu"),
            _integer(math.prod(shape)),
            b"tQ",  # TUPLE, BINPERSID
            _integer(0),
            b"(" + b"".join(map(_integer, shape)) + b"t",
            b"(" + b"".join(map(_integer, strides)) + b"t",
            b"\x89ccollections\nOrderedDict\n)R",  # NEWFALSE, GLOBAL, (), REDUCE
            b"tR",  # TUPLE, REDUCE
        ]
    return b"".join([*pickled, b"u." if key is None else b"us."])  # SETITEMS, (SETITEM,) STOP


def _text(text: str) -> bytes:
    encoded = text.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded  # BINUNICODE


def _integer(number: int) -> bytes:
    return b"J" + struct.pack("<i", number)  # BININT
