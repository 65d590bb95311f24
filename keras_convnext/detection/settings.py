"""Combines a recipe for detectors with a network and with a user's settings."""

from collections.abc import Mapping

from keras_convnext.backbones import backbone_names
from keras_convnext.detection.recipes import RECIPES, Detection
from keras_convnext.training.settings import (
    BELOW_ONE,
    COUNT,
    FROM_ZERO,
    SHARE,
    Rule,
    check,
    for_network,
    unknown,
)

_LEAST = 32  # px: the stride of the coarsest map of the backbone
_SIDES = Rule(f"integers of at least {_LEAST}", lambda value: all(each >= _LEAST for each in value))

RULES: dict[str, Rule] = {
    "network.drop_path_rate": BELOW_ONE,
    "network.layer_scale": FROM_ZERO,
    "network.channels": COUNT,
    "network.hidden": COUNT,
    "input.shortest": Rule(
        f"integers of at least {_LEAST}, at least one",
        lambda value: value and _SIDES.holds(value),
    ),
    "input.longest": Rule(f"an integer of at least {_LEAST}", lambda value: value >= _LEAST),
    "input.crop_from": _SIDES,
    "input.crop": Rule(
        f"two integers of at least {_LEAST} in ascending order",
        lambda value: len(value) == 2 and _LEAST <= value[0] <= value[1],
    ),
    "input.horizontal_flip": SHARE,
    "input.bucket": Rule("a multiple of 32", lambda value: value > 0 and value % _LEAST == 0),
    "input.most_objects": COUNT,
    "input.scale": Rule(
        f"two integers of at least {_LEAST}",
        lambda value: len(value) == 2 and _SIDES.holds(value),
    ),
    "input.validation_share": BELOW_ONE,
    "samples.before": COUNT,
    "samples.anchors": Rule("in 2..256", lambda value: 2 <= value <= 256),
    "samples.regions": Rule("at least 4", lambda value: value >= 4),
    "samples.proposals": COUNT,
    "samples.tested": COUNT,
}


def recipe_for(name: str, model: str, settings: Mapping[str, object] | None = None) -> Detection:
    """Returns the recipe for a network.

    Example:

    ```python
    recipe_for("coco_cascade", "convnext_small").network.drop_path_rate  # 0.6
    ```

    Args:
        name: str. A key of `RECIPES`.
        model: str. Name of the backbone.
        settings: dict or None. Fields to override, by their full names, such as
            `"optimizer.learning_rate"`, or their last parts. Strings are parsed as values of the
            field. Defaults to None.

    Returns:
        A `Detection`.

    Raises:
        ValueError: If the recipe, network or a field is unknown, or a value has the wrong type or
            is out of range.
    """
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    recipe = for_network(RECIPES[name], model, settings or {})
    check_recipe(recipe, model)
    return recipe


def check_recipe(recipe: Detection, model: str) -> None:
    """Checks the fields of a recipe, and whether the network can be trained with it.

    Raises:
        ValueError: If the network is unknown, or a value has the wrong type or is out of range.
    """
    if model not in (names := backbone_names()):
        raise unknown("model", model, names)
    check(recipe, RULES)
