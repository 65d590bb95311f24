"""The pickle inside a PyTorch file, read by an interpreter that only builds data.

Python's own unpickler calls what a file names. Even with its imports restricted it can be made to
reserve memory that the file does not have (a memo index of 2**32), or to end the process (a dict
key nested a million deep). So the operations that put data together are carried out here one by
one, of protocols 0 to 5, and any other is refused. Nothing is imported, and of what the file names
nothing is called: tensors are rebuilt here, any other object becomes a `Placeholder`, and a file
with the names that attacks need is refused (`placeholder.py`).

References:
    The operations: CPython, Lib/pickletools.py. How tensors are described: PyTorch,
    torch/serialization.py, torch/_utils.py and torch/_tensor.py.
"""

import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO, TypeVar

from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.placeholder import Placeholder, checked_name, unsafe
from keras_convnext.pretrained.torch_module import read_modules

# Each may take a microsecond and some seventy bytes. A training checkpoint of the largest network
# has 100,000, and a log of every step of a long training adds as many as it has numbers.
_MAX_OPERATIONS = 3 << 20

_MAX_NAMES = 10_000

_MARK = object()

_CONSTANTS = {"MARK": _MARK, "NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_VALUES = frozenset({
    "BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE", "STRING", "BINSTRING",
    "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
})  # fmt: skip

Kind = TypeVar("Kind")
LoadStorage = Callable[[tuple[object, ...]], object]
RebuildTensor = Callable[..., object]


class Name(str):
    """A class or function that the file names, which stays a name."""

    __slots__ = ("module",)
    module: str


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
    read_modules(interpreter.placeholders)
    return result


class _Interpreter:
    """A stack of values, and a memo of those that are used again."""

    def __init__(self, load_storage: LoadStorage, rebuild_tensor: RebuildTensor) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, object] = {}
        self.names: dict[str, Name] = {}
        self.placeholders: list[Placeholder] = []
        self.load_storage = load_storage
        # None copies or prints what it is given: five bytes of pickle call it with a large argument
        # once more, and arguments inside arguments can be of any size.
        self.functions: dict[str, Callable[..., object]] = {
            "torch._utils._rebuild_tensor": (
                lambda storage, offset, shape, strides: rebuild_tensor(
                    storage, offset, shape, strides
                )
            ),
            "torch._utils._rebuild_tensor_v2": (
                lambda storage, offset, shape, strides, gradient, hooks, metadata=None: (
                    rebuild_tensor(storage, offset, shape, strides, None, metadata)
                )
            ),
            "torch._utils._rebuild_tensor_v3": (
                lambda storage, offset, shape, strides, gradient, hooks, dtype, metadata=None: (
                    rebuild_tensor(storage, offset, shape, strides, dtype, metadata)
                )
            ),
            "torch._utils._rebuild_parameter": lambda tensor, requires_grad, hooks: tensor,
            "torch._utils._rebuild_parameter_with_state": (
                lambda tensor, requires_grad, hooks, state: tensor
            ),
            "torch._utils._rebuild_device_tensor_from_cpu_tensor": (
                lambda tensor, dtype, device, requires_grad: tensor
            ),
            "torch._tensor._rebuild_from_type_v2": self.rebuild_subclass,
            "torch.Size": lambda sizes: _expect(tuple, sizes),
            "collections.OrderedDict": self.ordered_dict,
            "builtins.set": lambda items=None: [] if items is None else _expect(list, items),
            "builtins.frozenset": lambda items=None: [] if items is None else _expect(list, items),
            "builtins.getattr": self.member,
        }

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
                stack.append(self.name(module, qualified))
            case "STACK_GLOBAL":
                module, qualified = self.pop_many(2)
                stack.append(self.name(_expect(str, module), _expect(str, qualified)))
            case "REDUCE" | "NEWOBJ":
                function, arguments = self.pop_many(2)
                stack.append(self.call(function, arguments))
            case "NEWOBJ_EX":
                function, arguments, _ = self.pop_many(3)
                stack.append(self.call(function, arguments))
            case "INST":
                arguments = tuple(self.pop_to_mark())
                module, _, qualified = argument.partition(" ")
                stack.append(self.call(self.name(module, qualified), arguments))
            case "OBJ":
                function, *arguments = self.pop_to_mark()
                stack.append(self.call(function, tuple(arguments)))
            case "BUILD":
                state = self.pop()
                if isinstance(stack[-1], Placeholder):
                    stack[-1].attributes = _attributes(state)
                else:  # an OrderedDict of tensors carries the version numbers of modules
                    _expect(dict, stack[-1])
            case "BINPERSID":
                stack.append(self.load_storage(_expect(tuple, self.pop())))
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

    def name(self, module: str, qualified: str) -> Name:
        module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
        dotted = checked_name(module, qualified)
        if dotted not in self.names:
            if len(self.names) == _MAX_NAMES:
                raise CheckpointError(
                    f"The pickle in the file names more than {_MAX_NAMES:,} classes and functions. "
                    "Take a file of the model's state_dict() alone"
                )
            self.names[dotted] = Name(dotted)
            self.names[dotted].module = module
        return self.names[dotted]

    def call(self, function: object, arguments: object) -> object:
        arguments = _expect(tuple, arguments)
        if isinstance(function, Name) and function in self.functions:
            return self.functions[function](*arguments)
        if function == "copyreg._reconstructor" and arguments and isinstance(arguments[0], Name):
            function = arguments[0]
        if isinstance(function, Placeholder):
            # Else the method of an object. A partial stands where `__new__` takes keywords.
            if function.name != "functools.partial":
                raise unsafe(function.name)
            return self.placeholder(function.name, arguments)
        return self.placeholder(_expect(Name, function), arguments)

    def placeholder(self, name: str, arguments: tuple[object, ...] = ()) -> Placeholder:
        made = Placeholder(name, arguments)
        self.placeholders.append(made)
        return made

    def ordered_dict(self, *items: object) -> dict[Any, Any]:
        # Python 2 gave its items at once; copied again and again, they take any memory.
        return self.placeholder("collections.OrderedDict", items) if items else {}

    def rebuild_subclass(
        self, function: object, kind: object, arguments: object, state: object
    ) -> object:
        """Rebuilds a tensor of a class of somebody's own as the plain tensor that it is."""
        if function == "torch._utils._rebuild_tensor_v2":
            return self.call(function, arguments)
        return self.placeholder("torch._tensor._rebuild_from_type_v2", (kind, arguments, state))

    def member(self, owner: object, name: object) -> object:
        """Names the class in a class, or the method of an object; that is all `getattr` may do."""
        name = _expect(str, name)
        if isinstance(owner, Name):
            within = owner[len(owner.module) + 1 :]
            if name == "__new__":  # which stands where keyword arguments do
                return owner
            return self.name(owner.module, f"{within}.{name}")
        checked_name("object", f"instance.{name}")
        return self.placeholder("builtins.getattr", (owner, name))


def _expect(kind: type[Kind], value: object) -> Kind:
    if not isinstance(value, kind):
        raise TypeError(f"it takes a {type(value).__name__} for a {kind.__name__}")
    return value


def _extend(target: object, items: list[Any]) -> None:
    if not isinstance(target, Placeholder):  # which keeps no items of a list
        _expect(list, target).extend(items)


def _set_items(target: object, items: list[Any]) -> dict[Any, Any]:
    target = _expect(dict, target)
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
