"""Which network a file of weights is of, told by names and shapes alone."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from keras_convnext.complexity import parts
from keras_convnext.pretrained.checkpoint import OpenCheckpoint, open_checkpoint
from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.layouts import STEM_KERNEL
from keras_convnext.pretrained.networks import parameters_of
from keras_convnext.variants import VARIANTS, Variant


class Identity(NamedTuple):
    """What a checkpoint is of.

    Args:
        variant: Variant. Named "convnext" if it is none of the published networks. Its
            `layer_scale` is None without layer scale, and its `epsilon` that of the norms.
        classes: int or None. None if it has no head.
        channels: int. Of the images.
        parameters: int.
        has_norm: bool. Whether it has the last norm.
        layout: str. Of the names of its tensors, as in `LAYOUTS`.
        entry: str. The dict of tensors that it is in, "" if that is the file.
        prefix: str. What precedes the names of its tensors.
        ignored: tuple of str. The other tensors in the file.
        size: int or None. Side of the images that it was trained with, in pixels, if the file, its
            metadata or a `config.json` beside it records that.
    """

    variant: Variant
    classes: int | None
    channels: int = 3
    parameters: int = 0
    has_norm: bool = True
    layout: str = ""
    entry: str = ""
    prefix: str = ""
    ignored: tuple[str, ...] = ()
    size: int | None = None


def identify(
    path: str | Path,
    entry: str | None = None,
    prefix: str | None = None,
    ignore: str | Iterable[str] = (),
) -> Identity:
    """Tells which network a checkpoint belongs to, without reading its numbers.

    Example:

    ```python
    identify("convnext_base_22k_224.pth")  # variant convnext_base, 21841 classes
    ```

    Args:
        path: str or path. A `.pth`, `.safetensors` or HDF5 file in any of the layouts.
        entry: str or None. Which dict of tensors of a `.pth` to take, as in `load_checkpoint`.
        prefix: str or None. As in `load_checkpoint`.
        ignore: str or iterable of str. As in `load_checkpoint`.

    Raises:
        CheckpointError: If the file is damaged, or holds no ConvNeXt, or several.
        FileNotFoundError: If there is no such file.
    """
    return identity_of(open_checkpoint(path, entry, prefix, ignore))


def identity_of(checkpoint: OpenCheckpoint) -> Identity:
    """Tells which network an open checkpoint belongs to."""
    shapes = {place: source.shape for place, source in checkpoint.sources.items()}
    return Identity(
        checkpoint.network,
        checkpoint.classes,
        shapes[STEM_KERNEL][2],
        parameters_of(shapes),
        any(place.layer == "norm" for place in shapes),
        checkpoint.layout,
        checkpoint.entry,
        checkpoint.prefix,
        checkpoint.ignored,
        checkpoint.size,
    )


def check_network(
    path: str | Path,
    model: str,
    classes: int | None,
    entry: str | None = None,
    prefix: str | None = None,
    ignore: str | Iterable[str] = (),
) -> int:
    """Checks, by names and shapes, that a checkpoint holds all the weights of a network.

    Args:
        path: str or path. A checkpoint in any of the layouts.
        model: str. The network it should be of, as `VARIANTS` names it.
        classes: int or None. How many it should have; None for a trunk without a classifier.
        entry: as in `identify`.
        prefix: as in `identify`.
        ignore: as in `identify`.

    Returns:
        The number of parameters.

    Raises:
        CheckpointError: If it does not.
    """
    found = identify(path, entry, prefix, ignore)
    if (found.variant.name, found.classes) != (model, classes):
        raise CheckpointError(
            f"It should be {model} with {classes or 'no'} classes and is {found.variant.name} with "
            f"{found.classes or 'no'} (file: {path})"
        )
    ours = sum(
        part.parameters for part in parts(VARIANTS.get(model, found.variant), classes=classes or 0)
    )
    if found.parameters != ours:
        raise CheckpointError(
            f"{model} has {ours:,} parameters and this checkpoint {found.parameters:,} "
            f"(file: {path})"
        )
    return found.parameters
