"""Finds the heads of a segmenter in an open checkpoint, and names them in a new one."""

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

from keras_convnext.pretrained.checkpoint import OpenCheckpoint
from keras_convnext.pretrained.dense_layouts import UPERNET
from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.keras_file import SUFFIX, read_config
from keras_convnext.pretrained.layouts import LAYOUTS, Place, Row
from keras_convnext.pretrained.names import MAX_KEY, Form, form_of, place_of, unwrapped
from keras_convnext.pretrained.source import Source, source_of
from keras_convnext.pretrained.trunks import listed

BACKBONE = "backbone."
CLASSIFIER = Place("classifier", "kernel")
MODULES = ("decode_head.", "auxiliary_head.")
COUNTER = "num_batches_tracked"  # of PyTorch's batch norm, for an option that is not used
HEADS = {"upernet": "segmentation"}  # by name, the task
# Ends of the names of layers in `.keras` files, and the heads that they belong to.
_KERAS_LAYERS = {"fpn_bottleneck_conv": "upernet"}
_STATISTICS = ("moving_mean", "moving_variance")
_MOST = 500  # tensors; UperNet's heads have 74


class Heads(NamedTuple):
    """The dense heads in a checkpoint, and the norms below them.

    Args:
        name: str. One of `HEADS`, or "" without heads.
        sources: dict from places to tensors.
    """

    name: str = ""
    sources: Mapping[Place, Source] = {}

    @property
    def classes(self) -> int | None:
        """Number of classes, or None without the last layer."""
        return self.sources[CLASSIFIER].shape[-1] if CLASSIFIER in self.sources else None

    @property
    def parameters(self) -> int:
        """Number of trainable weights."""
        return sum(
            math.prod(source.shape)
            for place, source in self.sources.items()
            if place.variable not in _STATISTICS
        )


def heads_in(checkpoint: OpenCheckpoint) -> Heads:
    """Returns the dense heads in an open checkpoint.

    Raises:
        CheckpointError: If they have unknown tensors.
    """
    found = segmenter_of(checkpoint)
    return Heads("upernet", found) if found else Heads()


def head_in_keras(path: str | Path) -> str:
    """Returns the name of the dense head in a `.keras` file, or "" for other models and files.

    Raises:
        CheckpointError: If the file is damaged.
    """
    if Path(path).suffix != SUFFIX:
        return ""
    own = read_config(path).get("config")
    layers = own.get("layers") if isinstance(own, dict) else None
    for layer in layers if isinstance(layers, list) else ():
        name = layer.get("name") if isinstance(layer, dict) else None
        for end, head in _KERAS_LAYERS.items():
            if isinstance(name, str) and name.endswith(end):
                return head
    return ""


def segmenter_of(checkpoint: OpenCheckpoint) -> Mapping[Place, Source]:
    """Returns the heads of UperNet and the norms below them, by their places; empty without them.

    Raises:
        CheckpointError: If the file has other tensors in the heads.
    """
    before = checkpoint.prefix.removesuffix("convnext.").removesuffix(BACKBONE)
    names = {
        key: name.removeprefix(before)
        for key in checkpoint.tensors
        if len(key) <= MAX_KEY and (name := unwrapped(key)).startswith(before)
    }
    names = {key: name for key, name in names.items() if _is_of_head(name)}
    if not any(name.startswith(MODULES) for name in names.values()):
        return {}
    if len(names) > _MOST:
        raise CheckpointError(
            f"The heads of UperNet have at most {_MOST} tensors. Received: {len(names):,}"
        )
    return _placed(checkpoint, names, UPERNET.get(checkpoint.layout, ()))


def _is_of_head(name: str) -> bool:
    norms = ("backbone.norm", "backbone.hidden_states_norms.")
    return name.startswith((*MODULES, *norms)) and not name.endswith(COUNTER)


def _placed(
    checkpoint: OpenCheckpoint, names: Mapping[str, str], table: tuple[Row, ...]
) -> dict[Place, Source]:
    sources: dict[Place, Source] = {}
    unknown = []
    for key, name in names.items():
        found = place_of(name, table)
        if found is None:
            unknown.append(key)
            continue
        place, form = found
        source = source_of(form._replace(key=key), checkpoint.tensors[key])
        if source is None:
            raise CheckpointError(
                f"{key} has {len(form.axes)} axes in UperNet. "
                f"Received: shape={checkpoint.tensors[key].shape}"
            )
        if place in sources:
            raise CheckpointError(f"{sources[place].key} and {key} name the same tensor")
        sources[place] = source
    if unknown:
        raise CheckpointError(
            f"The heads in the file contain unknown tensors: {listed(unknown)}. Use a file of "
            "an unmodified UperNet, or skip them with ignore="
        )
    return sources


def segmenter_forms(
    trunk: Collection[Place], heads: Collection[Place], layout: str
) -> dict[Place, Form]:
    """Returns how a layout stores each of the weights.

    Args:
        trunk: places of the trunk.
        heads: places of the heads and the norms below them.
        layout: str. One of `UPERNET`.

    Raises:
        CheckpointError: If the layout has no name for one of them.
    """
    forms = {}
    for table, places in ((LAYOUTS[layout], trunk), (UPERNET[layout], heads)):
        for place in places:
            form = form_of(place, table, "")
            if form is None:
                raise CheckpointError(f"The layout {layout} has no name for {'/'.join(place)}")
            forms[place] = form
    for place in trunk:
        name = forms[place].key.removeprefix(BACKBONE).removeprefix("convnext.")
        forms[place] = forms[place]._replace(key=f"{BACKBONE}{name}")
    return forms
