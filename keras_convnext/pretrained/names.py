"""The name of a tensor in a layout from ours, and ours from it."""

import re
from functools import cache
from typing import NamedTuple

from keras_convnext.pretrained.layouts import KINDS, SKIPPED, WRAPPERS, Place, Row

# A number in a pattern as it is written there: {factor * number + offset}.
_NUMBERS = {
    "{s}": ("s", 1, 0),
    "{s-1}": ("s", 1, -1),
    "{2s}": ("s", 2, 0),
    "{2s+1}": ("s", 2, 1),
    "{b}": ("b", 1, 0),
}


class Form(NamedTuple):
    """How they keep one variable of ours.

    Args:
        key: str. Its name there.
        kind: str. The kind of its module there.
        axes: tuple of int. The axes of theirs in the order of ours.
        ones: int. How many axes of length 1 come after those.
    """

    key: str
    kind: str
    axes: tuple[int, ...]
    ones: int


def form_of(place: Place, layout: tuple[Row, ...], model_name: str) -> Form | None:
    """Returns how they keep a variable of ours, if they do."""
    for row in layout:
        numbers = _read(row.ours, place.layer)
        if numbers is not None and place.variable in KINDS[row.kind]:
            parameter, axes, ones = KINDS[row.kind][place.variable]
            module = _written(row.theirs, numbers).replace("{name}", model_name)
            return Form(f"{module}.{parameter}", row.kind, axes, ones)
    return None


def place_of(key: str, layout: tuple[Row, ...]) -> tuple[Place, Form] | None:
    """Returns our variable for a key of theirs and how they keep it, if it is one of theirs."""
    for row in layout:
        for variable, (parameter, axes, ones) in KINDS[row.kind].items():
            numbers = _read(f"{_bare(row.theirs)}.{parameter}", _bare(key))
            if numbers is not None:
                form = Form(key, row.kind, axes, ones)
                return Place(_written(row.ours, numbers), variable), form
    return None


def is_skipped(key: str) -> bool:
    """Tells whether a key of theirs is of no weight of the network."""
    return any(_read(pattern, key.rpartition(".")[0]) is not None for pattern in SKIPPED)


@cache
def _bare(key: str) -> str:
    """The key without the wrappers at its start, and without the Sequential around a layer."""
    key = key.rpartition("/")[2]
    while wrapper := next(filter(key.startswith, WRAPPERS), None):
        key = key.removeprefix(wrapper)
    return key


def _read(pattern: str, name: str) -> dict[str, int] | None:
    """The stage and the block that `name` has in the places of `pattern`, if it is of this form."""
    match = _compiled(pattern).fullmatch(name)
    if match is None:
        return None
    numbers = {}
    for token, (letter, factor, offset) in _NUMBERS.items():
        if token in pattern:
            numbers[letter], rest = divmod(int(match[letter]) - offset, factor)
            if rest or numbers[letter] < 0:
                return None
    return numbers


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    regex = re.escape(pattern)
    for token, (letter, _, _) in _NUMBERS.items():
        regex = regex.replace(re.escape(token), f"(?P<{letter}>0|[1-9][0-9]{{0,3}})")
    regex = regex.replace(re.escape("{name}"), ".+").replace(re.escape("{_n}"), "(_[0-9]+)?")
    return re.compile(regex)


def _written(pattern: str, numbers: dict[str, int]) -> str:
    for token, (letter, factor, offset) in _NUMBERS.items():
        if token in pattern:
            pattern = pattern.replace(token, str(factor * numbers[letter] + offset))
    return pattern.replace("{_n}", "")
