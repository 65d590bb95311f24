"""A recipe as it is for one network, with a user's own settings: picked, read and checked."""

import difflib
import json
from collections.abc import Mapping
from typing import Any

from keras_convnext.training.recipes import PRECISIONS, RECIPES, Recipe
from keras_convnext.variants import VARIANTS


def recipe_for(name: str, model: str, settings: Mapping[str, Any] | None = None) -> Recipe:
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
    row = RECIPES[name]
    own = {field: _read(field, value) for field, value in (settings or {}).items()}
    chosen = {}
    for field, value in row._asdict().items():
        if field in own or not isinstance(value, dict):
            continue
        if model not in value and "" not in value:
            raise ValueError(
                f"The recipe {name} was published for {', '.join(value)}. For another network, say "
                f"what {field} is to be. Received: model={model}"
            )
        chosen[field] = value.get(model, value.get(""))
    return _checked(row._replace(**chosen, **own), model)


def _read(field: str, value: Any) -> Any:
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


def _one_of(name: str, names: Mapping[str, Any] | tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, names, 1)
    return f"one of {', '.join(names)}" + (f"; did you mean {close[0]}?" if close else "")


_SHARES = ("horizontal_flip", "random_erasing", "mixing_probability", "mixing_switch")
_FROM_ZERO = ("weight_decay", "warmup_epochs", "min_learning_rate", "frozen_epochs", "mixup",
              "cutmix", "head_init_scale", "seed")  # fmt: skip
_WHOLE = ("epochs", "batch_size", "size", "mixing_batch", "device_batch", "devices")


def _checked(row: Recipe, model: str) -> Recipe:
    if model not in VARIANTS:
        raise ValueError(f"model is {_one_of(model, VARIANTS)}. Received: model={model}")

    def number(value: Any) -> bool:
        return isinstance(value, int | float) and not isinstance(value, bool)

    rules = [
        *((field, "a whole number from 1 up", lambda v: type(v) is int and v >= 1)
          for field in _WHOLE),
        *((field, "a number from 0 to 1", lambda v: number(v) and 0 <= v <= 1)
          for field in _SHARES),
        *((field, "a number from 0 up", lambda v: number(v) and v >= 0) for field in _FROM_ZERO),
        ("learning_rate", "a number above 0", lambda v: number(v) and v > 0),
        ("layer_decay", "a number above 0, up to 1", lambda v: number(v) and 0 < v <= 1),
        ("label_smoothing", "a number from 0, below 1", lambda v: number(v) and 0 <= v < 1),
        ("drop_path_rate", "a number from 0, below 1", lambda v: number(v) and 0 <= v < 1),
        ("ema_decay", "None, or a number from 0 to 1", lambda v: v is None or (number(v) and 0 <= v <= 1)),
        ("clip_norm", "None, or a number above 0", lambda v: v is None or (number(v) and v > 0)),
        ("save_steps", "None, or a whole number from 1 up", lambda v: v is None or (type(v) is int and v >= 1)),
        ("precision", f"one of {', '.join(PRECISIONS)}", lambda v: v in PRECISIONS),
        ("remat", "True or False", lambda v: isinstance(v, bool)),
        *((field, "two numbers above 0, the smaller first",
           lambda v: isinstance(v, tuple) and len(v) == 2 and all(map(number, v)) and 0 < v[0] <= v[1])
          for field in ("crop_scale", "crop_ratio")),
    ]  # fmt: skip
    for field, meaning, holds in rules:
        value = getattr(row, field)
        if not holds(value):
            raise ValueError(f"{field} is {meaning}. Received: {field}={value!r}")
    if row.size < VARIANTS[model].min_size:
        raise ValueError(
            f"{model} takes images of {VARIANTS[model].min_size} px and more. "
            f"Received: size={row.size}"
        )
    return row
