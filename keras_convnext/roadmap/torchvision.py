"""Loads torchvision's ResNet checkpoints into the first step of the road."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from keras_convnext.pretrained.entries import entries_of
from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.limits import check_claims
from keras_convnext.pretrained.source import Source
from keras_convnext.pretrained.weight_files import read
from keras_convnext.printable import printable

# Their names of our layers, as regular expressions, and of the variables in each kind of layer.
_LAYERS = (
    (r"stem_conv", r"conv1"),
    (r"stem_norm", r"bn1"),
    (r"stages_(\d)_blocks_(\d+)_conv(\d)", r"layer{stage}.{1}.conv{2}"),
    (r"stages_(\d)_blocks_(\d+)_norm(\d)", r"layer{stage}.{1}.bn{2}"),
    (r"stages_(\d)_blocks_(\d+)_shortcut_conv", r"layer{stage}.{1}.downsample.0"),
    (r"stages_(\d)_blocks_(\d+)_shortcut_norm", r"layer{stage}.{1}.downsample.1"),
    (r"head", r"fc"),
)
_VARIABLES = {
    "kernel": "weight",
    "bias": "bias",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_AXES = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}  # of PyTorch's kernels, in our order
_DEPTHWISE_AXES = (2, 3, 0, 1)  # (height, width, channels, 1) in Keras
_COUNTER = "num_batches_tracked"
_FIRST = "conv1.weight"


def load_torchvision(model: keras.Model, path: str | Path) -> None:
    """Loads a ResNet checkpoint of torchvision into a model. PyTorch is not required.

    Its `resnet50` is the step "resnet". Loading is strict: the file and the model must have the
    same tensors, except for a classifier that the model does not have. Nothing in the file is run.

    Example:

    ```python
    model = keras_convnext.roadmap.network("resnet")
    keras_convnext.roadmap.load_torchvision(model, "resnet50-0676ba61.pth")
    ```

    Args:
        model: keras.Model. Returned by `roadmap.network`, with bottleneck blocks: one of the steps
            "resnet", "stage_ratio", "patchify", "depthwise" and "width".
        path: str or path. A `.pth` or `.safetensors` file with torchvision's tensor names.

    Raises:
        CheckpointError: If the file is damaged, or its tensors are not those of the model.
        FileNotFoundError: If the file does not exist.
    """
    try:
        named = list(_named(model))
        found = _matched(named, _tensors_of(read(path)), model)
        check_claims(source.tensor for source in found)
        for (_, variable), source in zip(named, found):
            source.check(variable.dtype)
        for (_, variable), source in zip(named, found):
            variable.assign(source.read())
    except CheckpointError as error:
        raise CheckpointError(f"{error} (file: {path})") from error


def _matched(
    named: list[tuple[str, keras.Variable]], tensors: dict[str, Any], model: keras.Model
) -> list[Source]:
    """Returns the tensor of each variable.

    Raises:
        CheckpointError: If one is missing, has another shape, or belongs to no variable.
    """
    found = []
    for name, variable in named:
        tensor, shape = tensors.pop(name, None), tuple(variable.shape)
        axes = _DEPTHWISE_AXES if len(shape) == 4 and shape[3] == 1 else _AXES[len(shape)]
        if tensor is None or len(tensor.shape) != len(axes):
            source = None
        else:
            source = Source(name, tensor, axes)
        if source is None or source.shape != shape:
            received = "no such tensor" if tensor is None else f"shape {tensor.shape}"
            raise CheckpointError(
                f"This is not a checkpoint of {printable(model.name)}: {name} is for "
                f"{variable.path} of shape {shape}. Received: {received}"
            )
        found.append(source)
    if not any(layer.name.endswith("head") for layer in model.layers):
        tensors = {name: each for name, each in tensors.items() if not name.startswith("fc.")}
    if tensors:
        raise CheckpointError(
            f"{printable(model.name)} has no variables for {len(tensors)} tensors of the file. "
            f"Received: {printable(', '.join(list(tensors)[:3]))}"
        )
    return found


def _tensors_of(saved: object) -> dict[str, Any]:
    """Returns the tensors of the ResNet in a file, wherever a trainer has put them."""
    for entry in entries_of(saved):
        prefix = next((key.removesuffix(_FIRST) for key in entry.tensors if _is_first(key)), None)
        if prefix is not None:
            return {
                key.removeprefix(prefix): tensor
                for key, tensor in entry.tensors.items()
                if key.startswith(prefix) and not key.endswith(_COUNTER)
            }
    raise CheckpointError(f"There is no ResNet of torchvision in the file: it has no {_FIRST}")


def _is_first(key: str) -> bool:
    """Whether a name is that of the stem's kernel, alone or in DistributedDataParallel."""
    return key in (_FIRST, f"module.{_FIRST}")


def _named(model: keras.Model) -> Iterator[tuple[str, keras.Variable]]:
    """Yields the variables of a model with their names in torchvision."""
    for layer in model.layers:
        for variable in layer.weights:
            yield f"{_theirs(layer.name)}.{_VARIABLES[variable.name]}", variable


def _theirs(name: str) -> str:
    for pattern, theirs in _LAYERS:
        if match := re.fullmatch(rf"(?:.*_)?{pattern}", name):
            groups = match.groups()
            stage = int(groups[0]) + 1 if groups else 0
            return theirs.format(*groups, stage=stage)
    raise CheckpointError(
        'torchvision\'s ResNet has no layer for this one: pass the step "resnet". Received: a '
        f"model with the layer {printable(name)}"
    )
