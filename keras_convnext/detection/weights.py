"""Reads and writes the weights of detectors."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras

from keras_convnext.detection.layers import BoxHead, FeaturePyramid, MaskHead, ProposalHead
from keras_convnext.detection.rotated.layers import RotatedHead
from keras_convnext.pretrained.dense_heads import classes_of
from keras_convnext.pretrained.dense_weights import (
    VARIABLES,
    DenseModel,
    Weights,
    dense_keys,
    load_dense,
    save_dense,
)
from keras_convnext.pretrained.identify import identify
from keras_convnext.pretrained.layouts import Place
from keras_convnext.pretrained.model_weights import Progress
from keras_convnext.printable import printable

_HEADS = (FeaturePyramid, ProposalHead, BoxHead, MaskHead, RotatedHead)
_LAYERS = {  # by the kind of detector, one that no other kind has
    "box_head": "mask_rcnn",
    "box_head_0": "cascade_mask_rcnn",
    "rotated_head": "rotated_retinanet",
    "expectation_head": "rotated_gfl_retinanet",
}


def kind_of(model: keras.Model) -> str:
    """Returns the kind of a detector, a key of `dense_heads.HEADS`, or "" for other models."""
    names = {layer.name for layer in model.layers if isinstance(layer, (BoxHead, RotatedHead))}
    return next((kind for name, kind in _LAYERS.items() if name in names), "")


def is_detector(model: keras.Model) -> bool:
    """Whether a model was made by a builder of detectors."""
    return kind_of(model) != ""


def is_rotated(model: keras.Model) -> bool:
    """Whether a model was made by `RotatedRetinaNet`."""
    return kind_of(model).startswith("rotated")


def head_variables(model: keras.Model) -> dict[Place, Any]:
    """Returns the weights outside of the trunk, by their places."""
    parts = {layer.name: layer for layer in model.layers if layer.name.startswith("norm_")}
    for layer in model.layers:
        if isinstance(layer, _HEADS):
            parts |= {f"{layer.name}/{part.name}": part for part in layer._layers}
    return {
        Place(name, variable): weight
        for name, part in parts.items()
        for variable in VARIABLES
        if (weight := getattr(part, variable, None)) is not None
    }


def classes_of_model(model: keras.Model) -> int:
    """Returns the number of classes of a detector.

    Raises:
        ValueError: If the model is not a detector.
    """
    found = [each.classes for each in model.layers if isinstance(each, (BoxHead, RotatedHead))]
    if not found:
        raise _not_a_detector(model)
    return found[0]


def _not_a_detector(model: keras.Model) -> ValueError:
    return ValueError(
        "The model must be a MaskRCNN, CascadeMaskRCNN or RotatedRetinaNet. "
        f"Received: {printable(model.name)}"
    )


def classes_in(path: str | Path, kind: str) -> int | None:
    """Returns the number of classes of the detector in a file, or None without one."""
    found = identify(path)
    return found.classes if found.head == kind else None


def load_detector_weights(
    model: keras.Model,
    path: str | Path,
    entry: str | None = None,
    progress: Progress = iter,
    *,
    prefix: str | None = None,
    ignore: str | Iterable[str] = (),
) -> None:
    """Loads a published or own checkpoint into a detector. PyTorch is not required.

    The layouts are those of the official code and of mmdetection. A file of a classifier, such as
    the official ones for ImageNet, or of another detector or segmenter initializes the trunk; a
    notice says that norms and heads are unchanged. For another number of classes, everything except
    the last layers is loaded.

    Args:
        model: keras.Model. Made by a builder of detectors.
        path: str or path. As in `load_checkpoint`.
        entry: str or None. As in `load_checkpoint`.
        progress: function. As in `load_checkpoint`.
        prefix: str or None. As in `load_checkpoint`.
        ignore: str or iterable of str. As in `load_checkpoint`.

    Raises:
        CheckpointError: If the file is damaged or of another network. The model is then unchanged.
        FileNotFoundError: If the file does not exist.
        ValueError: If the model is not a detector.
    """
    load_dense(_dense(model), path, entry, progress, prefix, ignore)


def save_detector_weights(
    model: keras.Model,
    path: str | Path,
    layout: str = "official",
    dtype: str | None = None,
    progress: Progress = iter,
) -> None:
    """Saves the weights of a detector as a checkpoint for other programs.

    Args:
        model: keras.Model. Made by a builder of detectors.
        path: str or path. The file to write: safetensors if it ends in `.safetensors`, and else a
            PyTorch file, with the tensors in `state_dict`.
        layout: str. "official" or "openmmlab", for the official code or mmdetection. Defaults to
            "official".
        dtype: str or None. As in `save_checkpoint`.
        progress: function. As in `load_checkpoint`.

    Raises:
        CheckpointError: If the model is quantized, or a weight is too large for `dtype`.
        ValueError: If the layout or dtype is unknown, the model is not a detector, or `path` is
            that of an HDF5 file.
        OSError: If the file cannot be written; no partial file remains.
    """
    save_dense(_dense(model), path, layout, dtype, progress)


def detector_keys(
    model: keras.Model, layout: str = "official"
) -> dict[Place, tuple[str, tuple[int, ...]]]:
    """Returns the key and shape with which `save_detector_weights` writes each weight.

    Raises:
        ValueError: If the layout is unknown.
    """
    return dense_keys(_dense(model), layout)


def _dense(model: keras.Model) -> DenseModel:
    kind = kind_of(model)
    if not kind:
        raise _not_a_detector(model)

    def unlike(heads: Weights, own: dict[Place, Any]) -> list[str]:
        notices = []
        theirs, ours = (classes_of(kind, each) for each in (heads, own))
        if theirs != ours:
            notices.append(
                f"The checkpoint has {theirs} classes, but the model has {ours}: everything except "
                "the last layers was loaded"
            )
            _remove(own, "box_head", ("/classifier", "/deltas"))
            _remove(own, "mask_head", ("/classifier",))
            _remove(own, ("rotated_head", "expectation_head"), ("/classifier",))
        has_masks = any(place.layer.startswith("mask_head") for place in heads)
        if not has_masks and _remove(own, "mask_head", ("",)):
            notices.append("The checkpoint has no mask head: the model's is unchanged")
        return notices

    return DenseModel(kind, model, head_variables, unlike)


def _remove(own: dict[Place, Any], start: str | tuple[str, ...], ends: tuple[str, ...]) -> bool:
    """Removes the places of some layers; returns whether there were any."""
    gone = [p for p in own if p.layer.startswith(start) and p.layer.endswith(ends)]
    for place in gone:
        del own[place]
    return bool(gone)
