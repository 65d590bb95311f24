"""Saves the weights of a Keras model in any layout."""

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
    """Saves the weights of a model as a checkpoint for other programs. PyTorch is not required.

    Load a `.pth` file with `torch.load(path, weights_only=True)`, which returns
    `{"model": tensors}` in the official layout, `{"state_dict": tensors}` in OpenMMLab's, and the
    dict of tensors itself in the others. Load a `.weights.h5` or legacy `.h5` file with
    `model.load_weights(path)`. The tensors exactly match the network of the same shape in the other
    program. The file is written under a temporary name and renamed when it is complete.

    Example:

    ```python
    keras_convnext.save_checkpoint(model, "mine.safetensors", layout="timm", dtype="float16")
    ```

    Args:
        model: keras.Model. A model made by one of the builders, with or without its top, or a model
            that contains one. Its head is saved if it is a single `Dense` after the network's
            final norm; a warning names other layers with weights.
        path: str or path. The file to write. The suffixes `.safetensors`, `.h5` and `.hdf5`
            (including `.weights.h5`) select these formats; all others write a PyTorch file.
        layout: str or None. One of `keras_convnext.pretrained.layouts.LAYOUTS`. HDF5 files use
            "keras", for these models, or "keras_applications"; other files use the others. For an
            isotropic model, "official" stands for "official_isotropic". Defaults to None, for
            "keras" in HDF5 files and "official" in others.
        dtype: str or None. The dtype to cast the weights to: "float16", "bfloat16", "float32" or
            "float64". Defaults to None, for their own dtype.
        progress: function. As in `load_checkpoint`, for the tensors that are written.

    Raises:
        CheckpointError: If the layout has no names for some weights of the model, if the model is
            quantized, or if a weight is too large for `dtype`.
        ValueError: If the dtype or layout is unknown, if the layout does not fit the file format,
            or if the model contains no ConvNeXt or several.
        OSError: If the file cannot be written; no partial file remains.
    """
    variables = variables_of(model)
    trunk = trunk_of(model)
    if others := other_layers(model, trunk, head_of(model, trunk)):
        notice = (
            f"Saved only the ConvNeXt of {model.name}, without the layers {listed(others)}. A head "
            "is saved if it is a single Dense after the norm of pooling='avg'"
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
    """Returns the key and shape with which `save_checkpoint` writes each weight of a model.

    Raises:
        CheckpointError: If the layout has no names for some weights of the model.
        ValueError: If the layout is unknown.
    """
    variables = variables_of(model)
    return {
        place: (form.key, shape_of_theirs(tuple(variables[place].shape), form))
        for place, form in forms_of(variables, layout, model.name).items()
    }


def shape_of_theirs(shape: tuple[int, ...], form: Form) -> tuple[int, ...]:
    """Returns the shape with which a layout stores a variable of ours."""
    return (*(shape[axis] for axis in np.argsort(form.axes)), *(1,) * form.ones)
