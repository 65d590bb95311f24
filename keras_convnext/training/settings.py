"""Overrides fields of a recipe by name, and checks the result."""

import difflib
import json
import math
import re
import types
import typing
from collections.abc import Callable, Collection, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, NamedTuple, TypeGuard

from keras_convnext.printable import printable
from keras_convnext.training.layer_decay import GROUPINGS
from keras_convnext.training.recipe import (
    ALGORITHMS,
    DECAYS,
    PRECISIONS,
    AnyRecipe,
    Recipe,
    RecipeFamily,
)

FIXED = ("name", "source", "network.published")  # what a recipe is, not what it does


class Rule(NamedTuple):
    """The values that a field may have.

    Args:
        meaning: str. Their description.
        holds: function. Whether a value, which has the type of the field, is valid.
    """

    meaning: str
    holds: Callable[[Any], bool]


def field_types(recipe: type[Recipe]) -> dict[str, Any]:
    """Returns the type of each field by its full name, such as `"optimizer.learning_rate"`."""
    found: dict[str, Any] = {}
    for name, kind in typing.get_type_hints(recipe).items():
        if is_dataclass(kind):
            found |= {f"{name}.{each}": own for each, own in typing.get_type_hints(kind).items()}
        else:
            found[name] = kind
    return found


def flat(recipe: Recipe) -> dict[str, Any]:
    """Returns the value of each field by its full name, such as `"optimizer.learning_rate"`."""
    found: dict[str, Any] = {}
    for each in fields(recipe):
        value = getattr(recipe, each.name)
        if is_dataclass(value):
            found |= {f"{each.name}.{own.name}": getattr(value, own.name) for own in fields(value)}
        else:
            found[each.name] = value
    return found


def with_all_networks(family: RecipeFamily[Any]) -> dict[str, Any]:
    """Returns the values of a recipe, with a dict by network where networks differ.

    The value of all other networks has the key "".
    """
    found = flat(family.recipe)
    for network, settings in family.networks.items():
        for name, value in settings.items():
            full = _full_name(name, found)
            if not isinstance(found[full], dict):
                found[full] = {} if name in family.needs else {"": found[full]}
            found[full][network] = value
    return found


def for_network(
    family: RecipeFamily[AnyRecipe], model: str, settings: Mapping[str, object]
) -> AnyRecipe:
    """Returns the recipe for a network, with a user's settings.

    Args:
        family: RecipeFamily. The recipe.
        model: str. Name of the network.
        settings: dict. Fields to override, by their full names, such as
            `"optimizer.learning_rate"`, or their last parts, if only one field ends like that.
            Strings are parsed as values of the field.

    Raises:
        ValueError: If a field is unknown or ambiguous, if a value has the wrong type, or if the
            recipe has no setting for this network that it needs.
    """
    own = family.networks.get(model, family.networks.get(model.partition("/")[0]))
    recipe = family.recipe
    kinds = field_types(type(recipe))
    named = {_full_name(name, kinds): value for name, value in settings.items()}
    if len(named) < len(settings):
        raise ValueError(f"A field is set twice. Received: {', '.join(map(printable, settings))}")
    missing = [
        name for name in family.needs if own is None and _full_name(name, kinds) not in named
    ]
    if missing:
        raise ValueError(
            f"The recipe {printable(recipe.name)} was published for {', '.join(family.networks)}. "
            f"For another network, set {' and '.join(missing)}. Received: model={printable(model)}"
        )
    changes = {_full_name(name, kinds): value for name, value in (own or {}).items()}
    changes |= {name: _read(name, kinds[name], value) for name, value in named.items()}
    return _replaced(recipe, changes)


def check(recipe: Recipe, rules: Mapping[str, Rule]) -> None:
    """Checks the types and ranges of all fields.

    Args:
        recipe: Recipe. The recipe.
        rules: dict from full names to rules, for the fields that `RULES` does not have.

    Raises:
        ValueError: If a value has the wrong type or is out of range.
    """
    kinds = field_types(type(recipe))
    rules = {**RULES, **rules}
    for name, value in flat(recipe).items():
        kind, rule = kinds[name], rules.get(name)
        if not _is(value, kind) or (rule and value is not None and not rule.holds(value)):
            meaning = rule.meaning if rule else _described(kind)
            or_none = "None or " if type(None) in typing.get_args(kind) and rule else ""
            raise ValueError(
                f"{_short(name, kinds)} must be {or_none}{meaning}. "
                f"Received: {_short(name, kinds)}={printable(repr(value))}"
            )
    _check_lengths(recipe)


def _check_lengths(recipe: Recipe) -> None:
    schedule = recipe.schedule
    received = (
        f"Received: epochs={schedule.epochs}, updates={schedule.updates}, "
        f"warmup_epochs={schedule.warmup_epochs}, warmup_updates={schedule.warmup_updates}"
    )
    if (schedule.epochs is None) == (schedule.updates is None):
        raise ValueError(f"Set either epochs or updates, and the other to None. {received}")
    if schedule.warmup_epochs and schedule.warmup_updates:
        raise ValueError(f"Set either warmup_epochs or warmup_updates, not both. {received}")
    if schedule.epochs is not None and schedule.warmup_epochs > schedule.epochs:
        raise ValueError(
            "The warmup is longer than the run. Set warmup_epochs to "
            f"{schedule.epochs} or less. {received}"
        )
    if schedule.updates is not None and schedule.warmup_updates > schedule.updates:
        raise ValueError(
            "The warmup is longer than the run. Set warmup_updates to "
            f"{schedule.updates} or less. {received}"
        )


def unknown(what: str, name: str, names: Collection[str]) -> ValueError:
    """Returns an error that lists the valid names, and the one that was probably meant."""
    return ValueError(f"{what} must be {_one_of(name, names)} Received: {what}={printable(name)}")


def _one_of(name: str, names: Collection[str]) -> str:
    close = difflib.get_close_matches(name, names, 1)
    return f"one of {', '.join(names)}" + (f"; did you mean {close[0]}?" if close else ".")


def _short(name: str, names: Collection[str]) -> str:
    """Returns the last part of a full name, or the full name if others end like it."""
    last = name.rpartition(".")[2]
    return last if sum(other.rpartition(".")[2] == last for other in names) == 1 else name


def _full_name(name: str, kinds: Mapping[str, Any]) -> str:
    found = [each for each in kinds if name in (each, each.rpartition(".")[2])]
    found = [name] if name in found else found
    if len(found) > 1:
        raise ValueError(
            f"Several fields have this name: use {' or '.join(found)}. Received: {name}"
        )
    if not found or found[0] in FIXED:
        valid = [_short(each, kinds) for each in kinds if each not in FIXED]
        raise ValueError(f"A setting must be {_one_of(name, valid)} Received: {printable(name)}")
    return found[0]


def _read(name: str, kind: Any, value: object) -> Any:
    """Parses a setting from the command line as a value of its field."""
    if not isinstance(value, str):
        return tuple(value) if isinstance(value, list) else value
    kinds = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if type(None) in kinds and value.lower() == "none":
        return None
    if str in kinds:
        return value
    try:
        read = json.loads({"True": "true", "False": "false"}.get(value, value))
    except json.JSONDecodeError:
        parts = [part for part in value.strip("()[] ").split(",") if part.strip()]
        number = int if kind == tuple[int, ...] else float
        try:
            read = [number(part) for part in parts]
        except ValueError:
            raise ValueError(
                f"The value of {name} must be {_described(kind)}. "
                f"Received: {name}={printable(value)}"
            ) from None
    if typing.get_origin(kind) is tuple and is_number(read):
        read = [read if kind == tuple[int, ...] else float(read)]
    return tuple(read) if isinstance(read, list) else read


def _replaced(recipe: AnyRecipe, changes: Mapping[str, Any]) -> AnyRecipe:
    groups: dict[str, dict[str, Any]] = {}
    for name, value in changes.items():
        group, _, last = name.rpartition(".")
        groups.setdefault(group, {})[last] = value
    own = groups.pop("", {})
    parts = {name: replace(getattr(recipe, name), **group) for name, group in groups.items()}
    return replace(recipe, **own, **parts)


def _is(value: object, kind: Any) -> bool:
    """Whether a value has the type of a field. An int is a float, a bool is no number."""
    if isinstance(kind, types.UnionType):
        return any(_is(value, each) for each in typing.get_args(kind))
    if typing.get_origin(kind) is tuple:
        inner = typing.get_args(kind)
        if not isinstance(value, tuple):
            return False
        if inner[-1] is Ellipsis:
            return all(_is(each, inner[0]) for each in value)
        return len(value) == len(inner) and all(map(_is, value, inner))
    if kind is float:
        return is_number(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def _described(kind: Any) -> str:
    if isinstance(kind, types.UnionType):
        return " or ".join(_described(each) for each in reversed(typing.get_args(kind)))
    if typing.get_origin(kind) is tuple:
        return "numbers, separated by commas"
    names = {int: "an integer", float: "a number", str: "text", bool: "True or False"}
    return names.get(kind, "None")


def is_number(value: object) -> TypeGuard[float]:
    """Whether a value is a finite number."""
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def choice(values: Collection[str]) -> Rule:
    """Returns the rule of a field that has one of a few values."""
    return Rule(f"one of {', '.join(values)}", lambda value: value in values)


def _is_pattern(value: str) -> bool:
    try:
        re.compile(value)
    except re.error:
        return False
    return True


COUNT = Rule("a positive integer", lambda value: value >= 1)
SHARE = Rule("a number in [0, 1]", lambda value: 0 <= value <= 1)
BELOW_ONE = Rule("a number in [0, 1)", lambda value: 0 <= value < 1)
FROM_ZERO = Rule("a number of at least 0", lambda value: value >= 0)
ABOVE_ZERO = Rule("a number above 0", lambda value: value > 0)
RANGE = Rule("two numbers above 0, the smaller one first", lambda pair: 0 < pair[0] <= pair[1])
UP_TO_ONE = Rule("a number in (0, 1]", lambda value: 0 < value <= 1)
FROM_ZERO_INTEGER = Rule("an integer of at least 0", lambda value: value >= 0)

PATTERN = Rule("a regular expression", _is_pattern)

RULES: dict[str, Rule] = {
    "optimizer.learning_rate": ABOVE_ZERO,
    "optimizer.weight_decay": FROM_ZERO,
    "optimizer.algorithm": choice(ALGORITHMS),
    "optimizer.beta_2": BELOW_ONE,
    "optimizer.layer_decay": UP_TO_ONE,
    "optimizer.layer_groups": choice(GROUPINGS),
    "optimizer.frozen": PATTERN,
    "optimizer.no_decay": PATTERN,
    "optimizer.clip_norm": ABOVE_ZERO,
    "optimizer.ema_decay": SHARE,
    "schedule.epochs": COUNT,
    "schedule.updates": COUNT,
    "schedule.warmup_epochs": FROM_ZERO,
    "schedule.warmup_updates": FROM_ZERO_INTEGER,
    "schedule.warmup_start": SHARE,
    "schedule.decay": choice(DECAYS),
    "schedule.min_learning_rate": FROM_ZERO,
    "schedule.power": ABOVE_ZERO,
    "schedule.milestones": Rule(
        "numbers in ascending order", lambda value: list(value) == sorted(value)
    ),
    "schedule.step_factor": UP_TO_ONE,
    "schedule.frozen_epochs": FROM_ZERO,
    "schedule.evaluation_updates": COUNT,
    "schedule.save_updates": COUNT,
    "batch.batch_size": COUNT,
    "batch.device_batch": COUNT,
    "batch.devices": COUNT,
    "batch.precision": choice(PRECISIONS),
    "seed": FROM_ZERO_INTEGER,
}
