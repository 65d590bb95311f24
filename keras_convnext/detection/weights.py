"""Reads and writes the weights of detectors."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras

from keras_convnext.detection.layers import BoxHead, FeaturePyramid, MaskHead, ProposalHead
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

_HEADS = (FeaturePyramid, ProposalHead, BoxHead, MaskHead)


def kind_of(model: keras.Model) -> str:
    """Returns "mask_rcnn" or "cascade_mask_rcnn", or "" for other models."""
    names = {layer.name for layer in model.layers if isinstance(layer, BoxHead)}
    kinds = {"box_head": "mask_rcnn", "box_head_0": "cascade_mask_rcnn"}
    return next((kind for name, kind in kinds.items() if name in names), "")


def is_detector(model: keras.Model) -> bool:
    """Whether a model was made by `MaskRCNN` or `CascadeMaskRCNN`."""
    return kind_of(model) != ""


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
    found = [layer.classes for layer in model.layers if isinstance(layer, BoxHead)]
    if not found:
        raise ValueError(
            f"The model must be a MaskRCNN or CascadeMaskRCNN. Received: {printable(model.name)}"
        )
    return found[0]


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
        model: keras.Model. Made by `MaskRCNN` or `CascadeMaskRCNN`.
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
        model: keras.Model. Made by `MaskRCNN` or `CascadeMaskRCNN`.
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
        raise ValueError(
            f"The model must be a MaskRCNN or CascadeMaskRCNN. Received: {printable(model.name)}"
        )

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
        if not any(place.layer.startswith("mask_head") for place in heads) and _remove(
            own, "mask_head", ("",)
        ):
            notices.append("The checkpoint has no mask head: the model's is unchanged")
        return notices

    return DenseModel(kind, model, head_variables, unlike)


def _remove(own: dict[Place, Any], start: str, ends: tuple[str, ...]) -> bool:
    """Removes the places of some layers; returns whether there were any."""
    gone = [p for p in own if p.layer.startswith(start) and p.layer.endswith(ends)]
    for place in gone:
        del own[place]
    return bool(gone)
