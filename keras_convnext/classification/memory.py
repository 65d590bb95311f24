"""Estimates the memory of a training step of a classifier."""

from keras_convnext.classification.recipes import Classification
from keras_convnext.training.devices import Device
from keras_convnext.training.memory import Memory, arithmetic_of, peak_of, sections
from keras_convnext.variants import VARIANTS, Variant


def network_of(recipe: Classification, model: str) -> Variant:
    """Returns the network as the recipe trains it: with or without layer scale. V2 has none."""
    variant = VARIANTS[model]
    if recipe.network.start is None and not variant.grn:
        variant = variant._replace(layer_scale=recipe.network.layer_scale or None)
    return variant


def memory_of(
    recipe: Classification,
    model: str,
    classes: int,
    device_batch: int,
    accumulated: int,
    device: Device,
) -> Memory:
    """Estimates the peak memory of a training step on a device.

    Args:
        recipe: Classification. As returned by `recipe_for`.
        model: str. Name of the network.
        classes: int. Number of classes.
        device_batch: int. Batch size per device.
        accumulated: int. Batches accumulated per update.
        device: Device. The device type.

    Returns:
        A `Memory`.
    """
    compute, fused = arithmetic_of(recipe, device)
    variant = network_of(recipe, model)
    rows = list(sections(variant, recipe.input.size, classes, compute, recipe.batch.remat, fused))
    return peak_of(recipe, rows, recipe.input.size, device_batch, accumulated, device)
