"""Checks a weight file before it is used: its network and its numbers."""

from collections.abc import Iterable
from pathlib import Path

from keras_convnext.complexity import parts
from keras_convnext.pretrained.checkpoint import open_checkpoint
from keras_convnext.pretrained.dense_heads import heads_in
from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.identify import identify
from keras_convnext.variants import VARIANTS


def check_network(
    path: str | Path,
    model: str,
    classes: int | None,
    entry: str | None = None,
    prefix: str | None = None,
    ignore: str | Iterable[str] = (),
    *,
    parameters: int | None = None,
) -> int:
    """Checks by names and shapes that a checkpoint contains all weights of a network.

    Args:
        path: str or path. A checkpoint in any of the layouts.
        model: str. The expected network, as `Identity.name` has it.
        classes: int or None. The expected number of classes; None for a trunk without a classifier.
        entry: as in `identify`.
        prefix: as in `identify`.
        ignore: as in `identify`.
        parameters: int or None. The expected number of parameters. Defaults to None, for those of
            the classifier; those of a dense network are not known then.

    Returns:
        The number of parameters.

    Raises:
        CheckpointError: If the checkpoint is of another network or incomplete.
    """
    found = identify(path, entry, prefix, ignore)
    if (found.name, found.classes) != (model, classes):
        raise CheckpointError(
            f"Expected {model} with {classes or 'no'} classes. Received: {found.name} with "
            f"{found.classes or 'no'} classes (file: {path})"
        )
    if parameters is None and not found.head:
        network = VARIANTS.get(model, found.variant)
        parameters = sum(part.parameters for part in parts(network, classes=classes or 0))
        if network.grn and classes is None and not found.has_norm:
            parameters -= 2 * network.dims[-1]  # pre-trained encoders have no final norm
    if parameters not in (None, found.parameters):
        raise CheckpointError(
            f"{model} has {parameters:,} parameters. Received: a checkpoint with "
            f"{found.parameters:,} (file: {path})"
        )
    return found.parameters


def check_numbers(
    path: str | Path,
    entry: str | None = None,
    prefix: str | None = None,
    ignore: str | Iterable[str] = (),
) -> None:
    """Verifies all tensors of a checkpoint; the arguments are those of `open_checkpoint`.

    Raises:
        CheckpointError: If a checksum does not match or a value is not finite; the message names
            the file.
    """
    checkpoint = open_checkpoint(path, entry, prefix, ignore)
    heads = heads_in(checkpoint)
    try:
        for source in (*checkpoint.sources.values(), *heads.sources.values()):
            source.check("float32")
    except CheckpointError as error:
        raise CheckpointError(f"{error} (file: {path})") from error
