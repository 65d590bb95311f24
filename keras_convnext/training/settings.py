"""Combines a recipe with a network and with a user's settings, and checks the result."""

import difflib
import json
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeGuard

from keras_convnext.classification.recipes import (
    OPTIMIZERS,
    PRECISIONS,
    RECIPES,
    Recipe,
    RecipeFamily,
)
from keras_convnext.printable import printable
from keras_convnext.variants import VARIANTS

Rule = tuple[str, Callable[[object], bool]]  # description of valid values, and their check


def recipe_for(name: str, model: str, settings: Mapping[str, object] | None = None) -> Recipe:
    """Returns the recipe for a network.

    Example:

    ```python
    recipe_for("imagenet1k", "convnext_base").drop_path_rate  # 0.5
    recipe_for("finetune_small", "convnext_tiny", {"epochs": 5, "learning_rate": "1e-4"})
    ```

    Args:
        name: str. A key of `RECIPES`.
        model: str. Name of the network, as in `keras-convnext list`.
        settings: dict or None. Fields to override. Strings are parsed as values of the field.
            Defaults to None.

    Returns:
        A `Recipe`.

    Raises:
        ValueError: If the recipe, network or a field is unknown, or a value has the wrong type or
            is out of range.
    """
    if name not in RECIPES:
        raise ValueError(
            f"recipe must be {_one_of(name, RECIPES)}. Received: recipe={printable(name)}"
        )
    family = RECIPES[name]
    own = {field: _read(field, value) for field, value in (settings or {}).items()}
    published = family.drop_path_rate
    if published and model not in published and "drop_path_rate" not in own:
        raise ValueError(
            f"The recipe {name} was published for {', '.join(published)}. For another network, set "
            f"drop_path_rate. Received: model={printable(model)}"
        )
    return _checked(_of_network(family, model)._replace(**own), model)


def _of_network(family: RecipeFamily, model: str) -> Recipe:
    shared = family.shared
    return shared._replace(
        start=family.start.get(model, shared.start),
        size=family.size.get(model, shared.size),
        drop_path_rate=family.drop_path_rate.get(model, shared.drop_path_rate),
        layer_scale=family.layer_scale.get(model, shared.layer_scale),
        ema_decay=family.ema_decay.get(model, shared.ema_decay),
        device_batch=family.device_batch.get(model, shared.device_batch),
        devices=family.devices.get(model, shared.devices),
    )


def _read(field: str, value: object) -> Any:
    """Parses a setting from the command line as a value of its field."""
    if field not in Recipe._fields or field in ("name", "source", "published"):
        raise ValueError(
            f"A setting must be {_one_of(field, Recipe._fields)}. "
            f"Received: {printable(field)}={printable(value)}"
        )
    if not isinstance(value, str):
        return value
    kind = str(Recipe.__annotations__[field])
    if kind in ("<class 'str'>", "str | None"):
        return None if value.lower() == "none" and "None" in kind else value
    try:
        read = json.loads({"None": "null", "True": "true", "False": "false"}.get(value, value))
    except json.JSONDecodeError:
        parts = value.strip("()[] ").split(",")
        try:
            read = [float(part) for part in parts]
        except ValueError:
            raise ValueError(
                f"The value of {field} is invalid. Received: {field}={printable(value)}"
            ) from None
    return tuple(read) if isinstance(read, list) else read


def _one_of(name: str, names: Collection[str]) -> str:
    close = difflib.get_close_matches(name, names, 1)
    return f"one of {', '.join(names)}" + (f"; did you mean {close[0]}?" if close else "")


def _checked(row: Recipe, model: str) -> Recipe:
    if model not in VARIANTS:
        raise ValueError(
            f"model must be {_one_of(model, VARIANTS)}. Received: model={printable(model)}"
        )
    for field, (meaning, holds) in _RULES.items():
        value = getattr(row, field)
        if not holds(value):
            raise ValueError(f"{field} must be {meaning}. Received: {field}={value!r}")
    if row.size < VARIANTS[model].min_size:
        raise ValueError(
            f"{model} needs images of at least {VARIANTS[model].min_size} px. "
            f"Received: size={row.size}"
        )
    if row.warmup_epochs > row.epochs:
        raise ValueError(
            f"The warmup is longer than the run. Set warmup_epochs to {row.epochs} or less. "
            f"Received: epochs={row.epochs}, warmup_epochs={row.warmup_epochs}"
        )
    return row


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 1


def _is_range(value: object) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and all(map(_is_number, value))
        and 0 < value[0] <= value[1]
    )


_COUNT: Rule = ("a positive integer", _is_count)
_SHARE: Rule = ("a number in [0, 1]", lambda value: _is_number(value) and 0 <= value <= 1)
_BELOW_ONE: Rule = ("a number in [0, 1)", lambda value: _is_number(value) and 0 <= value < 1)
_FROM_ZERO: Rule = ("a number of at least 0", lambda value: _is_number(value) and value >= 0)
_ABOVE_ZERO: Rule = ("a number above 0", lambda value: _is_number(value) and value > 0)
_RANGE: Rule = ("two numbers above 0, the smaller one first", _is_range)


def _or_none(rule: Rule) -> Rule:
    meaning, holds = rule
    return f"None or {meaning}", lambda value: value is None or holds(value)


_RULES: dict[str, Rule] = {
    **dict.fromkeys(("epochs", "batch_size", "size", "device_batch", "devices"), _COUNT),
    **dict.fromkeys(("horizontal_flip", "random_erasing", "mixing_probability"), _SHARE),
    **dict.fromkeys(("label_smoothing", "drop_path_rate", "validation_share"), _BELOW_ONE),
    **dict.fromkeys(("weight_decay", "warmup_epochs", "frozen_epochs"), _FROM_ZERO),
    **dict.fromkeys(("mixup", "cutmix", "min_learning_rate", "head_init_scale"), _FROM_ZERO),
    **dict.fromkeys(("crop_scale", "crop_ratio"), _RANGE),
    **dict.fromkeys(("layer_scale", "color_jitter"), _or_none(_FROM_ZERO)),
    "mixing_switch": _SHARE,
    "mixing_batch": _COUNT,
    "learning_rate": _ABOVE_ZERO,
    "layer_decay": ("a number in (0, 1]", lambda v: _is_number(v) and 0 < v <= 1),
    "clip_norm": _or_none(_ABOVE_ZERO),
    "ema_decay": _or_none(_SHARE),
    "save_steps": _or_none(_COUNT),
    "seed": ("an integer of at least 0", lambda value: type(value) is int and value >= 0),
    "optimizer": (f"one of {', '.join(OPTIMIZERS)}", lambda value: value in OPTIMIZERS),
    "precision": (f"one of {', '.join(PRECISIONS)}", lambda value: value in PRECISIONS),
    "remat": ("True or False", lambda value: isinstance(value, bool)),
}
