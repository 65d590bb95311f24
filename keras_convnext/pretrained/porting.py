"""Weights of a published checkpoint into a Keras model.

A port is strict: a tensor without a variable, a variable without a tensor or a shape that is off is
an error that lists both sides, found before the first number is copied.
"""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_convnext.block import Block
from keras_convnext.pretrained.checkpoint import OpenCheckpoint, open_checkpoint
from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.layouts import (
    HEAD_KERNEL,
    STEM_KERNEL,
    Place,
)
from keras_convnext.pretrained.model_weights import Progress, variables_of
from keras_convnext.pretrained.networks import check_same_network, network_of
from keras_convnext.pretrained.notices import warn_user
from keras_convnext.pretrained.source import Source
from keras_convnext.pretrained.trunks import listed
from keras_convnext.trunks import trunk_of

OPEN_CLIP_PREFIX = "visual.trunk."  # open_clip, src/open_clip/timm_model.py


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
        model: keras.Model. Made by one of the builders, or a model with one such network in it.
            Its head is filled if it is one `Dense` behind the network's norm.
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
    variables = variables_of(model)
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
    warn_user([checkpoint.notice, *notices], path)


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
    layers = trunk_of(model).layers
    patch = checkpoint.network.patch_size
    if patch % 2 and patch > 1:
        yield (
            f"The stem has a kernel of {patch} x {patch}, which is taken for patches side by side. "
            "Most such stems overlap, which no file of weights records: compare an output"
        )
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
