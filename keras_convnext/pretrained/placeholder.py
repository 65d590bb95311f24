"""What stands for an object whose class a file only names, and which names are refused.

Beside the weights, training scripts save whatever they have at hand: their arguments and
configuration, NumPy scalars, paths, dates, enums, schedulers, even the trainer. Python's own
unpickler imports the classes of all these and runs their code. Here nothing is imported and nothing
is called, whatever the name: the object becomes a `Placeholder`, which holds data alone.

A file is refused if it names what no weights and no training script need, but an attack does:

- anything in a module that runs programs, evaluates code, imports, unpickles, or opens files and
  connections (`unsafe_names.py`), or a function of such a module by way of another;
- a built-in function that does more than describe data, as `eval`, `exec` and `open` do;
- a special attribute, as `__class__`, `__globals__` and `__init__` are, or a method that reads or
  writes files;
- the call of a method of an object in the file, as of a path.
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
    """An object of a class that was not imported.

    As a dict it holds the items that were set on it, as on a `defaultdict` or a configuration that
    is a dict; the tensors of its `state_dict()` if it is a `torch.nn.Module`; else nothing.

    Args:
        name: str. The class or function that would have made it, such as `argparse.Namespace`.
        arguments: tuple. What it would have been made of. Defaults to ().
        attributes: dict or None. The attributes that it was saved with. Defaults to None.
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

    # As objects have them: equal to itself alone, whatever it holds.
    __eq__ = object.__eq__
    __hash__ = object.__hash__  # type: ignore[assignment]  # None to typeshed, as of any dict

    def __repr__(self) -> str:
        return f"<{ascii(self.name)[1:-1]}, not imported>"


def checked_name(module: str, qualified: str) -> str:
    """Returns the dotted name of a class or function, unless it is unsafe.

    Args:
        module: str. The module that it would be imported from.
        qualified: str. Its name in there, dotted if it is a member of a class.

    Raises:
        CheckpointError: If it is unsafe.
    """
    name = f"{module[:MAX_NAME]}.{qualified[:MAX_NAME]}"
    if len(name) > MAX_NAME or _is_unsafe(module.split("."), qualified.split(".")):
        raise unsafe(name)
    return name


def unsafe(name: str) -> CheckpointError:
    """Returns the error that refuses a file for a name in it."""
    return CheckpointError(
        "The pickle in the file names something that no weights need and that may run code, so the "
        "file is refused; nothing was run. Take a file of the model's state_dict() alone. "
        f"Received: {name!a:.100}"
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
        # A module that another one imported.
        or not _UNSAFE_PARTS.isdisjoint(qualified[:-1])
    )
