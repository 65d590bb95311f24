"""Estimates the updates, memory and hours of training a detector of rotated boxes."""

from collections.abc import Iterator

from keras_convnext.detection.rotated.cost import ANCHORS, DEPTH, parts_of_rotated
from keras_convnext.detection.rotated.recipes import RotatedDetection
from keras_convnext.training.devices import Device
from keras_convnext.training.memory import Memory, Section, arithmetic_of, peak_of, sections
from keras_convnext.training.planning import Cost, Plan, estimate
from keras_convnext.variants import VARIANTS, Variant

_CLASSES = 15
# Tiles of 1024 px of the training images of DOTA-v1.0 are not counted in the sources: pass images.
_OBJECTS = 100  # of a tile
_IOU = 60  # values of a pair of boxes that the gradient of their overlap keeps


def plan(
    recipe: RotatedDetection, model: str, images: int | None, devices: int, device_type: str
) -> Plan:
    """Estimates the updates, memory and time of a run without running it.

    Args:
        recipe: RotatedDetection. As returned by `recipe_for`.
        model: str. Name of the backbone.
        images: int or None. Tiles per epoch. The sources of the published recipes do not tell them.
        devices: int. Number of devices, or of CPU cores.
        device_type: str. A key of `DEVICES`.

    Returns:
        A `training.Plan`.

    Raises:
        ValueError: If the device type is unknown or does not support the recipe's precision, if the
            number of tiles is unknown or less than a batch, or if the batch size is not a multiple
            of the number of devices.
    """
    cost = cost_of(recipe, model)
    return estimate(recipe, model, cost, images, devices, device_type)


def cost_of(recipe: RotatedDetection, model: str) -> Cost:
    """Returns the multiplications, parameters and memory of training a detector."""
    own, variant, side = recipe.network, VARIANTS[model], recipe.input.size
    if own.start is None and not variant.grn:
        variant = variant._replace(layer_scale=own.layer_scale or None)
    counted = parts_of_rotated(
        variant, (side, side), _CLASSES, regression=own.regression, channels=own.channels
    )

    def memory(
        recipe: RotatedDetection, device_batch: int, accumulated: int, device: Device
    ) -> Memory:
        compute, fused = arithmetic_of(recipe, device)
        rows = list(sections(variant, side, _CLASSES, compute, recipe.batch.remat, fused))[:-1]
        rows += _head(recipe, variant, side, compute)
        return peak_of(recipe, rows, side, device_batch, accumulated, device)

    return Cost(
        side, sum(part.macs for part in counted), sum(part.parameters for part in counted), memory
    )


def _head(recipe: RotatedDetection, variant: Variant, side: int, compute: int) -> Iterator[Section]:
    """Yields what the pyramid, the head and the losses keep for each tile."""
    own = recipe.network
    counted = {
        part.name: part.parameters
        for part in parts_of_rotated(
            variant, (side, side), regression=own.regression, channels=own.channels
        )
    }
    positions = sum((side // stride) ** 2 for stride in (8, 16, 32, 64, 128))
    anchors = positions * ANCHORS[own.regression]
    # The inputs of both convolutions of the pyramid; then of each convolution of both stacks, with
    # the values that group norm keeps.
    yield Section(2 * positions * own.channels * compute, 0, counted["pyramid"])
    norms = 4 + 4 if own.regression == "expectation" else 0
    stacks = 2 * DEPTH * positions * own.channels * (compute + norms)
    losses = anchors * 4 * (4 * _CLASSES + _IOU)
    overlaps = 4 * _OBJECTS * positions * ANCHORS[own.regression]
    yield Section(stacks + losses, overlaps, counted["head"])
