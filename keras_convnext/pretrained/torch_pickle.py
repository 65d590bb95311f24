"""Reads the pickle inside a PyTorch file with an interpreter that only builds data.

Python's own unpickler calls whatever a file names. Even with restricted imports, a small file can
make it allocate huge amounts of memory (a memo index of 2**32) or crash the process (a dict key
nested a million levels deep). This interpreter implements only the operations of protocols 0 to 5
that build data, and refuses all others. It imports nothing and calls nothing that the file names
(`torch_objects.py`).

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

# Each may take a microsecond and about seventy bytes. A training checkpoint of the largest network
# has 100,000, and a log of every training step adds one per value.
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
    """Returns the data in a pickle written by `torch.save`.

    Args:
        file: binary file, positioned at the start of the pickle. Left at its end.
        load_storage: function. Takes the identity of a storage, ("storage", dtype, key, device,
            count, ...), where the dtype is a `Name`.
        rebuild_tensor: function (storage, offset, shape, strides, dtype=None, metadata=None) that
            creates a tensor.

    Returns:
        Dicts, lists, tuples, strings, bytes, numbers, booleans, None, `Placeholder`s, `Name`s, and
        the results of `load_storage` and `rebuild_tensor`. Sets become lists, and dict items are
        dropped if their keys are neither text nor numbers.

    Raises:
        CheckpointError: If the pickle is damaged, does anything other than describe data, or
            contains an unsafe name.
    """
    interpreter = _Interpreter(load_storage, rebuild_tensor)
    try:
        result = interpreter.run(file)
    except CheckpointError:
        raise
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, OverflowError) as error:
        raise CheckpointError(
            f"The pickle in the file is damaged: {error!s:.200}. Download the file again"
        ) from error
    read_modules(interpreter.objects.placeholders)
    return result


class _Interpreter:
    """A pickle machine: a stack of values, and a memo of those that are reused."""

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
                    raise ValueError("values are left on the stack")
                return result
            if count == _MAX_OPERATIONS:
                raise CheckpointError(
                    f"The pickle in the file has more than {_MAX_OPERATIONS:,} operations, far "
                    "more than weights need. Use a file that contains only the model's state_dict()"
                )
            self.step(operation.name, argument)
        raise ValueError("it does not end")

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
                else:  # the state_dict's version numbers of modules
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
                    "The pickle in the file uses an operation that torch.save never writes, which "
                    "was not run. Use a file that contains only the model's state_dict(). "
                    f"Received: operation {operation}"
                )

    def pop(self) -> Any:
        item = self.stack.pop()
        if item is _MARK:
            raise IndexError("an item is missing")
        return item

    def pop_many(self, number: int) -> list[Any]:
        return [self.pop() for _ in range(number)][::-1]

    def pop_to_mark(self) -> list[Any]:
        items = []
        while (item := self.stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]


def _extend(target: object, items: list[Any]) -> None:
    if not isinstance(target, Placeholder):  # the items of a list subclass are dropped
        expect(list, target).extend(items)


def _set_items(target: object, items: list[Any]) -> dict[Any, Any]:
    target = expect(dict, target)
    for key, value in zip(items[::2], items[1::2], strict=True):
        # Only scalar keys are hashed, because a deeply nested tuple exhausts the C stack. Long
        # integers are refused, because many with the same hash would make a dict take hours.
        if isinstance(key, int) and key.bit_length() > 64:
            raise ValueError(f"a dict key is an integer of {key.bit_length()} bits")
        if isinstance(key, str | int | float | None):
            target[key] = value
    return target


def _attributes(state: object) -> dict[Any, Any] | None:
    """The dict of attributes in a pickled state; with slots, the state is a pair of dicts."""
    parts = state if isinstance(state, tuple) and len(state) == 2 else (state,)
    return next((part for part in parts if isinstance(part, dict)), None)
