"""Finds the heads of dense networks in an open checkpoint, and names them in a new one."""

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from keras_convnext.pretrained.checkpoint import OpenCheckpoint
from keras_convnext.pretrained.dense_layouts import (
    CASCADE_MASK_RCNN,
    MASK_RCNN,
    ROTATED_GFL_RETINANET,
    ROTATED_RETINANET,
    UPERNET,
)
from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.keras_file import SUFFIX, read_config
from keras_convnext.pretrained.layouts import LAYOUTS, Place, Row
from keras_convnext.pretrained.names import MAX_KEY, Form, form_of, place_of, unwrapped
from keras_convnext.pretrained.source import Source, source_of
from keras_convnext.pretrained.trunks import listed

BACKBONE = "backbone."
COUNTER = "num_batches_tracked"  # of PyTorch's batch norm, for an option that is not used
_STATISTICS = ("moving_mean", "moving_variance")
_MOST = 500  # tensors; the heads of Cascade Mask R-CNN have 144


class Head(NamedTuple):
    """A kind of dense heads.

    Args:
        title: str. Name for messages.
        task: str. Name of the task.
        modules: tuple of str. Beginnings of names in PyTorch files; the first one is in no other
            network.
        tables: dict from layouts of the trunk to tables.
        classifier: Place. The last layer.
        background: int. Classes of the last layer that are not classes of the network.
        keras_layer: str. End of the name of a layer in `.keras` files.
        anchors: int. Anchors at each position, for each of which the last layer has all classes.
        buffers: dict from names in PyTorch files to values. Of buffers that are constants.
    """

    title: str
    task: str
    modules: tuple[str, ...]
    tables: Mapping[str, tuple[Row, ...]]
    classifier: Place
    background: int
    keras_layer: str
    anchors: int = 1
    buffers: Mapping[str, tuple[float, ...]] = {}


def _bins(first: float, last: float) -> tuple[float, ...]:
    return tuple(first + (last - first) * index / 8 for index in range(9))


_DETECTOR = ("neck.", "rpn_head.", "roi_head.")
HEADS = {
    "upernet": Head(
        "UperNet", "segmentation", ("decode_head.", "auxiliary_head."), UPERNET,
        Place("classifier", "kernel"), 0, "fpn_bottleneck_conv",
    ),
    "cascade_mask_rcnn": Head(
        "Cascade Mask R-CNN", "detection", ("roi_head.bbox_head.0.", *_DETECTOR),
        CASCADE_MASK_RCNN, Place("box_head_0/classifier", "kernel"), 1, "box_head_0",
    ),
    "mask_rcnn": Head(
        "Mask R-CNN", "detection", ("roi_head.bbox_head.", *_DETECTOR),
        MASK_RCNN, Place("box_head/classifier", "kernel"), 1, "box_head",
    ),
    "rotated_retinanet": Head(
        "rotated RetinaNet", "detection.rotated", ("bbox_head.retina_", "neck.", "bbox_head."),
        ROTATED_RETINANET, Place("rotated_head/classifier", "kernel"), 0, "rotated_head",
        anchors=9,
    ),
    "rotated_gfl_retinanet": Head(
        "rotated RetinaNet with expectations", "detection.rotated",
        ("bbox_head.gfl_", "neck.", "bbox_head."), ROTATED_GFL_RETINANET,
        Place("expectation_head/classifier", "kernel"), 0, "expectation_head",
        buffers={
            "bbox_head.integral.project": _bins(-2, 2),
            "bbox_head.integral_angle.project": _bins(-5, 2),
        },
    ),
}  # fmt: skip


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
        return classes_of(self.name, self.sources) if self.name else None

    @property
    def parameters(self) -> int:
        """Number of trainable weights."""
        return sum(
            math.prod(source.shape)
            for place, source in self.sources.items()
            if place.variable not in _STATISTICS
        )


def classes_of(name: str, tensors: Mapping[Place, Any]) -> int | None:
    """Returns the number of classes of heads, or None without their last layer."""
    head = HEADS[name]
    last = tensors.get(head.classifier)
    return None if last is None else last.shape[-1] // head.anchors - head.background


def heads_in(checkpoint: OpenCheckpoint) -> Heads:
    """Returns the dense heads in an open checkpoint, and the norms below them.

    Raises:
        CheckpointError: If they have unknown tensors; the message names the file.
    """
    try:
        return _heads_in(checkpoint)
    except CheckpointError as error:
        path = next(iter(checkpoint.tensors.values())).path
        raise CheckpointError(f"{error} (file: {path})") from error


def _heads_in(checkpoint: OpenCheckpoint) -> Heads:
    before = checkpoint.prefix.removesuffix("convnext.").removesuffix(BACKBONE)
    names = {
        key: name.removeprefix(before)
        for key in checkpoint.tensors
        if len(key) <= MAX_KEY and (name := unwrapped(key)).startswith(before)
    }
    for kind, head in HEADS.items():
        if any(name.startswith(head.modules[:1]) for name in names.values()):
            own = {key: name for key, name in names.items() if _is_of_head(name, kind)}
            if len(own) > _MOST:
                raise CheckpointError(
                    f"The heads of {head.title} have at most {_MOST} tensors. "
                    f"Received: {len(own):,}"
                )
            return Heads(kind, _placed(checkpoint, own, head))
    return Heads()


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
        for kind, head in HEADS.items():
            if isinstance(name, str) and name.endswith(head.keras_layer):
                return kind
    return ""


def is_constant(name: str, kind: str) -> bool:
    """Whether a tensor in a PyTorch file is a counter, or a buffer of heads of this kind."""
    return name.endswith((COUNTER, *HEADS[kind].buffers))


def _is_of_head(name: str, kind: str) -> bool:
    norms = ("backbone.norm", "backbone.hidden_states_norms.")
    return name.startswith((*HEADS[kind].modules, *norms)) and not is_constant(name, kind)


def _placed(
    checkpoint: OpenCheckpoint, names: Mapping[str, str], head: Head
) -> dict[Place, Source]:
    table = head.tables.get(checkpoint.layout, ())
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
                f"{key} has {len(form.axes)} axes in {head.title}. "
                f"Received: shape={checkpoint.tensors[key].shape}"
            )
        if place in sources:
            raise CheckpointError(f"{sources[place].key} and {key} name the same tensor")
        sources[place] = source
    if unknown:
        raise CheckpointError(
            f"The heads in the file contain unknown tensors: {listed(unknown)}. Use a file of "
            f"an unmodified {head.title}, or skip them with ignore="
        )
    return sources


def dense_forms(
    name: str, trunk: Collection[Place], heads: Collection[Place], layout: str
) -> dict[Place, Form]:
    """Returns how a layout stores each of the weights.

    Args:
        name: str. One of `HEADS`.
        trunk: places of the trunk.
        heads: places of the heads and the norms below them.
        layout: str. A key of the tables of the head.

    Raises:
        CheckpointError: If the layout has no name for one of them.
    """
    forms = {}
    for table, places in ((LAYOUTS[layout], trunk), (HEADS[name].tables[layout], heads)):
        for place in places:
            form = form_of(place, table, "")
            if form is None:
                raise CheckpointError(f"The layout {layout} has no name for {'/'.join(place)}")
            forms[place] = form
    for place in trunk:
        name = forms[place].key.removeprefix(BACKBONE).removeprefix("convnext.")
        forms[place] = forms[place]._replace(key=f"{BACKBONE}{name}")
    return forms
