"""Loads the weights of a checkpoint into a Keras model.

Loading is strict: a tensor without a variable, a variable without a tensor or a wrong shape is an
error that lists both sides, raised before anything is copied.
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
    HIDDEN_KERNEL,
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
    """Loads the weights of a checkpoint into a model. PyTorch is not required.

    The ConvNeXt in the file is found by its tensor names, at any level of nesting and with any
    prefix. Supported layouts are those of the official code, OpenMMLab, timm, transformers
    (including DINOv3), torchvision, and Keras, for these models and those of `keras.applications`.
    If the file contains other tensors, such as a detector's, a warning reports how many.

    Below the final norm, the file and the model must have the same tensors. The head is skipped if
    the model has none; it keeps its weights, with a warning, if the file has none or one with
    another number of classes. The same applies to the final norm if the file has none. A 3-channel
    stem is adapted to other numbers of channels: for one channel, the kernel is summed over its
    channels; otherwise its channels are repeated and scaled by 3 / channels.

    Example:

    ```python
    model = keras_convnext.ConvNeXtTiny(weights=None)
    keras_convnext.load_checkpoint(model, "checkpoint-299.pth", entry="model_ema")
    ```

    Args:
        model: keras.Model. A model made by one of the builders, or a model that contains one. Its
            head is loaded if it is a single `Dense` after the network's final norm.
        path: str or path. A `.pth`, `.safetensors`, `.keras`, `.weights.h5` or legacy `.h5` file,
            the index of a sharded checkpoint, or a folder that contains one of these. No code in
            the file is run.
        entry: str or None. The dict of tensors to load if a `.pth` file contains several, dotted if
            it is nested, as in "state.model". Defaults to None, for the one with a ConvNeXt; in an
            official training checkpoint with `model` and `model_ema`, that is `model`.
        progress: function. Wraps the list of tensors to show progress, such as `tqdm.tqdm` or
            `rich.progress.track`. Defaults to `iter`, which shows nothing.
        prefix: str or None. The prefix of the tensor names, such as "student.backbone.", if the
            file contains several ConvNeXts. Defaults to None.
        ignore: str or iterable of str. Patterns of tensor names to drop before anything else, such
            as "head.*". Defaults to ().

    Raises:
        CheckpointError: If the file is damaged; if it contains no ConvNeXt of this shape or
            several; if a tensor is missing or not finite; or if the model is quantized or has LoRA
            enabled. The model is then unchanged.
        FileNotFoundError: If the file does not exist.
    """
    variables = variables_of(model)
    if with_lora := [place for place in variables if not hasattr(variables[place], "assign")]:
        raise CheckpointError(
            "LoRA's updates would be added to the weights of the checkpoint: load it before you "
            f"call enable_lora. Received: {model.name} with LoRA in {with_lora[0].layer}"
        )
    shapes = {place: tuple(variable.shape) for place, variable in variables.items()}
    checkpoint = open_checkpoint(path, entry, prefix, ignore, network_of(shapes))
    sources = dict(checkpoint.sources)
    try:
        theirs = {place: source.shape for place, source in sources.items()}
        check_same_network(theirs, shapes, model.name)
        notices = [*_differences(checkpoint, model), *_above(sources, variables)]
        _check_same(sources, variables)
        with ThreadPoolExecutor(2) as threads:  # each keeps one tensor in memory
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
    """Drops layers above the trunk that only one side has; returns notices about kept weights."""
    notices = []
    one_is_hidden = (HIDDEN_KERNEL in sources) != (HIDDEN_KERNEL in variables)
    if one_is_hidden and HEAD_KERNEL in sources and HEAD_KERNEL in variables:
        has, lacks = "checkpoint", "model"
        if HIDDEN_KERNEL in variables:
            has, lacks = lacks, has
        notices.append(
            f"The classifier of the {has} has a hidden layer, and that of the {lacks} has none: "
            "the model's classifier is unchanged"
        )
        for side in (sources, variables):
            for place in [place for place in side if place.layer in ("pre_logits", "head")]:
                del side[place]
    parts = {"norm": "final norm", "pre_logits": "hidden layer", "head": "classifier"}
    for layer, part in parts.items():
        theirs = [place for place in sources if place.layer == layer]
        ours = [place for place in variables if place.layer == layer]
        other_classes = layer == "head" and _classes(sources) != _classes(variables)
        if ours and not theirs:
            notices.append(f"The checkpoint has no {part}: the model's {part} is unchanged")
        elif ours and other_classes:
            notices.append(
                f"The checkpoint has {_classes(sources)} classes, but the model has "
                f"{_classes(variables)}: everything except the classifier was loaded"
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
    """Yields notices about differences between model and checkpoint other than weights."""
    layers = trunk_of(model).layers
    patch = checkpoint.network.patch_size
    if patch % 2 and patch > 1:
        yield (
            f"The stem's {patch} x {patch} kernel is assumed to process patches that do not "
            "overlap. Most such stems overlap, which weight files do not record: compare an output "
            "with the original network"
        )
    theirs = checkpoint.network.epsilon
    ours = {layer.norm.epsilon for layer in layers.values() if isinstance(layer, Block)}
    if ours and ours != {theirs}:
        yield (
            f"The norms of {checkpoint.network.name} have epsilon={theirs}, but those of the model "
            f"have epsilon={min(ours)}: outputs differ by about 1e-4 of the largest value"
        )
    if checkpoint.prefix.endswith(OPEN_CLIP_PREFIX) and "normalization" in layers:
        yield (
            "The checkpoint is from open_clip, whose networks expect pixels normalized with CLIP's "
            "mean and standard deviation, but the model normalizes with ImageNet's. Build it with "
            "include_preprocessing=False, and normalize the pixels yourself"
        )


def _check_same(sources: Mapping[Place, Source], variables: Mapping[Place, Any]) -> None:
    missing = ["/".join(place) for place in variables if place not in sources]
    extra = [source.key for place, source in sources.items() if place not in variables]
    if missing or extra:
        raise CheckpointError(
            f"The checkpoint does not match the model. Missing from the checkpoint: "
            f"{listed(missing)}. Missing from the model: {listed(extra)}"
        )
    for place, source in sources.items():
        ours = tuple(variables[place].shape)
        expected = (*ours[:2], 3, ours[3]) if place == STEM_KERNEL else ours
        if source.shape not in (expected, ours):
            raise CheckpointError(
                f"{'/'.join(place)} has the shape {ours} in the model. Received: {source.key} of "
                f"shape {source.tensor.shape}, which converts to {source.shape}"
            )


def _for_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """The stem's kernel, of shape (h, w, channels, dim), for another number of channels."""
    if kernel.shape[2] == channels:
        return kernel
    if channels == 1:
        return kernel.sum(axis=2, keepdims=True)
    return kernel[:, :, np.arange(channels) % 3] * np.asarray(3 / channels, kernel.dtype)
