"""The pickle inside a PyTorch file, read by an interpreter that only builds data.

Python's own unpickler calls what a file names. Even with its imports restricted it can be made to
reserve memory that the file does not have (a memo index of 2**32), or to end the process (a dict
key nested a million deep). So the operations that put data together are carried out here one by
one, of protocols 0 to 5, and any other is refused. Nothing is imported, and of what the file names
nothing is called (`torch_objects.py`).

References:
    The operations: CPython, Lib/pickletools.py.
"""

import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO

from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.placeholder import Placeholder
from keras_convnext.pretrained.torch_module import read_modules
from keras_convnext.pretrained.torch_objects import Objects, RebuildTensor, expect

# Each may take a microsecond and some seventy bytes. A training checkpoint of the largest network
# has 100,000, and a log of every step of a long training adds as many as it has numbers.
_MAX_OPERATIONS = 3 << 20

_MARK = object()

_CONSTANTS = {"MARK": _MARK, "NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_VALUES = frozenset({
    "BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
})  # fmt: skip

LoadStorage = Callable[[tuple[object, ...]], object]


def load(
    file: BinaryIO,
    load_storage: LoadStorage,
    rebuild_tensor: RebuildTensor,
) -> Any:
    """Returns the data that a pickle made by `torch.save` describes.

    Args:
        file: binary file that stands at the pickle, and is left behind it.
        load_storage: function of a storage's identity, ("storage", dtype, key, device, count, ...)
            with a `Name` for the dtype.
        rebuild_tensor: function (storage, offset, shape, strides, dtype=None, metadata=None) that
            makes a tensor.

    Returns:
        Dicts, lists, tuples, strings, bytes, numbers, booleans, None, `Placeholder`s, `Name`s, and
        what `load_storage` and `rebuild_tensor` returned. A set comes as a list, and a dict without
        the items whose keys are neither text nor numbers.

    Raises:
        CheckpointError: If the pickle is damaged, does anything but describe data, or names what is
            unsafe.
    """
    interpreter = _Interpreter(load_storage, rebuild_tensor)
    try:
        result = interpreter.run(file)
    except CheckpointError:
        raise
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError) as error:
        raise CheckpointError(
            f"The pickle in the file is damaged: {error!s:.200}. Fetch the file again"
        ) from error
    read_modules(interpreter.objects.placeholders)
    return result


class _Interpreter:
    """A stack of values, and a memo of those that are used again."""

    def __init__(self, load_storage: LoadStorage, rebuild_tensor: RebuildTensor) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, object] = {}
        self.objects = Objects(rebuild_tensor)
        self.load_storage = load_storage

    def run(self, file: BinaryIO) -> object:
        for count, (operation, argument, _) in enumerate(pickletools.genops(file)):
            if operation.name == "STOP":
                result = self.pop()
                if self.stack:
                    raise ValueError("it leaves something over")
                return result
            if count == _MAX_OPERATIONS:
                raise CheckpointError(
                    f"The description of what the file holds takes more than {_MAX_OPERATIONS:,} "
                    "steps, far more than weights need. Take a file of the model's state_dict() "
                    "alone"
                )
            self.step(operation.name, argument)
        raise ValueError("it has no end")

    def step(self, operation: str, argument: Any) -> None:
        stack = self.stack
        if operation in _VALUES:
            stack.append(argument)
            return
        if operation in _CONSTANTS:
            stack.append(_CONSTANTS[operation])
            return
        match operation:
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                self.memo[argument] = stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET" | "GET":
                stack.append(self.memo[argument])
            case "PROTO" | "FRAME":
                pass
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST" | "EMPTY_SET":
                stack.append([])
            case "TUPLE":
                stack.append(tuple(self.pop_to_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(self.pop_many(int(operation[-1]))))
            case "LIST" | "FROZENSET":
                stack.append(self.pop_to_mark())
            case "APPEND":
                item = self.pop()
                _extend(stack[-1], [item])
            case "APPENDS" | "ADDITEMS":
                items = self.pop_to_mark()
                _extend(stack[-1], items)
            case "DICT":
                items = self.pop_to_mark()
                stack.append(_set_items({}, items))
            case "SETITEM":
                items = self.pop_many(2)
                _set_items(stack[-1], items)
            case "SETITEMS":
                items = self.pop_to_mark()
                _set_items(stack[-1], items)
            case "GLOBAL":
                module, _, qualified = argument.partition(" ")
                stack.append(self.objects.name(module, qualified))
            case "STACK_GLOBAL":
                module, qualified = self.pop_many(2)
                stack.append(self.objects.name(expect(str, module), expect(str, qualified)))
            case "REDUCE" | "NEWOBJ":
                function, arguments = self.pop_many(2)
                stack.append(self.objects.call(function, arguments))
            case "NEWOBJ_EX":
                function, arguments, _ = self.pop_many(3)
                stack.append(self.objects.call(function, arguments))
            case "INST":
                arguments = tuple(self.pop_to_mark())
                module, _, qualified = argument.partition(" ")
                stack.append(self.objects.call(self.objects.name(module, qualified), arguments))
            case "OBJ":
                function, *arguments = self.pop_to_mark()
                stack.append(self.objects.call(function, tuple(arguments)))
            case "BUILD":
                state = self.pop()
                if isinstance(stack[-1], Placeholder):
                    stack[-1].attributes = _attributes(state)
                else:  # an OrderedDict of tensors carries the version numbers of modules
                    expect(dict, stack[-1])
            case "BINPERSID":
                stack.append(self.load_storage(expect(tuple, self.pop())))
            case "POP":
                stack.pop()
            case "POP_MARK":
                self.pop_to_mark()
            case "DUP":
                stack.append(stack[-1])
            case _:
                raise CheckpointError(
                    "The pickle in the file does what torch.save never does, and was not obeyed. "
                    "Take a file of the model's state_dict() alone. "
                    f"Received: operation {operation}"
                )

    def pop(self) -> Any:
        item = self.stack.pop()
        if item is _MARK:
            raise IndexError("an item is lacking")
        return item

    def pop_many(self, number: int) -> list[Any]:
        return [self.pop() for _ in range(number)][::-1]

    def pop_to_mark(self) -> list[Any]:
        items = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]


def _extend(target: object, items: list[Any]) -> None:
    if not isinstance(target, Placeholder):  # which keeps no items of a list
        expect(list, target).extend(items)


def _set_items(target: object, items: list[Any]) -> dict[Any, Any]:
    target = expect(dict, target)
    for key, value in zip(items[::2], items[1::2], strict=True):
        # Only flat keys are hashed: a deep tuple exhausts the C stack. Nor are long integers, which
        # can be made up to hash alike, so that a dict of them takes hours.
        if isinstance(key, int) and key.bit_length() > 64:
            raise ValueError(f"it takes a number of {key.bit_length()} bits for a key")
        if isinstance(key, str | int | float | None):
            target[key] = value
    return target


def _attributes(state: object) -> dict[Any, Any] | None:
    """The attributes in a state, which stand before those in slots; others are dropped."""
    parts = state if isinstance(state, tuple) and len(state) == 2 else (state,)
    return next((part for part in parts if isinstance(part, dict)), None)
