"""The weights of a Keras model by their places in a network."""

from collections.abc import Callable, Iterable
from typing import Any

import keras

from keras_convnext.block import Block
from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.layouts import HEAD_KERNEL, Place
from keras_convnext.trunks import head_of, trunk_of

# What tensors are drawn through, one at a time: `iter`, or a bar that shows how many are done.
Progress = Callable[[list[Any]], Iterable[Any]]


def variables_of(model: keras.Model) -> dict[Place, Any]:
    """Returns the weights of the network in a model by their places.

    They are variables, or tensors where LoRA adds to one.

    Raises:
        CheckpointError: If a layer is quantized.
        ValueError: If there is no ConvNeXt in the model, or several.
    """
    variables = {}
    trunk = trunk_of(model)
    head = head_of(model, trunk)
    layers = trunk.layers if head is None else {**trunk.layers, HEAD_KERNEL.layer: head}
    for name, layer in layers.items():
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
