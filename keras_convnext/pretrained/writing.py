"""Weights of a Keras model, or of a checkpoint, into a file of any layout."""

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from pathlib import Path

import keras
import numpy as np

from keras_convnext.pretrained.addresses import layers_of
from keras_convnext.pretrained.checkpoint import open_checkpoint
from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.h5_file import SUFFIXES
from keras_convnext.pretrained.h5_writer import H5Entry, write_h5
from keras_convnext.pretrained.layouts import (
    ENTRIES,
    HDF5_LAYOUTS,
    HEAD_KERNEL,
    LAYOUTS,
    Place,
)
from keras_convnext.pretrained.model_weights import Progress, variables_of
from keras_convnext.pretrained.names import Form, form_of
from keras_convnext.pretrained.notices import warn_user
from keras_convnext.pretrained.safetensors_file import write_safetensors
from keras_convnext.pretrained.torch_writer import write_torch_file
from keras_convnext.pretrained.trunks import listed
from keras_convnext.trunks import head_of, other_layers, trunk_of


def save_checkpoint(
    model: keras.Model,
    path: str | Path,
    layout: str | None = None,
    dtype: str | None = None,
    progress: Progress = iter,
) -> None:
    """Writes the weights of a model as a checkpoint for other programs. PyTorch is not needed.

    A `.pth` loads with `torch.load(path, weights_only=True)`, which gives `{"model": tensors}` in
    the official layout, `{"state_dict": tensors}` in OpenMMLab's, the tensors themselves in the
    others. A `.weights.h5` and a legacy `.h5` load with `model.load_weights(path)`. They fit the
    network of the same shape there, strictly. The file appears under its name once it is whole.

    Example:

    ```python
    keras_convnext.save_checkpoint(model, "mine.safetensors", layout="timm", dtype="float16")
    ```

    Args:
        model: keras.Model. Made by one of the builders, with or without its top, or a model with
            such a network in it, whose head is written if it is one `Dense` behind the network's
            norm; a warning names other layers with weights.
        path: str or path. The file to write: `.safetensors`, `.weights.h5`, legacy `.h5`, or else a
            `.pth`.
        layout: str or None. One of `keras_convnext.pretrained.layouts.LAYOUTS`. Of an HDF5 file it
            is "keras", for these models, or "keras_applications"; of others any but these.
            "official" is, for an isotropic model, that of the isotropic ones. Defaults to None,
            which is "keras" for HDF5 and "official" for others.
        dtype: str or None. What to round the weights to, such as "float16". Defaults to None, as
            they are.
        progress: function. As in `load_checkpoint`, for the tensors that are written.

    Raises:
        CheckpointError: If the model has weights that the layout has no place for, or is
            quantized.
        ValueError: If there is no such layout for such a file, or if the model has no ConvNeXt or
            several.
        OSError: If the file cannot be written; nothing is left of it.
    """
    variables = variables_of(model)
    trunk = trunk_of(model)
    if others := other_layers(model, trunk, head_of(model, trunk)):
        notice = (
            f"Wrote the ConvNeXt of {model.name} alone, without the layers {listed(others)}: a "
            "checkpoint has a head if that is one Dense behind the norm of pooling='avg'"
        )
        warn_user([notice], path)
    arrays = {
        place: partial(keras.ops.convert_to_numpy, variable)
        for place, variable in variables.items()
    }
    _write(path, arrays, layout, dtype, model.name, progress)


def rewrite_checkpoint(
    source: str | Path,
    target: str | Path,
    layout: str | None = None,
    dtype: str | None = None,
    entry: str | None = None,
    *,
    prefix: str | None = None,
    ignore: str | Iterable[str] = (),
) -> None:
    """Writes the weights of a checkpoint as another one, a tensor at a time, without a model.

    Args:
        source: str or path. As `path` in `load_checkpoint`.
        target: str or path. As `path` in `save_checkpoint`.
        layout: as in `save_checkpoint`.
        dtype: as in `save_checkpoint`.
        entry: as in `load_checkpoint`.
        prefix: as in `load_checkpoint`.
        ignore: as in `load_checkpoint`.

    Raises:
        CheckpointError: If the source is damaged or holds no ConvNeXt or several, or if the layout
            has no place for something in it.
        ValueError: As in `save_checkpoint`.
        OSError: If the target cannot be written; nothing is left of it.
    """
    checkpoint = open_checkpoint(source, entry, prefix, ignore)
    order = {layer: index for index, layer in enumerate(layers_of(checkpoint.network))}
    places = sorted(checkpoint.sources, key=lambda place: order[place.layer])
    arrays = {place: checkpoint.sources[place].read for place in places}
    _write(target, arrays, layout, dtype, checkpoint.network.name)
    warn_user([checkpoint.notice], source)


def _write(
    path: str | Path,
    arrays: Mapping[Place, Callable[[], np.ndarray]],
    layout: str | None,
    dtype: str | None,
    model_name: str,
    progress: Progress = iter,
) -> None:
    """Writes arrays, which are asked for one at a time, in the order of the network."""
    layout = layout or default_layout(path)
    hdf5 = Path(path).suffix in SUFFIXES
    if layout in LAYOUTS and hdf5 != (layout in HDF5_LAYOUTS):
        raise ValueError(
            f"An HDF5 file has one of the layouts {', '.join(HDF5_LAYOUTS)}, and no other file "
            f"has. Received: layout={layout}, path={path}"
        )
    forms = _forms(arrays, layout, model_name)
    theirs = (
        _theirs(arrays[place](), form, dtype) for place, form in progress(list(forms.items()))
    )
    if hdf5:
        write_h5(path, map(_h5_entry, forms, forms.values(), theirs))
        return
    tensors = zip((form.key for form in forms.values()), theirs)
    if Path(path).suffix == ".safetensors":
        write_safetensors(path, tensors)
    else:
        write_torch_file(path, tensors, ENTRIES.get(layout))


def default_layout(path: str | Path) -> str:
    """Tells the layout that a file gets when none is asked for: by its suffix."""
    return "keras" if Path(path).suffix in (*SUFFIXES, ".keras") else "official"


def checkpoint_keys(
    model: keras.Model, layout: str = "official"
) -> dict[Place, tuple[str, tuple[int, ...]]]:
    """Tells under which key and in which shape `save_checkpoint` writes each weight of a model.

    Raises:
        CheckpointError: If the model has weights that the layout has no place for.
        ValueError: If there is no such layout.
    """
    variables = variables_of(model)
    return {
        place: (form.key, _shape_of_theirs(tuple(variables[place].shape), form))
        for place, form in _forms(variables, layout, model.name).items()
    }


def _forms(places: Collection[Place], layout: str, model_name: str) -> dict[Place, Form]:
    if layout not in LAYOUTS:
        raise ValueError(f"layout is one of {', '.join(LAYOUTS)}. Received: layout={layout}")
    if layout == "official" and any(place.layer.startswith("blocks_") for place in places):
        layout = "official_isotropic"
    if layout == "keras_applications" and HEAD_KERNEL not in places:
        layout = "keras_applications_notop"
    found = {place: form_of(place, LAYOUTS[layout], model_name) for place in places}
    forms = {place: form for place, form in found.items() if form is not None}
    if homeless := ["/".join(place) for place in places if place not in forms]:
        raise CheckpointError(f"The layout {layout} has no place for {listed(homeless)}")
    if layout == "keras_applications_notop" and Place("norm", "gamma") not in places:
        raise CheckpointError(
            "Every network of keras.applications ends in a norm, and this one in a map: build it "
            "with pooling='avg'"
        )
    return forms


def _h5_entry(place: Place, form: Form, array: np.ndarray) -> H5Entry:
    module, _, index = form.key.rpartition(".")
    return H5Entry(module, form.kind.split()[0], index, place.variable, array)


def _shape_of_theirs(shape: tuple[int, ...], form: Form) -> tuple[int, ...]:
    return (*(shape[axis] for axis in np.argsort(form.axes)), *(1,) * form.ones)


def _theirs(array: np.ndarray, form: Form, dtype: str | None) -> np.ndarray:
    array = array.astype(dtype or array.dtype, copy=False).transpose(np.argsort(form.axes))
    return array.reshape(array.shape + (1,) * form.ones)
