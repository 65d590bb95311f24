"""Estimates the updates, memory and hours of training a detector, without running it."""

import math
from collections.abc import Iterator

from keras_convnext.detection.cost import parts
from keras_convnext.detection.recipes import Detection
from keras_convnext.training.devices import Device
from keras_convnext.training.memory import (
    Memory,
    Section,
    arithmetic_of,
    peak_of,
    sections,
)
from keras_convnext.training.planning import Cost, Plan, estimate
from keras_convnext.variants import VARIANTS, Variant

_COCO = 117_266  # images of train2017 with objects
DATA = {"coco_mask_rcnn": _COCO, "coco_cascade": _COCO, "coco_cascade_22k": _COCO}
_ASPECT = 4 / 3  # of a typical photograph


def plan(recipe: Detection, model: str, images: int | None, devices: int, device_type: str) -> Plan:
    """Estimates the updates, memory and time of a run without running it.

    Images have the largest of the drawn sizes, and masks of all objects, so that memory is that of
    the largest batches.

    Args:
        recipe: Detection. As returned by `recipe_for`.
        model: str. Name of the backbone.
        images: int or None. Images per epoch, or None for those of the recipe's dataset.
        devices: int. Number of devices, or of CPU cores.
        device_type: str. A key of `DEVICES`.

    Returns:
        A `classification.Plan`, whose `size` is the side of a square of the same area.

    Raises:
        ValueError: If the device type is unknown or does not support the recipe's precision, if the
            number of images is unknown or less than a batch, or if the batch size is not a multiple
            of the number of devices.
    """
    cost = cost_of(recipe, model)
    return estimate(recipe, model, cost, images or DATA.get(recipe.name), devices, device_type)


def cost_of(recipe: Detection, model: str) -> Cost:
    """Returns the multiplications, parameters and memory of training a detector."""
    own, variant = recipe.network, VARIANTS[model]
    if own.start is None and not variant.grn:
        variant = variant._replace(layer_scale=own.layer_scale or None)
    shortest = max(recipe.input.shortest)
    longest = min(recipe.input.longest, round(shortest * _ASPECT))
    side = -(-math.isqrt(shortest * longest) // 32) * 32
    counted = parts(
        variant,
        (side, side),
        cascade=own.cascade,
        masks=own.masks is not False,
        channels=own.channels,
        hidden=own.hidden,
        proposals=recipe.samples.regions,
        detections=recipe.samples.regions // 4,
    )

    def memory(recipe: Detection, device_batch: int, accumulated: int, device: Device) -> Memory:
        compute, fused = arithmetic_of(recipe, device)
        rows = list(sections(variant, side, 80, compute, recipe.batch.remat, fused))[:-1]
        rows += _heads(recipe, variant, side, compute)
        return peak_of(recipe, rows, side, device_batch, accumulated, device)

    return Cost(
        side, sum(part.macs for part in counted), sum(part.parameters for part in counted), memory
    )


def _heads(recipe: Detection, variant: Variant, side: int, compute: int) -> Iterator[Section]:
    """Yields what the heads keep for each image, and the temporary tensors of sampling."""
    own, samples = recipe.network, recipe.samples
    counted = {
        part.name: part.parameters
        for part in parts(
            variant, (side, side), cascade=own.cascade, channels=own.channels, hidden=own.hidden
        )
    }
    positions = sum((side // stride) ** 2 for stride in (4, 8, 16, 32, 64))
    # Inputs of both convolutions of the pyramid and of the proposal head, and the map as a table
    # in float32 for RoIAlign.
    pyramid = positions * own.channels * (4 * compute + 4)
    objects = recipe.input.most_objects
    # Overlaps of anchors with objects, and of the candidates of a level with each other.
    overlaps = 4 * 4 * (3 * positions * objects + samples.before**2)
    yield Section(pyramid, overlaps, counted["pyramid"] + counted["proposal head"])
    stages = 3 if own.cascade else 1
    convolutions = 4 * (4 + 4 + compute) if own.cascade else 0
    pooled = 49 * own.channels * samples.regions * (4 + compute + convolutions)
    yield Section(stages * pooled, pooled, counted["box head"])
    if own.masks is not False:
        regions = samples.regions // 4
        maps = 196 * own.channels * (4 + 5 * compute) + 784 * (own.channels + 2 * 80) * compute
        bitmaps = objects * side**2
        yield Section(stages * regions * maps + bitmaps, 4 * side**2, counted["mask head"])
