"""Reads and writes the weights of segmenters."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras

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
from keras_convnext.pretrained.model_weights import Progress, variables_of
from keras_convnext.printable import printable

_LAST = ("classifier", "auxiliary_classifier")


def head_variables(model: keras.Model) -> dict[Place, Any]:
    """Returns the weights outside of the trunk, by their places."""
    prefix = _prefix_of(model)
    trunk = {id(variable) for variable in variables_of(model).values()}
    return {
        Place(layer.name.removeprefix(prefix), name): variable
        for layer in model.layers
        for name in VARIABLES
        if (variable := getattr(layer, name, None)) is not None and id(variable) not in trunk
    }


def classes_in(path: str | Path) -> int | None:
    """Returns the number of classes of the UperNet in a file, or None without one."""
    found = identify(path)
    return found.classes if found.head == "upernet" else None


def is_segmenter(model: keras.Model) -> bool:
    """Whether a model was made by `UperNet`."""
    return len(_bottlenecks(model)) == 1


def _bottlenecks(model: keras.Model) -> list[str]:
    return [layer.name for layer in model.layers if layer.name.endswith("fpn_bottleneck_conv")]


def _prefix_of(model: keras.Model) -> str:
    names = _bottlenecks(model)
    if len(names) != 1:
        raise ValueError(f"The model must be a UperNet. Received: {printable(model.name)}")
    return names[0].removesuffix("fpn_bottleneck_conv")


def load_segmenter_weights(
    model: keras.Model,
    path: str | Path,
    entry: str | None = None,
    progress: Progress = iter,
    *,
    prefix: str | None = None,
    ignore: str | Iterable[str] = (),
) -> None:
    """Loads a published or own checkpoint into a UperNet. PyTorch is not required.

    The layouts are those of the official code, mmsegmentation and transformers. A file of a
    classifier, such as the official ones for ImageNet, initializes the trunk; a notice says that
    norms and heads are unchanged. For another number of classes, everything except the last layers
    is loaded.

    Args:
        model: keras.Model. Made by `UperNet`.
        path: str or path. As in `load_checkpoint`.
        entry: str or None. As in `load_checkpoint`.
        progress: function. As in `load_checkpoint`.
        prefix: str or None. As in `load_checkpoint`.
        ignore: str or iterable of str. As in `load_checkpoint`.

    Raises:
        CheckpointError: If the file is damaged or of another network. The model is then unchanged.
        FileNotFoundError: If the file does not exist.
    """
    load_dense(_dense(model), path, entry, progress, prefix, ignore)


def _dense(model: keras.Model) -> DenseModel:
    return DenseModel("upernet", model, head_variables, _unlike)


def _unlike(heads: Weights, own: dict[Place, Any]) -> list[str]:
    """Removes from `own` what the file cannot fill; returns notices about it."""
    notices = []
    theirs, ours = (classes_of("upernet", each) for each in (heads, own))
    if theirs != ours:
        notices.append(
            f"The checkpoint has {theirs} classes, but the model has {ours}: everything except "
            "the last layers was loaded"
        )
        for place in [place for place in own if place.layer in _LAST]:
            del own[place]
    if not any(place.layer.startswith("auxiliary") for place in heads):
        auxiliary = [place for place in own if place.layer.startswith("auxiliary")]
        if auxiliary:
            notices.append("The checkpoint has no auxiliary head: the model's is unchanged")
        for place in auxiliary:
            del own[place]
    return notices


def save_segmenter_weights(
    model: keras.Model,
    path: str | Path,
    layout: str = "official",
    dtype: str | None = None,
    progress: Progress = iter,
) -> None:
    """Saves the weights of a UperNet as a checkpoint for other programs.

    Args:
        model: keras.Model. Made by `UperNet`.
        path: str or path. The file to write: safetensors if it ends in `.safetensors`, and else a
            PyTorch file.
        layout: str. "official" and "openmmlab", for the official code and mmsegmentation (their
            tensors are in `state_dict` of a PyTorch file), or "transformers". Defaults to
            "official".
        dtype: str or None. As in `save_checkpoint`.
        progress: function. As in `load_checkpoint`.

    Raises:
        CheckpointError: If the model is quantized, or a weight is too large for `dtype`.
        ValueError: If the layout or dtype is unknown, the model is not a UperNet, or `path` is that
            of an HDF5 file.
        OSError: If the file cannot be written; no partial file remains.
    """
    save_dense(_dense(model), path, layout, dtype, progress)


def segmenter_keys(
    model: keras.Model, layout: str = "official"
) -> dict[Place, tuple[str, tuple[int, ...]]]:
    """Returns the key and shape with which `save_segmenter_weights` writes each weight.

    Raises:
        ValueError: If the layout is unknown.
    """
    return dense_keys(_dense(model), layout)
