"""Finds the dicts of tensors in a file, nested in dicts, lists and objects."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple, get_args

from keras_convnext.pretrained.source import Tensor

# Trainers nest the weights two or three levels deep; only optimizer state is deeper.
_MAX_DEPTH = 8
_LEAVES = (*get_args(Tensor), str, bytes, int, float, type(None))
_MAX_KEY = 100  # characters; a path has up to eight keys


class Entry(NamedTuple):
    """A dict of tensors in a file.

    Args:
        path: tuple of str. The keys that lead to it; () for the top level of the file.
        tensors: dict from names to tensors.
    """

    path: tuple[str, ...]
    tensors: dict[str, Tensor]

    @property
    def name(self) -> str:
        """The value of `entry=` that selects it."""
        return ".".join(self.path)

    def is_within(self, name: str) -> bool:
        """Whether this entry has the given name or is nested in the entry that does."""
        return f"{self.name}.".startswith(f"{name}.")


def entries_of(saved: object) -> list[Entry]:
    """Finds the dicts of tensors in the contents of a file, outermost first.

    An object that occurs twice is visited once, so the time is linear in the size of the file.
    """
    return [
        Entry(path, tensors)
        for path, found in _nodes(saved)
        if isinstance(found, Mapping)
        and (tensors := {str(key): each for key, each in found.items() if isinstance(each, Tensor)})
    ]


def unnamed_tensors(saved: object) -> Iterator[tuple[str, int]]:
    """Yields the name and length of each list of tensors, whose elements have no names."""
    for path, found in _nodes(saved):
        if isinstance(found, list | tuple) and found and all(isinstance(t, Tensor) for t in found):
            yield ".".join(path), len(found)


def names_in(saved: object) -> list[str]:
    """Returns the top-level keys of a file."""
    return [str(key) for key in saved] if isinstance(saved, Mapping) else []


def _nodes(saved: object) -> Iterator[tuple[tuple[str, ...], object]]:
    """Yields the dicts, lists and objects in the contents of a file, breadth-first."""
    level: list[tuple[tuple[str, ...], object]] = [((), saved)]
    seen = {id(saved)}
    for _ in range(_MAX_DEPTH):
        below: list[tuple[tuple[str, ...], object]] = []
        for path, found in level:
            yield path, found
            for key, child in _children(found):
                if isinstance(child, _LEAVES) or id(child) in seen:
                    continue
                seen.add(id(child))
                below.append(((*path, key), child))
        level = below


def _children(found: object) -> Iterator[tuple[str, object]]:
    if isinstance(found, Mapping):
        yield from ((str(key)[:_MAX_KEY], child) for key, child in found.items())
    elif isinstance(found, list | tuple):
        yield from ((str(index), child) for index, child in enumerate(found))
    for index, child in enumerate(getattr(found, "arguments", ())):
        yield str(index), child  # a named tuple or a compiled model
    attributes = getattr(found, "attributes", getattr(found, "__dict__", None))
    if isinstance(attributes, dict):  # a pickled object
        yield from ((str(key)[:_MAX_KEY], child) for key, child in attributes.items())
