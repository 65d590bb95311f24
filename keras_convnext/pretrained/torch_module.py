"""Extracts the tensors of PyTorch modules that were pickled whole, by `torch.save(model)`."""

from collections.abc import Iterable, Iterator
from typing import Any

from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.placeholder import Placeholder

_MEMBERS = ("_parameters", "_buffers", "_modules")

# Modules can contain the same modules again and again, which makes the number of names unbounded.
_MAX_STEPS = 100_000
_MAX_NAME = 300


def read_modules(placeholders: Iterable[Placeholder]) -> None:
    """Adds to each outermost module the items that its `state_dict()` would contain.

    Raises:
        CheckpointError: If the modules contain each other too often to be real.
    """
    modules = [placeholder for placeholder in placeholders if _is_module(placeholder)]
    left = iter(range(_MAX_STEPS))
    inner = {
        child
        for module in modules
        for _, child in _within(module, "_modules", left)
        if isinstance(child, Placeholder)
    }
    for module in modules:
        if module not in inner:
            module.update(_tensors(module, left))


def _is_module(value: object) -> bool:
    return (
        isinstance(value, Placeholder)
        and value.attributes is not None
        and all(isinstance(value.attributes.get(member), dict) for member in _MEMBERS)
    )


def _tensors(module: Placeholder, left: Iterator[int]) -> Iterator[tuple[str, Any]]:
    waiting = [("", module)]
    while waiting:
        prefix, module = waiting.pop()
        passing = (module.attributes or {}).get("_non_persistent_buffers_set")
        passing = set(_strings(passing, left)) if isinstance(passing, list) else set()
        for member in ("_parameters", "_buffers"):
            for name, tensor in _within(module, member, left):
                if tensor is not None and (member == "_parameters" or name not in passing):
                    yield prefix + name, tensor
        children = [
            (f"{prefix}{name}.", child)
            for name, child in _within(module, "_modules", left)
            if _is_module(child)
        ]
        if any(len(longer) > _MAX_NAME for longer, _ in children):
            raise _endless()
        waiting += reversed(children)


def _within(module: Placeholder, member: str, left: Iterator[int]) -> Iterator[tuple[str, Any]]:
    """Yields the parameters, buffers or modules directly in a module."""
    for name, value in (module.attributes or {})[member].items():
        if next(left, None) is None:
            raise _endless()
        if isinstance(name, str) and len(name) <= _MAX_NAME:
            yield name, value


def _strings(values: list[object], left: Iterator[int]) -> Iterator[str]:
    for value in values:
        if next(left, None) is None:
            raise _endless()
        if isinstance(value, str):
            yield value


def _endless() -> CheckpointError:
    return CheckpointError(
        "The modules in the file contain more tensors than any network. Use a file that contains "
        "only the model's state_dict()"
    )
