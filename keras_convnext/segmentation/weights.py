"""Reads and writes the weights of segmenters."""

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_convnext.pretrained.checkpoint import open_checkpoint
from keras_convnext.pretrained.dense_heads import CLASSIFIER, COUNTER, heads_in, segmenter_forms
from keras_convnext.pretrained.dense_layouts import UPERNET
from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.h5_file import SUFFIXES
from keras_convnext.pretrained.identify import identify
from keras_convnext.pretrained.keras_dense import dense_model
from keras_convnext.pretrained.layouts import Place
from keras_convnext.pretrained.model_weights import Progress, variables_of
from keras_convnext.pretrained.names import Form
from keras_convnext.pretrained.networks import check_same_network
from keras_convnext.pretrained.notices import warn_user
from keras_convnext.pretrained.rewriting import check_dtype, tensors_of, write_tensors
from keras_convnext.pretrained.source import Source
from keras_convnext.pretrained.trunks import listed
from keras_convnext.pretrained.writing import shape_of_theirs
from keras_convnext.printable import printable

_VARIABLES = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")
_LAST = ("classifier", "auxiliary_classifier")


def head_variables(model: keras.Model) -> dict[Place, Any]:
    """Returns the weights outside of the trunk, by their places."""
    prefix = _prefix_of(model)
    trunk = {id(variable) for variable in variables_of(model).values()}
    return {
        Place(layer.name.removeprefix(prefix), name): variable
        for layer in model.layers
        for name in _VARIABLES
        if (variable := getattr(layer, name, None)) is not None and id(variable) not in trunk
    }


def classes_in(path: str | Path) -> int | None:
    """Returns the number of classes of the UperNet in a file, or None without one."""
    found = identify(path)
    return found.classes if found.head else None


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
    trunk, heads = _sources_in(path, entry, prefix, ignore)
    variables = variables_of(model)
    sources = {place: each for place, each in trunk.items() if place in variables}
    try:
        check_same_network(_shapes_of(sources), _shapes_of(variables), model.name)
        own = head_variables(model)
        notices = []
        if heads:
            notices = _unlike(heads, own)
            sources |= {place: source for place, source in heads.items() if place in own}
            variables |= own
        else:
            notices.append("The checkpoint has no UperNet: norms and heads are unchanged")
        _check(sources, variables)
        for place, source in sources.items():
            source.check(np.dtype(variables[place].dtype))
        for place, source in progress(list(sources.items())):
            variables[place].assign(source.read())
    except CheckpointError as error:
        raise CheckpointError(f"{error} (file: {path})") from error
    warn_user(notices, path)


class _Variable(NamedTuple):
    """A variable of another model, with the interface of `Source`."""

    key: str
    variable: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.variable.shape)

    def check(self, dtype: str) -> None:
        if not np.isfinite(self.read()).all():
            raise CheckpointError(f"{self.key} contains NaN or infinite values")

    def read(self) -> np.ndarray:
        return keras.ops.convert_to_numpy(self.variable)


def _sources_in(
    path: str | Path, entry: str | None, prefix: str | None, ignore: str | Iterable[str]
) -> tuple[Mapping[Place, Any], Mapping[Place, Any]]:
    """Returns the tensors of the trunk and of the heads in a file, as `Source`s."""
    if model := dense_model(path):
        trunk, heads = (
            {place: _Variable("/".join(place), variable) for place, variable in part.items()}
            for part in (variables_of(model), head_variables(model))
        )
        return trunk, heads
    checkpoint = open_checkpoint(path, entry, prefix, ignore)
    return checkpoint.sources, heads_in(checkpoint).sources


def _shapes_of(tensors: Mapping[Place, Any]) -> dict[Place, tuple[int, ...]]:
    return {place: tuple(tensor.shape) for place, tensor in tensors.items()}


def _unlike(heads: Mapping[Place, Source], own: dict[Place, Any]) -> list[str]:
    """Drops from `own` what the file cannot fill; returns notices about it."""
    notices = []
    theirs, ours = (each[CLASSIFIER].shape[-1] if CLASSIFIER in each else None
                    for each in (heads, own))  # fmt: skip
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


def _check(sources: Mapping[Place, Source], variables: Mapping[Place, Any]) -> None:
    missing = ["/".join(place) for place in variables if place not in sources]
    if missing:
        raise CheckpointError(
            f"The checkpoint does not match the model. Missing from the checkpoint: "
            f"{listed(missing)}"
        )
    for place, source in sources.items():
        if source.shape != tuple(variables[place].shape):
            raise CheckpointError(
                f"{'/'.join(place)} has the shape {tuple(variables[place].shape)} in the model. "
                f"Received: {source.key} of shape {source.shape}"
            )


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
    check_dtype(dtype)
    if Path(path).suffix in SUFFIXES:
        raise ValueError(
            "Segmenters are saved as .safetensors, PyTorch or, with model.save, .keras files. "
            f"Received: path={printable(path)}"
        )
    weights = {**variables_of(model), **head_variables(model)}
    forms = _forms_of(model, layout)
    arrays = {
        place: partial(keras.ops.convert_to_numpy, variable) for place, variable in weights.items()
    }
    counters = (
        (f"{form.key.rpartition('.')[0]}.{COUNTER}", np.zeros((), np.int64))
        for place, form in forms.items()
        if place.variable == "moving_mean"
    )
    tensors: Iterator[tuple[str, np.ndarray]] = tensors_of(arrays, forms, dtype, progress)
    write_tensors(
        path, chain(tensors, counters), None if layout == "transformers" else "state_dict"
    )


def segmenter_keys(
    model: keras.Model, layout: str = "official"
) -> dict[Place, tuple[str, tuple[int, ...]]]:
    """Returns the key and shape with which `save_segmenter_weights` writes each weight.

    Raises:
        ValueError: If the layout is unknown.
    """
    weights = {**variables_of(model), **head_variables(model)}
    return {
        place: (form.key, shape_of_theirs(tuple(weights[place].shape), form))
        for place, form in _forms_of(model, layout).items()
    }


def _forms_of(model: keras.Model, layout: str) -> dict[Place, Form]:
    if layout not in UPERNET:
        raise ValueError(
            f"layout must be one of {', '.join(UPERNET)}. Received: layout={printable(layout)}"
        )
    return segmenter_forms(variables_of(model), head_variables(model), layout)
