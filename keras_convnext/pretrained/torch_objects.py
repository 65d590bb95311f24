"""Resolves the names in a PyTorch file's pickle without importing or calling them.

Tensors are rebuilt here, all other objects become `Placeholder`s, and a file with names that
attacks need is refused (`placeholder.py`).

References:
    The descriptions of tensors: PyTorch, torch/serialization.py, torch/_utils.py,
    torch/_tensor.py.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.placeholder import Placeholder, checked_name, unsafe

_MAX_NAMES = 10_000

Kind = TypeVar("Kind")
RebuildTensor = Callable[..., object]


class Name(str):
    """The dotted name of a class or function in the file, which is never imported."""

    __slots__ = ("module",)
    module: str


class Objects:
    """The names in one pickle, and the objects created with them.

    Args:
        rebuild_tensor: function (storage, offset, shape, strides, dtype=None, metadata=None) that
            creates a tensor.
    """

    def __init__(self, rebuild_tensor: RebuildTensor) -> None:
        self._names: dict[str, Name] = {}
        self.placeholders: list[Placeholder] = []
        # No function here copies or prints its arguments: five bytes of pickle suffice to call it
        # again with a large one, and nested arguments can have any size.
        self._functions: dict[str, Callable[..., object]] = {
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
            "torch._tensor._rebuild_from_type_v2": self._rebuild_subclass,
            "torch.Size": lambda sizes: expect(tuple, sizes),
            "collections.OrderedDict": self._ordered_dict,
            "builtins.set": lambda items=None: [] if items is None else expect(list, items),
            "builtins.frozenset": lambda items=None: [] if items is None else expect(list, items),
            "builtins.getattr": self._member,
        }

    def name(self, module: str, qualified: str) -> Name:
        """Returns the dotted name of a class or function if it is safe."""
        module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
        dotted = checked_name(module, qualified)
        if dotted not in self._names:
            if len(self._names) == _MAX_NAMES:
                raise CheckpointError(
                    f"The pickle in the file names more than {_MAX_NAMES:,} classes and functions. "
                    "Use a file that contains only the model's state_dict()"
                )
            self._names[dotted] = Name(dotted)
            self._names[dotted].module = module
        return self._names[dotted]

    def call(self, function: object, arguments: object) -> object:
        """Returns a tensor or plain value if the function creates one, else a placeholder."""
        arguments = expect(tuple, arguments)
        if isinstance(function, Name) and function in self._functions:
            return self._functions[function](*arguments)
        if function == "copyreg._reconstructor" and arguments and isinstance(arguments[0], Name):
            function = arguments[0]
        if isinstance(function, Placeholder):
            # A partial is pickled if `__new__` takes keywords; others are methods of objects.
            if function.name != "functools.partial":
                raise unsafe(function.name)
            return self._placeholder(function.name, arguments)
        return self._placeholder(expect(Name, function), arguments)

    def _placeholder(self, name: str, arguments: tuple[object, ...] = ()) -> Placeholder:
        made = Placeholder(name, arguments)
        self.placeholders.append(made)
        return made

    def _ordered_dict(self, *items: object) -> dict[Any, Any]:
        # Python 2 passed the items as arguments; repeated copies could take any amount of memory.
        return self._placeholder("collections.OrderedDict", items) if items else {}

    def _rebuild_subclass(
        self, function: object, kind: object, arguments: object, state: object
    ) -> object:
        """Rebuilds a tensor of a user-defined subclass as a plain tensor."""
        if function == "torch._utils._rebuild_tensor_v2":
            return self.call(function, arguments)
        return self._placeholder("torch._tensor._rebuild_from_type_v2", (kind, arguments, state))

    def _member(self, owner: object, name: object) -> object:
        """Returns the name of a nested class or of an object's method, as `getattr` would."""
        name = expect(str, name)
        if isinstance(owner, Name):
            within = owner[len(owner.module) + 1 :]
            if name == "__new__":  # pickled for classes that take keyword arguments
                return owner
            return self.name(owner.module, f"{within}.{name}")
        checked_name("object", f"instance.{name}")
        return self._placeholder("builtins.getattr", (owner, name))


def expect(kind: type[Kind], value: object) -> Kind:
    """Returns a value if it has the expected type.

    Raises:
        TypeError: If it has another type.
    """
    if not isinstance(value, kind):
        raise TypeError(f"expected a {kind.__name__}, received a {type(value).__name__}")
    return value
