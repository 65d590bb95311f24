"""Estimates the updates, memory and hours of training a segmenter, without running it."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from keras_convnext.segmentation.cost import AUXILIARY_CHANNELS, parts
from keras_convnext.segmentation.recipes import Network, Segmentation
from keras_convnext.training.devices import Device
from keras_convnext.training.memory import (
    Memory,
    Section,
    arithmetic_of,
    peak_of,
    sections,
)
from keras_convnext.training.planning import Cost, Plan, estimate
from keras_convnext.variants import VARIANTS

_ADE20K = (20_210, 150)
DATA = {  # images and classes in the training split of each recipe's dataset
    "ade20k": _ADE20K,
    "ade20k_640": _ADE20K,
    "segment_small": (None, 150),  # fewer classes need less memory
    "camvid": (367, 11),
}


class Convolution(NamedTuple):
    """A convolution of the heads.

    Args:
        side: int. Rows and columns of its map.
        inputs: int. Channels of the input.
        outputs: int. Channels of the output.
        kernel: int. Side of the kernel.
        has_norm: bool. Whether it has batch norm and ReLU, or else a bias.
        kept: int or None. Channels of the input that exist at this size, if not all of them do.
    """

    side: int
    inputs: int
    outputs: int
    kernel: int = 1
    has_norm: bool = True
    kept: int | None = None

    @property
    def parameters(self) -> int:
        """Number of trained weights."""
        own = 2 if self.has_norm else 1
        return self.outputs * (self.inputs * self.kernel**2 + own)


def heads(
    dims: Sequence[int], size: int, classes: int, own: Network, auxiliary: bool
) -> Iterator[Convolution]:
    """Yields the convolutions of UperNet, bottom up.

    Args:
        dims: sequence of int. Channels of the stages.
        size: int. Side of the images, in pixels.
        classes: int. Number of classes.
        own: Network. The fields of the recipe.
        auxiliary: bool. Whether there is an auxiliary head.
    """
    sides, width = [size // 4 >> stage for stage in range(4)], own.channels
    for stage in range(3):
        yield Convolution(sides[stage], dims[stage], width)
    for scale in own.pool_scales:
        yield Convolution(scale, dims[3], width)
    yield Convolution(sides[3], dims[3] + len(own.pool_scales) * width, width, 3)
    for stage in range(3):
        yield Convolution(sides[stage], width, width, 3)
    # Each coarser map has a quarter of the positions: see `PyramidConv2D`.
    yield Convolution(sides[0], 4 * width, width, 3, kept=width * 4 // 3)
    yield Convolution(sides[0], width, classes, has_norm=False)
    if auxiliary:
        yield Convolution(sides[2], dims[2], AUXILIARY_CHANNELS, 3)
        yield Convolution(sides[2], AUXILIARY_CHANNELS, classes, has_norm=False)


def plan(
    recipe: Segmentation, model: str, images: int | None, devices: int, device_type: str
) -> Plan:
    """Estimates the updates, memory and time of a run without running it.

    Args:
        recipe: Segmentation. As returned by `recipe_for`.
        model: str. Name of the backbone.
        images: int or None. Images per epoch, or None for those of the recipe's dataset.
        devices: int. Number of devices, or of CPU cores.
        device_type: str. A key of `DEVICES`.

    Returns:
        A `classification.Plan`.

    Raises:
        ValueError: If the device type is unknown or does not support the recipe's precision, if the
            number of images is unknown or less than a batch, or if the batch size is not a multiple
            of the number of devices.
    """
    known, classes = DATA.get(recipe.name, (None, 150))
    cost = cost_of(recipe, model, classes)
    return estimate(recipe, model, cost, images or known, devices, device_type)


def cost_of(recipe: Segmentation, model: str, classes: int) -> Cost:
    """Returns what the network of a recipe needs in training.

    The activations are up to 20 % above the measured ones: 55 MB per image of 256 px for `camvid`
    with Atto on a CPU, where batches of 4 and 12 images differ by 46 MB per image.
    """
    size, variant = recipe.input.size, VARIANTS[model]
    if recipe.network.start is None and not variant.grn:
        variant = variant._replace(layer_scale=recipe.network.layer_scale or None)
    has_auxiliary = recipe.loss.auxiliary_weight > 0
    head = list(heads(variant.dims, size, classes, recipe.network, has_auxiliary))
    counted = parts(
        variant,
        (size, size),
        classes,
        channels=recipe.network.channels,
        pool_scales=recipe.network.pool_scales,
        auxiliary=has_auxiliary,
    )

    def memory(recipe: Segmentation, device_batch: int, accumulated: int, device: Device) -> Memory:
        compute, fused = arithmetic_of(recipe, device)
        rows = list(sections(variant, size, classes, compute, recipe.batch.remat, fused))[:-1]
        rows += [_section(each, compute) for each in head]
        # Logits of the size of the image and their gradient, in float32, for each head.
        outputs = 4 * size**2 * classes * (1 + has_auxiliary)
        rows.append(Section(outputs, 2 * outputs, 2 * sum(variant.dims)))
        return peak_of(recipe, rows, size, device_batch, accumulated, device)

    return Cost(
        size,
        sum(part.macs for part in counted),
        sum(part.parameters for part in counted),
        memory,
    )


def _section(own: Convolution, compute: int) -> Section:
    """Returns what a convolution keeps: its input, and what its norm needs.

    The norm keeps its input and the centered one in float32, and ReLU its output.
    """
    positions = own.side**2
    kept = positions * (own.kept or own.inputs) * compute
    if own.has_norm:
        kept += positions * own.outputs * (4 + 4 + compute)
    return Section(kept, positions * own.outputs * 2 * 4, own.parameters)
