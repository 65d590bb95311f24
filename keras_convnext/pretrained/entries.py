"""Where the tensors are in what a file holds: dicts of tensors in dicts, lists and objects."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple, get_args

from keras_convnext.pretrained.source import Tensor

# Trainers put the weights two or three levels deep; only an optimizer's state is deeper.
_MAX_DEPTH = 8
_LEAVES = (*get_args(Tensor), str, bytes, int, float, type(None))
_MAX_KEY = 100  # of which a path has up to eight


class Entry(NamedTuple):
    """A dict of tensors in a file.

    Args:
        path: tuple of str. The keys that lead to it; () for what the file itself holds.
        tensors: dict from names to tensors.
    """

    path: tuple[str, ...]
    tensors: dict[str, Tensor]

    @property
    def name(self) -> str:
        """What `entry=` takes."""
        return ".".join(self.path)

    def is_within(self, name: str) -> bool:
        """Whether this is the entry of a name, or lies in it."""
        return f"{self.name}.".startswith(f"{name}.")


def entries_of(saved: object) -> list[Entry]:
    """Finds the dicts of tensors in what a file holds, the outer ones first.

    An object that occurs twice is visited once, so the time is that of the length of the file.
    """
    return [
        Entry(path, tensors)
        for path, found in _nodes(saved)
        if isinstance(found, Mapping)
        and (tensors := {str(key): each for key, each in found.items() if isinstance(each, Tensor)})
    ]


def unnamed_tensors(saved: object) -> Iterator[tuple[str, int]]:
    """Finds lists of tensors, which have an order and no names, and the length of each."""
    for path, found in _nodes(saved):
        if isinstance(found, list | tuple) and found and all(isinstance(t, Tensor) for t in found):
            yield ".".join(path), len(found)


def names_in(saved: object) -> list[str]:
    """Returns the names of what a file holds at its outermost."""
    return [str(key) for key in saved] if isinstance(saved, Mapping) else []


def _nodes(saved: object) -> Iterator[tuple[tuple[str, ...], object]]:
    """The dicts, lists and objects in what a file holds, breadth first."""
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
        yield str(index), child  # of a named tuple, or of a compiled model
    attributes = getattr(found, "attributes", getattr(found, "__dict__", None))
    if isinstance(attributes, dict):  # of an object that the file describes
        yield from ((str(key)[:_MAX_KEY], child) for key, child in attributes.items())
