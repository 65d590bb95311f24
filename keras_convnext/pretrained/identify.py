"""Which network a set of weights belongs to, told by names and shapes alone."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from keras_convnext.complexity import parts
from keras_convnext.pretrained.checkpoint import open_checkpoint
from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.layouts import HEAD_KERNEL, STEM_KERNEL, Place
from keras_convnext.variants import VARIANTS, Variant

Shapes = Mapping[Place, tuple[int, ...]]

# Of a variant; the rest is how it starts, and what images it takes.
TOLD_BY_SHAPES = ("depths", "dims", "patch_size", "kernel_size", "isotropic")


class Identity(NamedTuple):
    """What a checkpoint is of.

    Args:
        variant: Variant. Named "convnext" if it is none of the published networks.
        classes: int or None. None if it has no head.
    """

    variant: Variant
    classes: int | None


def identify(path: str | Path, entry: str | None = None) -> Identity:
    """Tells which network a checkpoint belongs to, without reading its numbers.

    Example:

    ```python
    identify("convnext_base_22k_224.pth")  # variant convnext_base, 21841 classes
    ```

    Args:
        path: str or path. A `.pth`, `.safetensors` or HDF5 file in any of the layouts.
        entry: str or None. Which dict of tensors of a `.pth` to take, as in `load_checkpoint`.

    Raises:
        CheckpointError: If the file is damaged or is no ConvNeXt.
        FileNotFoundError: If there is no such file.
    """
    shapes = {place: source.shape for place, source in open_checkpoint(path, entry).items()}
    variant = network_of(shapes)
    if variant is None:
        raise CheckpointError(f"The checkpoint lacks whole parts of a ConvNeXt (file: {path})")
    return Identity(variant, shapes[HEAD_KERNEL][-1] if HEAD_KERNEL in shapes else None)


def check_network(path: str | Path, model: str, classes: int | None) -> int:
    """Checks, by names and shapes, that a checkpoint holds all the weights of a network.

    Args:
        path: str or path. A checkpoint in any of the layouts.
        model: str. The network it should be of, as `VARIANTS` names it.
        classes: int or None. How many it should have; None for a trunk without a classifier.

    Returns:
        The number of parameters.

    Raises:
        CheckpointError: If it does not.
    """
    variant, found = identify(path)
    if (variant.name, found) != (model, classes):
        raise CheckpointError(
            f"It should be {model} with {classes or 'no'} classes and is {variant.name} with "
            f"{found or 'no'} (file: {path})"
        )
    theirs = sum(math.prod(source.shape) for source in open_checkpoint(path).values())
    ours = sum(part.parameters for part in parts(VARIANTS[model], classes=classes or 0))
    if theirs != ours:
        raise CheckpointError(
            f"{model} has {ours:,} parameters and this checkpoint {theirs:,} (file: {path})"
        )
    return theirs


def network_of(shapes: Shapes) -> Variant | None:
    """Tells the network that has weights of these shapes, if that can be told."""
    depths: dict[int, int] = {}
    dims: dict[int, int] = {}
    kernel_size, has_layer_scale = None, False
    for place, shape in shapes.items():
        match = re.fullmatch(r"(?:stages_(\d+)_)?blocks_(\d+)(?:/(\w+))?", place.layer)
        if match:
            stage = int(match[1] or 0)
            depths[stage] = max(depths.get(stage, 0), int(match[2]) + 1)
            if (match[3], place.variable) == ("dwconv", "kernel"):
                kernel_size, dims[stage] = shape[0], shape[2]
            has_layer_scale |= match[3] is None
    stem = shapes.get(STEM_KERNEL)
    if stem is None or kernel_size is None or sorted(depths) != list(range(len(dims))):
        return None
    found = Variant(
        "",
        tuple(depths[stage] for stage in sorted(depths)),
        tuple(dims[stage] for stage in sorted(dims)),
        1e-6 if has_layer_scale else None,
        stem[0],
        kernel_size,
        isotropic=any(place.layer.startswith("blocks_") for place in shapes),
    )
    name = next((v.name for v in VARIANTS.values() if _same_network(v, found)), "convnext")
    return found._replace(name=name)


def _same_network(one: Variant, other: Variant) -> bool:
    return all(getattr(one, field) == getattr(other, field) for field in TOLD_BY_SHAPES)


def check_same_network(theirs: Shapes, ours: Shapes, model_name: str) -> None:
    """Compares the networks that two sets of weights belong to, as far as that can be told.

    Raises:
        CheckpointError: If they differ; the message names both, and what to do.
    """
    checkpoint, model = network_of(theirs), network_of(ours)
    if checkpoint is None or model is None:
        return
    if not _same_network(checkpoint, model):
        raise CheckpointError(
            f"This is a {_described(checkpoint)} checkpoint, and the model {model_name} is a "
            f"{_described(model)}: use the builder of the checkpoint's network"
        )
    if checkpoint.layer_scale is not None and model.layer_scale is None:
        raise CheckpointError(
            "The checkpoint has layer scale (gamma) and the model has not: build it with "
            "layer_scale_init_value=1e-6"
        )
    if checkpoint.layer_scale is None and model.layer_scale is not None:
        raise CheckpointError(
            "The checkpoint has no layer scale (gamma) and the model has: build it with "
            "layer_scale_init_value=None"
        )


def _described(variant: Variant) -> str:
    return (
        f"{variant.name} (depths {variant.depths}, dims {variant.dims}, patch "
        f"{variant.patch_size}, kernel {variant.kernel_size})"
    )
