"""Infers the network from the names and shapes of its weights."""

import math
import re
from collections.abc import Mapping

from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.layouts import SECOND_KERNEL, STEM_KERNEL, Place
from keras_convnext.variants import VARIANTS, Variant

Shapes = Mapping[Place, tuple[int, ...]]

# The fields of a variant that shapes determine; the others are initialization and image size.
_SHAPE_FIELDS = ("depths", "dims", "patch_size", "kernel_size", "isotropic", "grn", "overlap")


def network_of(shapes: Shapes) -> Variant | None:
    """Returns the network with weights of these shapes, or None if they do not determine one."""
    depths: dict[int, int] = {}
    dims: dict[int, int] = {}
    kernel_size, has_layer_scale, has_grn = None, False, False
    for place, shape in shapes.items():
        match = re.fullmatch(r"(?:stages_(\d+)_)?blocks_(\d+)(?:/(\w+))?", place.layer)
        if match:
            stage = int(match[1] or 0)
            depths[stage] = max(depths.get(stage, 0), int(match[2]) + 1)
            if (match[3], place.variable) == ("dwconv", "kernel"):
                kernel_size, dims[stage] = shape[0], shape[2]
            has_layer_scale |= match[3] is None
            has_grn |= match[3] == "grn"
    stem = shapes.get(STEM_KERNEL)
    if stem is None or kernel_size is None or sorted(depths) != list(range(len(dims))):
        return None
    second = shapes.get(SECOND_KERNEL)
    found = Variant(
        "",
        tuple(depths[stage] for stage in sorted(depths)),
        tuple(dims[stage] for stage in sorted(dims)),
        1e-6 if has_layer_scale else None,
        stem[0] if second is None else 4,
        kernel_size,
        isotropic=any(place.layer.startswith("blocks_") for place in shapes),
        grn=has_grn,
        overlap=None if second is None else stem[-1],
    )
    known = next((v for v in VARIANTS.values() if _same_network(v, found)), None)
    if known is None:
        return found._replace(name="convnextv2" if has_grn else "convnext")
    return found._replace(name=known.name, epsilon=known.epsilon)


def with_hidden(network: Variant, hidden: int | None) -> Variant:
    """Returns a network with or without a hidden layer of its head, which has another name."""
    named = (
        variant.name
        for variant in VARIANTS.values()
        if _same_network(variant, network) and variant.hidden == hidden
    )
    default = "convnextv2" if network.grn else "convnext"
    return network._replace(name=next(named, default), hidden=hidden)


def trunk_shapes(network: Variant, channels: int) -> dict[Place, tuple[int, ...]]:
    """Returns the shapes of the weights below the final norm, by their places.

    Args:
        network: Variant. The network.
        channels: int. Number of image channels.
    """
    shapes: dict[Place, tuple[int, ...]] = {}

    def layer(name: str, kernel: tuple[int, ...], width: int) -> None:
        shapes[Place(name, "kernel")], shapes[Place(name, "bias")] = kernel, (width,)

    def norm(name: str, width: int) -> None:
        shapes[Place(name, "gamma")] = shapes[Place(name, "beta")] = (width,)

    side, width = network.patch_size, network.dims[0]
    if network.overlap is not None:
        side, width = 3, network.overlap
        shapes[SECOND_KERNEL] = (3, 3, width, network.dims[0])
        shapes[Place("stem_conv", "bias_2")] = (network.dims[0],)
    layer("stem_conv", (side, side, channels, width), width)
    if not network.isotropic:
        norm("stem_norm", network.dims[0])
    for stage, (depth, dim) in enumerate(zip(network.depths, network.dims)):
        if stage > 0:
            before = network.dims[stage - 1]
            norm(f"downsample_{stage}_norm", before)
            layer(f"downsample_{stage}_conv", (2, 2, before, dim), dim)
        for block in range(depth):
            name = f"blocks_{block}" if network.isotropic else f"stages_{stage}_blocks_{block}"
            layer(f"{name}/dwconv", (*[network.kernel_size] * 2, dim, 1), dim)
            norm(f"{name}/norm", dim)
            layer(f"{name}/pwconv1", (dim, 4 * dim), 4 * dim)
            layer(f"{name}/pwconv2", (4 * dim, dim), dim)
            if network.grn:
                norm(f"{name}/grn", 4 * dim)
            if network.layer_scale is not None:
                shapes[Place(name, "gamma")] = (dim,)
    return shapes


def parameters_of(shapes: Shapes) -> int:
    """Returns the number of parameters in tensors of these shapes."""
    return sum(map(math.prod, shapes.values()))


def _same_network(one: Variant, other: Variant) -> bool:
    return all(getattr(one, field) == getattr(other, field) for field in _SHAPE_FIELDS)


def check_same_network(theirs: Shapes, ours: Shapes, model_name: str) -> None:
    """Checks that two sets of weights belong to the same network, as far as shapes show.

    Raises:
        CheckpointError: If they differ; the message names both networks and the remedy.
    """
    checkpoint, model = network_of(theirs), network_of(ours)
    if checkpoint is None or model is None:
        return
    if not _same_network(checkpoint, model):
        raise CheckpointError(
            f"This is a checkpoint of {described(checkpoint)}, but the model {model_name} is a "
            f"{described(model)}. Use the builder of the checkpoint's network"
        )
    if checkpoint.layer_scale is not None and model.layer_scale is None:
        raise CheckpointError(
            "The checkpoint has layer scale (gamma), but the model does not. Build it with "
            "layer_scale_init_value=1e-6"
        )
    if checkpoint.layer_scale is None and model.layer_scale is not None:
        raise CheckpointError(
            "The checkpoint has no layer scale (gamma), but the model does. Build it with "
            "layer_scale_init_value=None"
        )
    channels, expected = theirs[STEM_KERNEL][2], ours[STEM_KERNEL][2]
    if channels not in (3, expected):
        raise CheckpointError(
            f"The checkpoint is for images with {channels} channels, but the model expects "
            f"{expected}. Build it with input_shape=(height, width, {channels})"
        )


def described(variant: Variant) -> str:
    """Describes a network for a message."""
    return (
        f"{variant.name} (depths {variant.depths}, dims {variant.dims}, patch "
        f"{variant.patch_size}, kernel {variant.kernel_size})"
    )
