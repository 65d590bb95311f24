"""The weights of a Keras model into a file of any layout."""

from functools import partial
from pathlib import Path

import keras
import numpy as np

from keras_convnext.pretrained.layouts import Place
from keras_convnext.pretrained.model_weights import Progress, variables_of
from keras_convnext.pretrained.names import Form
from keras_convnext.pretrained.notices import warn_user
from keras_convnext.pretrained.rewriting import forms_of, write_arrays
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
        dtype: str or None. What to round the weights to: "float16", "bfloat16", "float32" or
            "float64". Defaults to None, as they are.
        progress: function. As in `load_checkpoint`, for the tensors that are written.

    Raises:
        CheckpointError: If the model has weights that the layout has no place for, or is
            quantized, or if a weight is too large for `dtype`.
        ValueError: If there is no such dtype, or no such layout for such a file, or if the model
            has no ConvNeXt or several.
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
    write_arrays(path, arrays, layout, dtype, model.name, progress)


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
        for place, form in forms_of(variables, layout, model.name).items()
    }


def _shape_of_theirs(shape: tuple[int, ...], form: Form) -> tuple[int, ...]:
    return (*(shape[axis] for axis in np.argsort(form.axes)), *(1,) * form.ones)
