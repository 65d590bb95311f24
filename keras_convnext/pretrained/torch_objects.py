"""What the names in a PyTorch file's pickle stand for, none of which is imported or called.

Tensors are rebuilt here, any other object becomes a `Placeholder`, and a file with the names that
attacks need is refused (`placeholder.py`).

References:
    How tensors are described: PyTorch, torch/serialization.py, torch/_utils.py, torch/_tensor.py.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.placeholder import Placeholder, checked_name, unsafe

_MAX_NAMES = 10_000

Kind = TypeVar("Kind")
RebuildTensor = Callable[..., object]


class Name(str):
    """A class or function that the file names, which stays a name."""

    __slots__ = ("module",)
    module: str


class Objects:
    """The names in one pickle, and the objects that were made with them.

    Args:
        rebuild_tensor: function (storage, offset, shape, strides, dtype=None, metadata=None) that
            makes a tensor.
    """

    def __init__(self, rebuild_tensor: RebuildTensor) -> None:
        self._names: dict[str, Name] = {}
        self.placeholders: list[Placeholder] = []
        # No function here copies or prints its arguments: five bytes of pickle call it with a large
        # one once more, and arguments inside arguments can be of any size.
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
        """Returns the class or function of a name, unless it is unsafe."""
        module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
        dotted = checked_name(module, qualified)
        if dotted not in self._names:
            if len(self._names) == _MAX_NAMES:
                raise CheckpointError(
                    f"The pickle in the file names more than {_MAX_NAMES:,} classes and functions. "
                    "Take a file of the model's state_dict() alone"
                )
            self._names[dotted] = Name(dotted)
            self._names[dotted].module = module
        return self._names[dotted]

    def call(self, function: object, arguments: object) -> object:
        """Returns a tensor or a plain value if the function makes these, or a placeholder."""
        arguments = expect(tuple, arguments)
        if isinstance(function, Name) and function in self._functions:
            return self._functions[function](*arguments)
        if function == "copyreg._reconstructor" and arguments and isinstance(arguments[0], Name):
            function = arguments[0]
        if isinstance(function, Placeholder):
            # Else the method of an object. A partial stands where `__new__` takes keywords.
            if function.name != "functools.partial":
                raise unsafe(function.name)
            return self._placeholder(function.name, arguments)
        return self._placeholder(expect(Name, function), arguments)

    def _placeholder(self, name: str, arguments: tuple[object, ...] = ()) -> Placeholder:
        made = Placeholder(name, arguments)
        self.placeholders.append(made)
        return made

    def _ordered_dict(self, *items: object) -> dict[Any, Any]:
        # Python 2 gave its items at once; copied again and again, they take any memory.
        return self._placeholder("collections.OrderedDict", items) if items else {}

    def _rebuild_subclass(
        self, function: object, kind: object, arguments: object, state: object
    ) -> object:
        """Rebuilds a tensor of a class of somebody's own as the plain tensor that it is."""
        if function == "torch._utils._rebuild_tensor_v2":
            return self.call(function, arguments)
        return self._placeholder("torch._tensor._rebuild_from_type_v2", (kind, arguments, state))

    def _member(self, owner: object, name: object) -> object:
        """Names the class in a class, or the method of an object; that is all `getattr` may do."""
        name = expect(str, name)
        if isinstance(owner, Name):
            within = owner[len(owner.module) + 1 :]
            if name == "__new__":  # which stands where keyword arguments do
                return owner
            return self.name(owner.module, f"{within}.{name}")
        checked_name("object", f"instance.{name}")
        return self._placeholder("builtins.getattr", (owner, name))


def expect(kind: type[Kind], value: object) -> Kind:
    """Returns a value of the kind that is due.

    Raises:
        TypeError: If it is of another one.
    """
    if not isinstance(value, kind):
        raise TypeError(f"it takes a {type(value).__name__} for a {kind.__name__}")
    return value
