"""Translates between our variables and the tensor names of a layout."""

import re
from collections.abc import Iterator
from functools import cache, lru_cache
from typing import NamedTuple

from keras_convnext.pretrained.layouts import (
    HDF5_LAYOUTS,
    KINDS,
    LAYOUTS,
    SKIPPED,
    TRUNK_MODULES,
    Place,
    Row,
)

# Inserted before the names of submodules by torch.compile, FSDP and activation checkpointing.
_WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")

MAX_KEY = 250  # twice the length of the longest real names

# The numbers in a pattern: letter, factor and offset of {factor * number + offset}.
_NUMBERS = {
    "{s}": ("s", 1, 0),
    "{s-1}": ("s", 1, -1),
    "{s+1}": ("s", 1, 1),
    "{2s}": ("s", 2, 0),
    "{2s+1}": ("s", 2, 1),
    "{b}": ("b", 1, 0),
}


class Form(NamedTuple):
    """How a layout stores one of our variables.

    Args:
        key: str. Name of the tensor.
        kind: str. Kind of its module.
        axes: tuple of int. Their axes in our order.
        ones: int. Number of axes of length 1 behind the others, or, if negative, in front.
    """

    key: str
    kind: str
    axes: tuple[int, ...]
    ones: int


def form_of(place: Place, layout: tuple[Row, ...], model_name: str) -> Form | None:
    """Returns how a layout stores one of our variables, or None if it does not."""
    for row in layout:
        numbers = _read(row.ours, place.layer)
        if numbers is not None and place.variable in KINDS[row.kind]:
            parameter, axes, ones = KINDS[row.kind][place.variable]
            module = _written(row.theirs, numbers).replace("{name}", model_name)
            return Form(f"{module}.{parameter}", row.kind, axes, ones)
    return None


def place_of(key: str, layout: tuple[Row, ...]) -> tuple[Place, Form] | None:
    """Returns our variable for a key of a Keras file and its form, or None for other keys."""
    bare = key.rpartition("/")[2]  # without the Sequential around a layer
    for row in layout:
        for variable, (parameter, axes, ones) in KINDS[row.kind].items():
            numbers = _read(f"{row.theirs.rpartition('/')[2]}.{parameter}", bare)
            if numbers is not None:
                form = Form(key, row.kind, axes, ones)
                return Place(_written(row.ours, numbers), variable), form
    return None


def trunks_of(key: str) -> Iterator[tuple[str, str]]:
    """Yields the trunks in which a key may name a depthwise kernel.

    Args:
        key: str. A key of a PyTorch or safetensors file.

    Yields:
        The prefix before the name in the layout, and the layout.
    """
    if len(key) > MAX_KEY:
        return
    parts = unwrapped(key).split(".")
    ending = parts[-1]
    for start in reversed(range(len(parts) - 1)):
        ending = f"{_numberless(parts[start])}.{ending}"
        if start == len(parts) - 2 and ending not in _ends_of_kernels():
            return
        for layout in _endings_of_kernels().get(ending, ()):
            yield ".".join([*parts[:start], ""]), layout


def reading_of(name: str, layout: str) -> tuple[Place, Row] | None:
    """Returns our variable for a name relative to a trunk, and the row of the layout."""
    ending = ".".join(map(_numberless, name.split(".")))
    for row, variable, pattern in _rows_by_ending(layout).get(ending, ()):
        numbers = _read(pattern, name)
        if numbers is not None:  # the first row wins: stem_conv before downsample_0_norm
            return Place(_written(row.ours, numbers), variable), row
    return None


def unwrapped(key: str) -> str:
    """The key without the parts that wrappers insert, anywhere in it."""
    if "_mod" in key:
        for wrapper in _WRAPPERS:
            key = key.replace(wrapper, "")
    return key


def name_in_trunk(row: Row, layout: str) -> str:
    """The name of their module in a file of the trunk alone."""
    return row.theirs.removeprefix(TRUNK_MODULES.get(layout, ""))


def first_part(name: str) -> str:
    """The first module of a tensor's or row's name, with `#` for a number."""
    return _numberless(re.sub(r"\{[^}]*\}", "0", name.partition(".")[0]))


@cache
def _rows_by_ending(layout: str) -> dict[str, list[tuple[Row, str, str]]]:
    """The rows of a layout by their names in a file of the trunk alone, without numbers."""
    rows: dict[str, list[tuple[Row, str, str]]] = {}
    for row in LAYOUTS[layout]:
        for variable, (parameter, _, _) in KINDS[row.kind].items():
            pattern = f"{name_in_trunk(row, layout)}.{parameter}"
            any_numbers = _written(pattern, {"s": 1, "b": 1}).split(".")
            ending = ".".join(map(_numberless, any_numbers))
            rows.setdefault(ending, []).append((row, variable, pattern))
    return rows


@cache
def _endings_of_kernels() -> dict[str, list[str]]:
    """The layouts by their names of depthwise kernels."""
    layouts: dict[str, list[str]] = {}
    for layout in LAYOUTS:
        if layout not in HDF5_LAYOUTS and layout != "timm_conv_mlp":  # has the names of "timm"
            for ending, rows in _rows_by_ending(layout).items():
                if any(row.ours.endswith("/dwconv") and v == "kernel" for row, v, _ in rows):
                    layouts.setdefault(ending, []).append(layout)
    return layouts


@cache
def _ends_of_kernels() -> set[str]:
    return {".".join(ending.split(".")[-2:]) for ending in _endings_of_kernels()}


@lru_cache(4096)
def _numberless(part: str) -> str:
    return re.sub(r"(?:^|(?<=_))[0-9]+$", "#", part)


def is_skipped(key: str) -> bool:
    """Whether a key belongs to a constant that is not a weight of the network."""
    return any(_read(pattern, key.rpartition(".")[0]) is not None for pattern in SKIPPED)


def _read(pattern: str, name: str) -> dict[str, int] | None:
    """The stage and block numbers in `name`, or None if it does not match `pattern`."""
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
