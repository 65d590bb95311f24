"""Weights of a published checkpoint into a Keras model, and out of it again.

A port is strict both ways: a tensor without a variable, a variable without a tensor or a shape
that is off is an error that lists both sides, found before the first number is copied.
"""

import inspect
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_convnext.block import Block
from keras_convnext.network import layers_by_name
from keras_convnext.pretrained.addresses import layers_of
from keras_convnext.pretrained.checkpoint import OpenCheckpoint, open_checkpoint
from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.h5_file import SUFFIXES
from keras_convnext.pretrained.h5_writer import H5Entry, write_h5
from keras_convnext.pretrained.layouts import (
    ENTRIES,
    HDF5_LAYOUTS,
    HEAD_KERNEL,
    LAYOUTS,
    STEM_KERNEL,
    Place,
)
from keras_convnext.pretrained.names import Form, form_of
from keras_convnext.pretrained.networks import check_same_network, network_of
from keras_convnext.pretrained.safetensors_file import write_safetensors
from keras_convnext.pretrained.source import Source
from keras_convnext.pretrained.torch_file import write_torch_file
from keras_convnext.pretrained.trunks import listed

OPEN_CLIP_PREFIX = "visual.trunk."  # open_clip, src/open_clip/timm_model.py

# What tensors are drawn through, one at a time: `iter`, or a bar that shows how many are done.
Progress = Callable[[list[Any]], Iterable[Any]]


def load_checkpoint(
    model: keras.Model,
    path: str | Path,
    entry: str | None = None,
    progress: Progress = iter,
    *,
    prefix: str | None = None,
    ignore: str | Iterable[str] = (),
) -> None:
    """Fills a model with the weights of a checkpoint. PyTorch is not needed.

    The ConvNeXt in the file is found by the names of its tensors, wherever it is and whatever
    precedes them: in the layout of the official code, of OpenMMLab, timm, transformers (DINOv3's
    too) or torchvision; of Keras, for these models or those of `keras.applications`. A warning
    tells how many other tensors the file has, such as those of a detector.

    Below its last norm the file and the model must have the same tensors. The head is skipped if
    the model has none, and left as it is, with a warning, if the file has none or one with another
    number of classes; so is the last norm if the file has none. A 3-channel stem is fitted to a
    model for other images: the kernel is summed over its channels for 1, else repeated over them
    and scaled by 3 / channels.

    Example:

    ```python
    model = keras_convnext.ConvNeXtTiny(weights=None)
    keras_convnext.load_checkpoint(model, "checkpoint-299.pth", entry="model_ema")
    ```

    Args:
        model: keras.Model. Made by one of the builders.
        path: str or path. A `.pth`, `.safetensors`, `.weights.h5` or legacy `.h5` file. Nothing in
            it is run.
        entry: str or None. Which dict of tensors to take from a `.pth` that holds several, dotted
            if it is nested, as in "state.model". Defaults to None, for the one with a ConvNeXt; if
            those are `model` and `model_ema`, as in official training checkpoints, for `model`.
        progress: function. What the tensors are drawn through, such as `tqdm.tqdm` or
            `rich.progress.track`, to show how many are read. Defaults to `iter`, which shows
            nothing.
        prefix: str or None. Which ConvNeXt to take if there are several, by what precedes the names
            of its tensors, such as "student.backbone.". Defaults to None.
        ignore: str or iterable of str. Patterns of names, such as "head.*", of tensors that are
            left out before anything else. Defaults to ().

    Raises:
        CheckpointError: If the file is damaged, or holds no ConvNeXt of this shape or several, or
            lacks a tensor, or holds one that is not finite; or if the model is quantized or has
            LoRA. The model is then as it was.
        FileNotFoundError: If there is no such file.
    """
    variables = _variables(model)
    if with_lora := [place for place in variables if not hasattr(variables[place], "assign")]:
        raise CheckpointError(
            "What LoRA adds to a kernel would be added to the checkpoint's: load it first, and "
            f"then call enable_lora. Received: {model.name} with LoRA at {with_lora[0].layer}"
        )
    shapes = {place: tuple(variable.shape) for place, variable in variables.items()}
    checkpoint = open_checkpoint(path, entry, prefix, ignore, network_of(shapes))
    sources = dict(checkpoint.sources)
    try:
        theirs = {place: source.shape for place, source in sources.items()}
        check_same_network(theirs, shapes, model.name)
        notices = [*_differences(checkpoint, model), *_above(sources, variables)]
        _check_same(sources, variables)
        with ThreadPoolExecutor(2) as threads:  # each holds one tensor
            dtypes = (np.dtype(variables[place].dtype) for place in sources)
            list(threads.map(Source.check, sources.values(), dtypes))
        for place, source in progress(list(sources.items())):
            array = source.read()
            if place == STEM_KERNEL:
                array = _for_channels(array, variables[place].shape[2])
            variables[place].assign(array)
    except CheckpointError as error:
        raise CheckpointError(f"{error} (file: {path})") from error
    _warn([checkpoint.notice, *notices], path)


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
        model: keras.Model. Made by one of the builders, with or without its top.
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
        ValueError: If there is no such layout for such a file.
        OSError: If the file cannot be written; nothing is left of it.
    """
    variables = _variables(model)
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
    _warn([checkpoint.notice], source)


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
    variables = _variables(model)
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


def _variables(model: keras.Model) -> dict[Place, Any]:
    """The weights of a network by their places: variables, or tensors where LoRA adds to one."""
    variables = {}
    for name, layer in layers_by_name(model).items():
        within = layer.parts() if isinstance(layer, Block) else ()
        parts = {f"{name}/{part.name}": part for part in within}
        for place, part in (parts | {name: layer}).items():
            if part.quantization_mode:
                raise CheckpointError(
                    "A checkpoint has weights as they were before they were quantized: load or "
                    f"save it first, and then call quantize. Received: {model.name} with "
                    f"quantized {part.path}"
                )
            for variable in ("gamma", "kernel", "bias", "beta"):
                if (weight := getattr(part, variable, None)) is not None:
                    variables[Place(place, variable)] = weight
    return variables


def _above(sources: dict[Place, Source], variables: dict[Place, Any]) -> list[str]:
    """Takes from both what only one of them has above the trunk, and tells of what stays fresh."""
    notices = []
    for layer, part in {"norm": "last norm", "head": "classifier"}.items():
        theirs = [place for place in sources if place.layer == layer]
        ours = [place for place in variables if place.layer == layer]
        other_classes = layer == "head" and _classes(sources) != _classes(variables)
        if ours and not theirs:
            notices.append(f"The checkpoint has no {part}: the model's keeps the weights it had")
        elif ours and other_classes:
            notices.append(
                f"The checkpoint has {_classes(sources)} classes and the model "
                f"{_classes(variables)}: the head keeps the weights it had, all the rest is loaded"
            )
        elif ours and theirs:
            continue
        for place in theirs:
            del sources[place]
        for place in ours:
            del variables[place]
    return notices


def _classes(tensors: Mapping[Place, Any]) -> int | None:
    return int(tensors[HEAD_KERNEL].shape[-1]) if HEAD_KERNEL in tensors else None


def _differences(checkpoint: OpenCheckpoint, model: keras.Model) -> Iterator[str]:
    """Tells in what, apart from weights, the model differs from where the checkpoint is from."""
    layers = layers_by_name(model)
    theirs = checkpoint.network.epsilon
    ours = {layer.norm.epsilon for layer in layers.values() if isinstance(layer, Block)}
    if ours and ours != {theirs}:
        yield (
            f"The norms of {checkpoint.network.name} have an epsilon of {theirs}, and those of the "
            f"model {min(ours)}: outputs differ by about 1e-4 of the largest"
        )
    if checkpoint.prefix.endswith(OPEN_CLIP_PREFIX) and "normalization" in layers:
        yield (
            "The names are those of open_clip, whose networks take pixels that are normalized with "
            "CLIP's mean and standard deviation, and the model normalizes them with ImageNet's: "
            "build it with include_preprocessing=False, and normalize them yourself"
        )


def _warn(notices: Iterable[str | None], path: str | Path) -> None:
    for notice in filter(None, notices):
        warnings.warn(f"{notice} (file: {path})", stacklevel=_level_of_the_user())


def _level_of_the_user() -> int:
    """The `stacklevel` with which the caller's warning names the line that called this package.

    It may have called `load_checkpoint`, a builder or `load_model`.
    """
    package = __name__.partition(".")[0]
    level, frame = 0, inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        level, frame = level + 1, frame.f_back
    return level


def _check_same(sources: Mapping[Place, Source], variables: Mapping[Place, Any]) -> None:
    missing = ["/".join(place) for place in variables if place not in sources]
    extra = [source.key for place, source in sources.items() if place not in variables]
    if missing or extra:
        raise CheckpointError(
            f"The checkpoint and the model differ. Not in the checkpoint: {listed(missing)}. "
            f"Not in the model: {listed(extra)}"
        )
    for place, source in sources.items():
        ours = tuple(variables[place].shape)
        expected = (*ours[:2], 3, ours[3]) if place == STEM_KERNEL else ours
        if source.shape not in (expected, ours):
            raise CheckpointError(
                f"{source.key} has the shape {source.tensor.shape}, which as {'/'.join(place)} is "
                f"{source.shape}; the model's is {ours}"
            )


def _for_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """The stem's kernel (h, w, from, dim) for images of another number of channels."""
    if kernel.shape[2] == channels:
        return kernel
    if channels == 1:
        return kernel.sum(axis=2, keepdims=True)
    return kernel[:, :, np.arange(channels) % 3] * np.asarray(3 / channels, kernel.dtype)
