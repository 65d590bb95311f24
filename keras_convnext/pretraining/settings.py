"""Combines a recipe for pre-training with a network and with a user's settings."""

from collections.abc import Mapping

from keras_convnext.pretraining.recipes import RECIPES, Pretraining
from keras_convnext.training.settings import (
    BELOW_ONE,
    COUNT,
    RANGE,
    SHARE,
    Rule,
    check,
    for_network,
    unknown,
)
from keras_convnext.variants import VARIANTS

NETWORKS = tuple(name for name, variant in VARIANTS.items() if variant.grn)

RULES: dict[str, Rule] = {
    "network.decoder_width": COUNT,
    "network.decoder_depth": COUNT,
    "input.size": COUNT,
    "input.crop_scale": RANGE,
    "input.horizontal_flip": SHARE,
    "input.validation_share": BELOW_ONE,
    "masking.ratio": Rule("a number above 0 and below 1", lambda value: 0 < value < 1),
    "masking.patch": COUNT,
}


def recipe_for(name: str, model: str, settings: Mapping[str, object] | None = None) -> Pretraining:
    """Returns the recipe for a network.

    Example:

    ```python
    recipe_for("fcmae", "convnextv2_tiny").masking.ratio  # 0.6
    ```

    Args:
        name: str. A key of `RECIPES`.
        model: str. Name of a ConvNeXt V2.
        settings: dict or None. Fields to override, by their full names, such as
            `"masking.ratio"`, or their last parts. Strings are parsed as values of the field.
            Defaults to None.

    Returns:
        A `Pretraining`.

    Raises:
        ValueError: If the recipe, network or a field is unknown, or a value has the wrong type or
            is out of range.
    """
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    recipe = for_network(RECIPES[name], model, settings or {})
    check_recipe(recipe, model)
    return recipe


def check_recipe(recipe: Pretraining, model: str) -> None:
    """Checks the fields of a recipe, and whether the network can be trained with it.

    Raises:
        ValueError: If the network is unknown, or a value has the wrong type or is out of range.
    """
    if model not in NETWORKS:
        raise unknown("model", model, NETWORKS)
    check(recipe, RULES)
    size, patch, stride = recipe.input.size, recipe.masking.patch, VARIANTS[model].stride
    if patch % stride or size % patch:
        raise ValueError(
            f"The patches must be a multiple of {stride} px, the stride of {model}, and divide the "
            f"size. Received: patch={patch}, size={size}"
        )
    patches = (size // patch) ** 2
    if visible_patches(patches, recipe.masking.ratio) in (0, patches):
        raise ValueError(
            "Some patches must be visible and some hidden: use a smaller patch, a larger size or "
            f"another ratio. Received: patch={patch}, size={size}, ratio={recipe.masking.ratio}"
        )


def visible_patches(patches: int, ratio: float) -> int:
    """Returns how many patches of an image are visible, rounded down as in the official code."""
    return int(patches * (1 - ratio))
