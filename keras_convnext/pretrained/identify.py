"""Identifies the network in a weight file from names and shapes alone."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from keras_convnext.pretrained.checkpoint import OpenCheckpoint, open_checkpoint
from keras_convnext.pretrained.dense_heads import HEADS, head_in_keras, heads_in, is_constant
from keras_convnext.pretrained.hub_files import local_source
from keras_convnext.pretrained.keras_file import SUFFIX
from keras_convnext.pretrained.layouts import STEM_KERNEL
from keras_convnext.pretrained.networks import parameters_of
from keras_convnext.pretrained.record import read_record
from keras_convnext.variants import Variant


class Identity(NamedTuple):
    """The network in a checkpoint.

    Args:
        variant: Variant. The ConvNeXt, named "convnext" if it is not a published network. Its
            `layer_scale` is None without layer scale, and its `epsilon` is that of the norms.
        classes: int or None. Number of classes, or None without a head.
        channels: int. Number of image channels.
        parameters: int. Number of parameters.
        has_norm: bool. Whether it has the final norm.
        head: str. Name of the head of a dense network, such as "upernet", or "" for a classifier.
        layout: str. Naming scheme of its tensors, a key of `LAYOUTS`.
        entry: str. The dict of tensors that contains it, or "" for the top level of the file.
        prefix: str. Prefix of its tensor names.
        ignored: tuple of str. The other tensors in the file.
        size: int or None. Side of the training images in pixels, if it is recorded in the file, its
            metadata or a `config.json` in the same folder.
        task: str. Name of the task that the file was trained for, if it records one or has a dense
            head, or "".
        class_names: tuple of str. Names of the classes, if the file records them.
        preprocessing: dict. How images were prepared, if the file records it.
    """

    variant: Variant
    classes: int | None
    channels: int = 3
    parameters: int = 0
    has_norm: bool = True
    head: str = ""
    layout: str = ""
    entry: str = ""
    prefix: str = ""
    ignored: tuple[str, ...] = ()
    size: int | None = None
    task: str = ""
    class_names: tuple[str, ...] = ()
    preprocessing: Mapping[str, Any] = {}

    @property
    def name(self) -> str:
        """Name of the network: that of the ConvNeXt, after that of a dense head."""
        return "_".join(filter(None, (self.head, self.variant.name)))


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
    path = local_source(path)
    record = read_record(path)
    if head := head_in_keras(path):
        from keras_convnext.pretrained.keras_dense import identity_of_model  # which imports Keras

        found = identity_of_model(path, head)
    else:
        found = identity_of(open_checkpoint(path, entry, prefix, ignore))
    return found._replace(
        task=record.task or found.task,
        class_names=record.classes,
        preprocessing=record.preprocessing,
    )


def head_of_file(
    path: str | Path,
    entry: str | None = None,
    prefix: str | None = None,
    ignore: str | Iterable[str] = (),
) -> str:
    """Returns the name of the dense head in a weight file, or "" for other networks.

    Args and errors are those of `identify`, except that a `.keras` file may contain any model.
    """
    if Path(path).suffix == SUFFIX:
        return head_in_keras(path)
    return identify(path, entry, prefix, ignore).head


def identity_of(checkpoint: OpenCheckpoint) -> Identity:
    """Returns the identity of an open checkpoint."""
    shapes = {place: source.shape for place, source in checkpoint.sources.items()}
    heads = heads_in(checkpoint)
    own = {source.key for source in heads.sources.values()}
    return Identity(
        checkpoint.network,
        heads.classes if heads.name else checkpoint.classes,
        shapes[STEM_KERNEL][2],
        parameters_of(shapes) + heads.parameters,
        any(place.layer == "norm" for place in shapes),
        heads.name,
        checkpoint.layout,
        checkpoint.entry,
        checkpoint.prefix,
        tuple(
            key
            for key in checkpoint.ignored
            if key not in own and not (heads.name and is_constant(key, heads.name))
        ),
        checkpoint.size,
        HEADS[heads.name].task if heads.name else "",
    )
