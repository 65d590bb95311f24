"""Combines a recipe for classifiers with a network and with a user's settings."""

from collections.abc import Mapping

from keras_convnext.classification.recipes import RECIPES, Classification
from keras_convnext.printable import printable
from keras_convnext.roadmap.steps import find_model
from keras_convnext.training.settings import (
    ABOVE_ZERO,
    BELOW_ONE,
    COUNT,
    FROM_ZERO,
    RANGE,
    SHARE,
    Rule,
    check,
    for_network,
    unknown,
)
from keras_convnext.variants import VARIANTS

RULES: dict[str, Rule] = {
    "network.drop_path_rate": BELOW_ONE,
    "network.layer_scale": FROM_ZERO,
    "network.head_init_scale": FROM_ZERO,
    "input.size": COUNT,
    "input.early_sizes": Rule("positive integers", lambda value: all(each >= 1 for each in value)),
    "input.early_epochs": Rule(
        "numbers above 0 in ascending order",
        lambda value: list(value) == sorted({0.0, *value})[1:],
    ),
    "input.crop_scale": RANGE,
    "input.crop_ratio": RANGE,
    "input.horizontal_flip": SHARE,
    "input.color_jitter": FROM_ZERO,
    "input.random_erasing": SHARE,
    "input.validation_share": BELOW_ONE,
    "targets.label_smoothing": BELOW_ONE,
    "targets.teacher_weight": SHARE,
    "targets.temperature": ABOVE_ZERO,
    "targets.mixup": FROM_ZERO,
    "targets.cutmix": FROM_ZERO,
    "targets.mixing_probability": SHARE,
    "targets.mixing_switch": SHARE,
    "targets.mixing_batch": Rule("at least 2", lambda value: value >= 2),
}


def recipe_for(
    name: str, model: str, settings: Mapping[str, object] | None = None
) -> Classification:
    """Returns the recipe for a network.

    Example:

    ```python
    recipe_for("imagenet1k", "convnext_base").network.drop_path_rate  # 0.5
    recipe_for("finetune_small", "convnext_tiny", {"epochs": 5, "optimizer.learning_rate": 1e-4})
    ```

    Args:
        name: str. A key of `RECIPES`.
        model: str. Name of the network, as in `keras-convnext list`.
        settings: dict or None. Fields to override, by their full names, such as
            `"optimizer.learning_rate"`, or their last parts. Strings are parsed as values of the
            field. Defaults to None.

    Returns:
        A `Classification`.

    Raises:
        ValueError: If the recipe, network or a field is unknown, or a value has the wrong type or
            is out of range.
    """
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    recipe = for_network(RECIPES[name], model, settings or {})
    check_recipe(recipe, model)
    return recipe


def check_recipe(recipe: Classification, model: str) -> None:
    """Checks the fields of a recipe, and whether the network can be trained with it.

    Raises:
        ValueError: If the network is unknown, or a value has the wrong type or is out of range.
    """
    road = find_model(model)
    if road is None and model not in VARIANTS:
        raise unknown("model", model, VARIANTS)
    check(recipe, RULES)
    if road:
        _check_road(recipe, model)
    elif VARIANTS[model].grn and recipe.network.layer_scale not in (None, 1e-6):
        raise ValueError(
            f"{model} has no layer_scale: ConvNeXt V2 normalizes responses instead. "
            f"Received: layer_scale={printable(recipe.network.layer_scale)}"
        )
    own, least = recipe.input, (road[1] if road else VARIANTS[model]).min_size
    if min(own.size, *own.early_sizes, own.size) < least:
        raise ValueError(
            f"{model} needs images of at least {least} px. "
            f"Received: size={own.size}, early_sizes={own.early_sizes}"
        )
    if len(own.early_sizes) != len(own.early_epochs):
        raise ValueError(
            "early_sizes and early_epochs must have the same length. "
            f"Received: early_sizes={own.early_sizes}, early_epochs={own.early_epochs}"
        )
    targets = recipe.targets
    if recipe.batch.batch_size == 1 and (targets.mixup or targets.cutmix):
        raise ValueError(
            "A single image has no partner to be mixed with. Set batch_size to 2 or more, or mixup "
            f"and cutmix to 0. Received: batch_size=1, mixup={targets.mixup}, "
            f"cutmix={targets.cutmix}"
        )


def _check_road(recipe: Classification, model: str) -> None:
    """Refuses fields that the networks of the roadmap do not have."""
    fixed = {
        "start": (recipe.network.start, (None,)),
        "layer_scale": (recipe.network.layer_scale, (None, 1e-6)),
        "head_init_scale": (recipe.network.head_init_scale, (1,)),
        "remat": (recipe.batch.remat, (False,)),
    }
    for name, (value, values) in fixed.items():
        if value not in values:
            raise ValueError(
                f"{model} has no {name}, because the roadmap defines the network: set "
                f"{name}={values[0]}. Received: {name}={printable(value)}"
            )
