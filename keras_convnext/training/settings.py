"""A recipe as it is for one network, with a user's own settings: picked, read and checked."""

import difflib
import json
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeGuard

from keras_convnext.training.recipes import OPTIMIZERS, PRECISIONS, RECIPES, Recipe, RecipeFamily
from keras_convnext.variants import VARIANTS

Rule = tuple[str, Callable[[object], bool]]  # what a field has to be, and whether a value is


def recipe_for(name: str, model: str, settings: Mapping[str, object] | None = None) -> Recipe:
    """Returns a recipe as it is for one network.

    Example:

    ```python
    recipe_for("imagenet1k", "convnext_base").drop_path_rate  # 0.5
    recipe_for("finetune_small", "convnext_tiny", {"epochs": 5, "learning_rate": "1e-4"})
    ```

    Args:
        name: str. A key of `RECIPES`.
        model: str. The network, as `keras-convnext list` names it.
        settings: dict or None. Fields to override; a str is read as its field's kind.

    Raises:
        ValueError: If there is no such recipe, network or field, or a value is none of the field's
            kind or out of range.
    """
    if name not in RECIPES:
        raise ValueError(f"recipe is {_one_of(name, RECIPES)}. Received: recipe={name}")
    family = RECIPES[name]
    own = {field: _read(field, value) for field, value in (settings or {}).items()}
    published = family.drop_path_rate
    if published and model not in published and "drop_path_rate" not in own:
        raise ValueError(
            f"The recipe {name} was published for {', '.join(published)}. For another network, say "
            f"what drop_path_rate is to be. Received: model={model}"
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
    """A setting from the command line as what its field holds."""
    if field not in Recipe._fields or field in ("name", "source", "published"):
        raise ValueError(f"A recipe has no {field!r}: it has {_one_of(field, Recipe._fields)}.")
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
            raise ValueError(f"Not a value of {field}. Received: {field}={value}") from None
    return tuple(read) if isinstance(read, list) else read


def _one_of(name: str, names: Collection[str]) -> str:
    close = difflib.get_close_matches(name, names, 1)
    return f"one of {', '.join(names)}" + (f"; did you mean {close[0]}?" if close else "")


def _checked(row: Recipe, model: str) -> Recipe:
    if model not in VARIANTS:
        raise ValueError(f"model is {_one_of(model, VARIANTS)}. Received: model={model}")
    for field, (meaning, holds) in _RULES.items():
        value = getattr(row, field)
        if not holds(value):
            raise ValueError(f"{field} is {meaning}. Received: {field}={value!r}")
    if row.size < VARIANTS[model].min_size:
        raise ValueError(
            f"{model} takes images of {VARIANTS[model].min_size} px and more. "
            f"Received: size={row.size}"
        )
    if row.warmup_epochs > row.epochs:
        raise ValueError(
            f"The warmup is part of the run: set warmup_epochs to {row.epochs} or less too. "
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


_COUNT: Rule = ("a whole number from 1 up", _is_count)
_SHARE: Rule = ("a number from 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1)
_BELOW_ONE: Rule = ("a number from 0, below 1", lambda value: _is_number(value) and 0 <= value < 1)
_FROM_ZERO: Rule = ("a number from 0 up", lambda value: _is_number(value) and value >= 0)
_ABOVE_ZERO: Rule = ("a number above 0", lambda value: _is_number(value) and value > 0)
_RANGE: Rule = ("two numbers above 0, the smaller first", _is_range)


def _or_none(rule: Rule) -> Rule:
    meaning, holds = rule
    return f"None, or {meaning}", lambda value: value is None or holds(value)


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
    "layer_decay": ("a number above 0, up to 1", lambda v: _is_number(v) and 0 < v <= 1),
    "clip_norm": _or_none(_ABOVE_ZERO),
    "ema_decay": _or_none(_SHARE),
    "save_steps": _or_none(_COUNT),
    "seed": ("a whole number from 0 up", lambda value: type(value) is int and value >= 0),
    "optimizer": (f"one of {', '.join(OPTIMIZERS)}", lambda value: value in OPTIMIZERS),
    "precision": (f"one of {', '.join(PRECISIONS)}", lambda value: value in PRECISIONS),
    "remat": ("True or False", lambda value: isinstance(value, bool)),
}
