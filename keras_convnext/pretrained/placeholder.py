"""Placeholders for pickled objects, and the names that make a file unsafe.

Training scripts save more than weights: arguments, configurations, NumPy scalars, paths, dates,
enums, schedulers, even the trainer. Python's unpickler imports the classes of all these and runs
their code. Here nothing is imported or called, whatever its name: each object becomes a
`Placeholder`, which only holds data.

A file is refused if it names something that attacks need, but weights and training scripts do not:

- anything in a module that runs programs, evaluates code, imports, unpickles, or opens files or
  connections (`unsafe_names.py`), or a function of such a module accessed through another module;
- a built-in function that does more than describe data, such as `eval`, `exec` and `open`;
- a special attribute, such as `__class__`, `__globals__` and `__init__`, or a method that reads or
  writes files;
- a call of a method of an object in the file, such as a path.
"""

from typing import Any

from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.unsafe_names import (
    SAFE_BUILTIN_ENDINGS,
    SAFE_BUILTINS,
    SAFE_NAMES,
    UNSAFE_METHODS,
    UNSAFE_MODULES,
    UNSAFE_NAMES,
    UNSAFE_PACKAGES,
)

MAX_NAME = 300

_UNSAFE_STARTS = tuple(f"{name}." for name in UNSAFE_NAMES)
_UNSAFE_PARTS = UNSAFE_PACKAGES | UNSAFE_MODULES


class Placeholder(dict[Any, Any]):
    """A pickled object whose class was not imported.

    As a dict, it contains the items of a dict subclass, such as a `defaultdict` or a configuration,
    or the tensors in the `state_dict()` of a `torch.nn.Module`; otherwise it is empty.

    Args:
        name: str. The class or function that would have created it, such as `argparse.Namespace`.
        arguments: tuple. The arguments of that call. Defaults to ().
        attributes: dict or None. The pickled attributes. Defaults to None.
    """

    __slots__ = ("arguments", "attributes", "name")

    def __init__(
        self,
        name: str,
        arguments: tuple[object, ...] = (),
        attributes: dict[Any, Any] | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.arguments = arguments
        self.attributes = attributes

    # Equality by identity, as for any object: dicts compare their items and are not hashable.
    __eq__ = object.__eq__
    __hash__ = object.__hash__  # type: ignore[assignment]  # None to typeshed, as of any dict

    def __repr__(self) -> str:
        return f"<{ascii(self.name)[1:-1]}, not imported>"


def checked_name(module: str, qualified: str) -> str:
    """Returns the dotted name of a class or function if it is safe.

    Args:
        module: str. The module it would be imported from.
        qualified: str. Its qualified name in the module, dotted for a class member.

    Raises:
        CheckpointError: If the name is unsafe.
    """
    name = f"{module[:MAX_NAME]}.{qualified[:MAX_NAME]}"
    if len(name) > MAX_NAME or _is_unsafe(module.split("."), qualified.split(".")):
        raise unsafe(name)
    return name


def unsafe(name: str) -> CheckpointError:
    """Returns the error that refuses a file because of an unsafe name."""
    return CheckpointError(
        "The file was refused because its pickle names something that may run code and that "
        "weights do not need; nothing was run. Use a file that contains only the model's "
        f"state_dict(). Received: {name!a:.100}"
    )


def _is_unsafe(module: list[str], qualified: list[str]) -> bool:
    first, name = module[0], ".".join(module + qualified)
    if any(part.startswith("__") and part.endswith("__") for part in module[1:] + qualified):
        return True
    if first in ("builtins", "__builtin__"):
        return not (qualified[0] in SAFE_BUILTINS or qualified[0].endswith(SAFE_BUILTIN_ENDINGS))
    return (
        first in UNSAFE_PACKAGES
        or (first in UNSAFE_MODULES and len(module) == 1 and name not in SAFE_NAMES)
        or f"{name}.".startswith(_UNSAFE_STARTS)
        or (len(qualified) > 1 and qualified[-1] in UNSAFE_METHODS)
        # An unsafe module accessed through another one.
        or not _UNSAFE_PARTS.isdisjoint(qualified[:-1])
    )
