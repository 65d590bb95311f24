"""Loads and saves the weights of dense networks: a trunk, and heads with their own layouts."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_convnext.pretrained.checkpoint import open_checkpoint
from keras_convnext.pretrained.dense_heads import (
    COUNTER,
    HEADS,
    dense_forms,
    head_in_keras,
    heads_in,
)
from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.h5_file import SUFFIXES
from keras_convnext.pretrained.keras_model import load_keras_model
from keras_convnext.pretrained.layouts import Place
from keras_convnext.pretrained.model_weights import Progress, variables_of
from keras_convnext.pretrained.names import Form
from keras_convnext.pretrained.networks import check_same_network
from keras_convnext.pretrained.notices import warn_user
from keras_convnext.pretrained.rewriting import check_dtype, tensors_of, write_tensors
from keras_convnext.pretrained.trunks import listed
from keras_convnext.pretrained.writing import shape_of_theirs
from keras_convnext.printable import printable

Weights = Mapping[Place, Any]
VARIABLES = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")


class DenseModel(NamedTuple):
    """A dense network, as its task knows it.

    Args:
        kind: str. A key of `dense_heads.HEADS`.
        model: keras.Model.
        variables_of_heads: function. Returns the variables outside of the trunk, by their places.
        unlike: function. Takes the tensors of the heads in a file, and a dict of the variables of
            the model; removes those that the file cannot fill, and returns notices about them.
    """

    kind: str
    model: keras.Model
    variables_of_heads: Callable[[keras.Model], Weights]
    unlike: Callable[[Weights, dict[Place, Any]], list[str]] = lambda heads, own: []


def load_dense(
    dense: DenseModel,
    path: str | Path,
    entry: str | None,
    progress: Progress,
    prefix: str | None,
    ignore: str | Iterable[str],
) -> None:
    """Loads a checkpoint into a dense network.

    Args:
        dense: DenseModel.
        path: str or path. As in `load_checkpoint`, or a `.keras` file of a dense network.
        entry: str or None. As in `load_checkpoint`.
        progress: function. As in `load_checkpoint`.
        prefix: str or None. As in `load_checkpoint`.
        ignore: str or iterable of str. As in `load_checkpoint`.

    Raises:
        CheckpointError: If the file is damaged or of another network. The model is then unchanged.
        FileNotFoundError: If the file does not exist.
    """
    title = HEADS[dense.kind].title
    kind, trunk, heads = _sources_in(dense, path, entry, prefix, ignore)
    variables = variables_of(dense.model)
    sources = {place: each for place, each in trunk.items() if place in variables}
    try:
        check_same_network(_shapes_of(sources), _shapes_of(variables), dense.model.name)
        notices = []
        if kind == dense.kind:
            own = dict(dense.variables_of_heads(dense.model))
            notices = dense.unlike(heads, own)
            sources |= {place: source for place, source in heads.items() if place in own}
            variables |= own
        else:
            found = f"is of {HEADS[kind].title}" if kind else f"has no {title}"
            notices.append(f"The checkpoint {found}: norms and heads are unchanged")
        _check(sources, variables)
        for place, source in sources.items():
            source.check(np.dtype(variables[place].dtype))
        for place, source in progress(list(sources.items())):
            variables[place].assign(source.read())
    except CheckpointError as error:
        raise CheckpointError(f"{error} (file: {path})") from error
    warn_user(notices, path)


def save_dense(
    dense: DenseModel, path: str | Path, layout: str, dtype: str | None, progress: Progress
) -> None:
    """Saves the weights of a dense network as a checkpoint for other programs.

    Args:
        dense: DenseModel.
        path: str or path. A safetensors file if it ends in `.safetensors`, and else a PyTorch file.
        layout: str. A layout of the heads.
        dtype: str or None. As in `save_checkpoint`.
        progress: function. As in `load_checkpoint`.

    Raises:
        CheckpointError: If the model is quantized, or a weight is too large for `dtype`.
        ValueError: If the layout or dtype is unknown, or `path` is that of an HDF5 file.
        OSError: If the file cannot be written; no partial file remains.
    """
    check_dtype(dtype)
    if Path(path).suffix in SUFFIXES:
        task = HEADS[dense.kind].task.partition(".")[0].capitalize()
        raise ValueError(
            f"{task} networks are saved as .safetensors, PyTorch or, with model.save, .keras "
            f"files. Received: path={printable(path)}"
        )
    forms = _forms_of(dense, layout)
    arrays = {
        place: partial(keras.ops.convert_to_numpy, variable)
        for place, variable in _weights_of(dense).items()
    }
    counters = (
        (f"{form.key.rpartition('.')[0]}.{COUNTER}", np.zeros((), np.int64))
        for place, form in forms.items()
        if place.variable == "moving_mean"
    )
    buffers = (
        (name, np.array(values, np.float32)) for name, values in HEADS[dense.kind].buffers.items()
    )
    tensors: Iterator[tuple[str, np.ndarray]] = tensors_of(arrays, forms, dtype, progress)
    write_tensors(
        path, chain(tensors, counters, buffers), None if layout == "transformers" else "state_dict"
    )


def dense_keys(dense: DenseModel, layout: str) -> dict[Place, tuple[str, tuple[int, ...]]]:
    """Returns the key and shape with which `save_dense` writes each weight.

    Raises:
        ValueError: If the layout is unknown.
    """
    weights = _weights_of(dense)
    return {
        place: (form.key, shape_of_theirs(tuple(weights[place].shape), form))
        for place, form in _forms_of(dense, layout).items()
    }


def _weights_of(dense: DenseModel) -> Weights:
    return {**variables_of(dense.model), **dense.variables_of_heads(dense.model)}


def _forms_of(dense: DenseModel, layout: str) -> dict[Place, Form]:
    layouts = HEADS[dense.kind].tables
    if layout not in layouts:
        raise ValueError(
            f"layout must be one of {', '.join(layouts)}. Received: layout={printable(layout)}"
        )
    heads = dense.variables_of_heads(dense.model)
    return dense_forms(dense.kind, variables_of(dense.model), heads, layout)


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
    dense: DenseModel,
    path: str | Path,
    entry: str | None,
    prefix: str | None,
    ignore: str | Iterable[str],
) -> tuple[str, Weights, Weights]:
    """Returns the kind of heads in a file, and the tensors of trunk and heads, as `Source`s."""
    if kind := head_in_keras(path):
        model = load_keras_model(path)
        of_heads = dense.variables_of_heads(model) if kind == dense.kind else {}
        trunk, heads = (
            {place: _Variable("/".join(place), variable) for place, variable in part.items()}
            for part in (variables_of(model), of_heads)
        )
        return kind, trunk, heads
    checkpoint = open_checkpoint(path, entry, prefix, ignore)
    found = heads_in(checkpoint)
    return found.name, checkpoint.sources, found.sources


def _shapes_of(tensors: Weights) -> dict[Place, tuple[int, ...]]:
    return {place: tuple(tensor.shape) for place, tensor in tensors.items()}


def _check(sources: Weights, variables: Weights) -> None:
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
