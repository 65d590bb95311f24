"""Combines a recipe for segmenters with a network and with a user's settings."""

from collections.abc import Mapping

from keras_convnext.backbones import backbone_names
from keras_convnext.segmentation.recipes import AVERAGES, RECIPES, Segmentation
from keras_convnext.training.settings import (
    BELOW_ONE,
    COUNT,
    FROM_ZERO,
    FROM_ZERO_INTEGER,
    RANGE,
    SHARE,
    Rule,
    check,
    choice,
    for_network,
    unknown,
)

_LEAST = 32  # px, of the crops and windows: the stride of the last feature map

RULES: dict[str, Rule] = {
    "network.drop_path_rate": BELOW_ONE,
    "network.layer_scale": FROM_ZERO,
    "network.channels": COUNT,
    "network.pool_scales": Rule(
        "positive integers", lambda value: all(each >= 1 for each in value)
    ),
    "input.scale": Rule(
        "the longest and the shortest side in pixels, or empty",
        lambda value: not value or (len(value) == 2 and min(value) >= _LEAST),
    ),
    "input.ratio": RANGE,
    "input.size": Rule(f"an integer of at least {_LEAST}", lambda value: value >= _LEAST),
    "input.window": Rule(f"an integer of at least {_LEAST}", lambda value: value >= _LEAST),
    "input.stride": COUNT,
    "input.most_of_one_class": SHARE,
    "input.horizontal_flip": SHARE,
    "input.validation_share": BELOW_ONE,
    "labels.first_label": FROM_ZERO_INTEGER,
    "labels.ignored": Rule(
        "integers of at least 0", lambda value: all(each >= 0 for each in value)
    ),
    "loss.auxiliary_weight": FROM_ZERO,
    "loss.average": choice(AVERAGES),
    "loss.class_balance": FROM_ZERO,
}


def recipe_for(name: str, model: str, settings: Mapping[str, object] | None = None) -> Segmentation:
    """Returns the recipe for a network.

    Example:

    ```python
    recipe_for("ade20k", "convnext_small").network.drop_path_rate  # 0.3
    ```

    Args:
        name: str. A key of `RECIPES`.
        model: str. Name of the backbone.
        settings: dict or None. Fields to override, by their full names, such as
            `"optimizer.learning_rate"`, or their last parts. Strings are parsed as values of the
            field. Defaults to None.

    Returns:
        A `Segmentation`.

    Raises:
        ValueError: If the recipe, network or a field is unknown, or a value has the wrong type or
            is out of range.
    """
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    recipe = for_network(RECIPES[name], model, settings or {})
    check_recipe(recipe, model)
    return recipe


def check_recipe(recipe: Segmentation, model: str) -> None:
    """Checks the fields of a recipe, and whether the network can be trained with it.

    Raises:
        ValueError: If the network is unknown, or a value has the wrong type or is out of range.
    """
    if model not in (names := backbone_names()):
        raise unknown("model", model, names)
    check(recipe, RULES)
    own = recipe.input
    if own.stride > own.window:
        raise ValueError(
            "stride must not exceed window, or pixels between windows would have no class. "
            f"Received: stride={own.stride}, window={own.window}"
        )
