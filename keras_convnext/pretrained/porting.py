"""Weights of an official checkpoint into a Keras model, and out of it again.

A port is strict both ways: a tensor without a variable, a variable without a tensor or a shape
that is off is an error that lists both sides, found before the first number is copied.
"""

import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_convnext.pretrained.checkpoint import Source, listed, open_checkpoint
from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.identify import check_same_network
from keras_convnext.pretrained.layouts import HEAD_KERNEL, LAYOUTS, STEM_KERNEL, Place, key_of
from keras_convnext.pretrained.torch_file import write_torch_file


def load_checkpoint(model: keras.Model, path: str | Path, entry: str | None = None) -> None:
    """Fills a model with the weights of an official PyTorch checkpoint. PyTorch is not needed.

    The head is skipped if the model has none, and left as it is, with a warning, if it has another
    number of classes. A stem for other than 3 channels gets the kernel summed over its channels
    for 1, else repeated over them and scaled by 3 / channels.

    Example:

    ```python
    model = keras_convnext.ConvNeXtTiny(weights=None)
    keras_convnext.load_checkpoint(model, "checkpoint-299.pth", entry="model_ema")
    ```

    Args:
        model: keras.Model. Made by one of the builders.
        path: str or path. A `.pth` file with the official names. Nothing in it is run.
        entry: str or None. Which dict of tensors to take from a file that holds several. Defaults
            to `model`, else `model_ema`, else the file is the dict.

    Raises:
        CheckpointError: If the file is damaged, is no ConvNeXt of this shape, lacks a tensor, or
            holds one too many or one that is not finite. The model is then as it was.
        FileNotFoundError: If there is no such file.
    """
    variables = _variables(model)
    sources = open_checkpoint(path, entry)
    try:
        check_same_network(
            {place: source.shape for place, source in sources.items()},
            {place: tuple(variable.shape) for place, variable in variables.items()},
            model.name,
        )
        for place in _left_out(sources, variables):
            del sources[place]
            variables.pop(place, None)
        _check_same(sources, variables)
        with ThreadPoolExecutor(2) as threads:  # each holds one tensor
            list(threads.map(Source.check, sources.values()))
    except CheckpointError as error:
        raise CheckpointError(f"{error} (file: {path})") from error
    for place, source in sources.items():
        # One copy at a time is alive here: what was read is let go before Keras makes its own.
        array = _contiguous(source.read())
        if place == STEM_KERNEL:
            array = _for_channels(array, variables[place].shape[2])
        variables[place].assign(array)


def save_checkpoint(model: keras.Model, path: str | Path) -> None:
    """Writes the weights of a model as an official PyTorch checkpoint. PyTorch is not needed.

    The file loads with `torch.load(path, weights_only=True)["model"]` and fits the official code's
    network of the same shape. It appears under its name once it is whole.

    Args:
        model: keras.Model. Made by one of the builders, with or without its top.
        path: str or path. The `.pth` file to write.

    Raises:
        CheckpointError: If the model has weights that the official network has not.
        OSError: If the file cannot be written.
    """

    def tensors() -> Iterator[tuple[str, np.ndarray]]:
        for (key, axes), variable in zip(keys, variables.values()):
            yield key, _contiguous(keras.ops.convert_to_numpy(variable).transpose(np.argsort(axes)))

    variables = _variables(model)
    isotropic = any(place.layer.startswith("blocks_") for place in variables)
    layout = LAYOUTS["official isotropic" if isotropic else "official"]
    keys = [key_of(place, layout) for place in variables]
    unknown = ["/".join(place) for place, key in zip(variables, keys) if key is None]
    if unknown:
        raise CheckpointError(f"The official network has no such weights. Received: {unknown}")
    write_torch_file(path, tensors())


def _variables(model: keras.Model) -> dict[Place, Any]:
    return {
        Place(layer.name, variable.name): variable
        for layer in model.layers
        for variable in layer.weights
    }


def _left_out(sources: Mapping[Place, Source], variables: Mapping[Place, Any]) -> list[Place]:
    """The tensors above the trunk that the model has no use for."""
    layers = {place.layer for place in variables}
    left_out = [place for place in sources if place.layer in {"norm", "head"} - layers]
    if HEAD_KERNEL in sources and HEAD_KERNEL in variables:
        theirs, ours = sources[HEAD_KERNEL].shape[-1], variables[HEAD_KERNEL].shape[-1]
        if theirs != ours:
            warnings.warn(
                f"The checkpoint has {theirs} classes and the model {ours}: the head keeps the "
                "weights it had, all the rest is loaded",
                stacklevel=4,
            )
            left_out += [place for place in sources if place.layer == HEAD_KERNEL.layer]
    return left_out


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


def _contiguous(array: np.ndarray) -> np.ndarray:
    """In C order; a transposed matrix is copied by strips, three times faster for the caches."""
    if array.ndim != 2 or array.flags.c_contiguous:
        return np.ascontiguousarray(array)
    copy = np.empty(array.shape, array.dtype)
    for start in range(0, array.shape[1], 16):
        copy[:, start : start + 16] = array[:, start : start + 16]
    return copy
