"""The weights of a Keras model by their place in the network."""

from collections.abc import Callable, Iterable
from typing import Any

import keras

from keras_convnext.block import Block
from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.layouts import HEAD_KERNEL, Place
from keras_convnext.trunks import head_of, trunk_of

# Wraps the list of tensors to iterate over: `iter`, or a progress bar.
Progress = Callable[[list[Any]], Iterable[Any]]


def variables_of(model: keras.Model) -> dict[Place, Any]:
    """Returns the weights of the network in a model by their places.

    They are variables, or tensors where LoRA is enabled.

    Raises:
        CheckpointError: If a layer is quantized, or the network is fused.
        ValueError: If the model contains no ConvNeXt or several.
    """
    variables = {}
    trunk = trunk_of(model)
    head = head_of(model, trunk)
    layers = trunk.layers if head is None else {**trunk.layers, HEAD_KERNEL.layer: head}
    for name, layer in layers.items():
        if isinstance(layer, Block) and layer.norm.gamma is None:
            raise CheckpointError(
                "A fused model has no checkpoint: load or save the weights first, and call fuse "
                f"afterwards. Received: model={model.name}"
            )
        within = layer.parts() if isinstance(layer, Block) else ()
        parts = {f"{name}/{part.name}": part for part in within}
        for place, part in (parts | {name: layer}).items():
            if part.quantization_mode:
                raise CheckpointError(
                    "Checkpoints contain weights that are not quantized: load or save the "
                    f"checkpoint before you call quantize. Received: {model.name} with quantized "
                    f"{part.path}"
                )
            for variable in ("gamma", "kernel", "bias", "beta", "kernel_2", "bias_2"):
                if (weight := getattr(part, variable, None)) is not None:
                    variables[Place(place, variable)] = weight
    return variables
