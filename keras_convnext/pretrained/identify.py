"""Identifies the network in a weight file from names and shapes alone."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from keras_convnext.complexity import parts
from keras_convnext.pretrained.checkpoint import OpenCheckpoint, open_checkpoint
from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.layouts import STEM_KERNEL
from keras_convnext.pretrained.networks import parameters_of
from keras_convnext.pretrained.record import read_record
from keras_convnext.variants import VARIANTS, Variant


class Identity(NamedTuple):
    """The network in a checkpoint.

    Args:
        variant: Variant. Named "convnext" if it is not a published network. Its `layer_scale` is
            None without layer scale, and its `epsilon` is that of the norms.
        classes: int or None. Number of classes, or None without a head.
        channels: int. Number of image channels.
        parameters: int. Number of parameters.
        has_norm: bool. Whether it has the final norm.
        layout: str. Naming scheme of its tensors, a key of `LAYOUTS`.
        entry: str. The dict of tensors that contains it, or "" for the top level of the file.
        prefix: str. Prefix of its tensor names.
        ignored: tuple of str. The other tensors in the file.
        size: int or None. Side of the training images in pixels, if it is recorded in the file, its
            metadata or a `config.json` in the same folder.
        task: str. Name of the task that the file was trained for, or "" if it records none.
        class_names: tuple of str. Names of the classes, if the file records them.
        preprocessing: dict. How images were prepared, if the file records it.
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
    task: str = ""
    class_names: tuple[str, ...] = ()
    preprocessing: Mapping[str, Any] = {}


def identify(
    path: str | Path,
    entry: str | None = None,
    prefix: str | None = None,
    ignore: str | Iterable[str] = (),
) -> Identity:
    """Identifies the network in a checkpoint without reading its tensors.

    Example:

    ```python
    identify("convnext_base_22k_224.pth")  # variant convnext_base, 21841 classes
    ```

    Args:
        path: str or path. A checkpoint in any of the layouts, as in `load_checkpoint`.
        entry: str or None. As in `load_checkpoint`.
        prefix: str or None. As in `load_checkpoint`.
        ignore: str or iterable of str. As in `load_checkpoint`.

    Returns:
        An `Identity`.

    Raises:
        CheckpointError: If the file is damaged, or contains no ConvNeXt or several.
        FileNotFoundError: If the file does not exist.
    """
    record = read_record(path)
    return identity_of(open_checkpoint(path, entry, prefix, ignore))._replace(
        task=record.task, class_names=record.classes, preprocessing=record.preprocessing
    )


def identity_of(checkpoint: OpenCheckpoint) -> Identity:
    """Returns the identity of an open checkpoint."""
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
    """Checks by names and shapes that a checkpoint contains all weights of a network.

    Args:
        path: str or path. A checkpoint in any of the layouts.
        model: str. The expected network, a key of `VARIANTS`.
        classes: int or None. The expected number of classes; None for a trunk without a classifier.
        entry: as in `identify`.
        prefix: as in `identify`.
        ignore: as in `identify`.

    Returns:
        The number of parameters.

    Raises:
        CheckpointError: If the checkpoint is of another network or incomplete.
    """
    found = identify(path, entry, prefix, ignore)
    if (found.variant.name, found.classes) != (model, classes):
        raise CheckpointError(
            f"Expected {model} with {classes or 'no'} classes. Received: {found.variant.name} with "
            f"{found.classes or 'no'} classes (file: {path})"
        )
    ours = sum(
        part.parameters for part in parts(VARIANTS.get(model, found.variant), classes=classes or 0)
    )
    if found.parameters != ours:
        raise CheckpointError(
            f"{model} has {ours:,} parameters. Received: a checkpoint with {found.parameters:,} "
            f"(file: {path})"
        )
    return found.parameters
