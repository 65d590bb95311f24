"""Combines a recipe for detectors of rotated boxes with a network and with a user's settings."""

from collections.abc import Mapping

from keras_convnext.backbones import backbone_names
from keras_convnext.detection.rotated.recipes import RECIPES, RotatedDetection
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


def _one_of(*names: str) -> Rule:
    return Rule(f"one of {', '.join(names)}", lambda value: value in names)


RULES: dict[str, Rule] = {
    "network.regression": _one_of("expectation", "direct"),
    "network.convention": _one_of("le135", "le90", "oc"),
    "network.drop_path_rate": BELOW_ONE,
    "network.layer_scale": FROM_ZERO,
    "network.channels": COUNT,
    "input.size": Rule(f"a multiple of {_LEAST}", lambda value: value > 0 and value % _LEAST == 0),
    "input.overlap": FROM_ZERO,
    "input.horizontal_flip": SHARE,
    "input.vertical_flip": SHARE,
    "input.quarter_turns": SHARE,
    "input.most_objects": COUNT,
    "input.shortest_edge": FROM_ZERO,
    "input.hardest": FROM_ZERO,
    "input.validation_share": BELOW_ONE,
    "loss.assigner": _one_of("atss", "iou"),
    "loss.box": _one_of("iou_log", "iou_linear", "iou_square", "kld", "l1"),
    "loss.weight": FROM_ZERO,
}


def recipe_for(
    name: str, model: str, settings: Mapping[str, object] | None = None
) -> RotatedDetection:
    """Returns the recipe for a network.

    Example:

    ```python
    recipe_for("dota_gfl_retina", "convnext_tiny").network.regression  # "expectation"
    ```

    Args:
        name: str. A key of `RECIPES`.
        model: str. Name of the backbone.
        settings: dict or None. As in `keras_convnext.detection.recipe_for`. Defaults to None.

    Returns:
        A `RotatedDetection`.

    Raises:
        ValueError: If the recipe, network or a field is unknown, or a value has the wrong type or
            is out of range.
    """
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    recipe = for_network(RECIPES[name], model, settings or {})
    check_recipe(recipe, model)
    return recipe


def check_recipe(recipe: RotatedDetection, model: str) -> None:
    """Checks the fields of a recipe, and whether the network can be trained with it.

    Raises:
        ValueError: If the network is unknown, or a value has the wrong type or is out of range.
    """
    if model not in (names := backbone_names()):
        raise unknown("model", model, names)
    check(recipe, RULES)
    if recipe.input.overlap >= recipe.input.size:
        raise ValueError(
            f"input.overlap must be below input.size. Received: overlap={recipe.input.overlap}, "
            f"size={recipe.input.size}"
        )
