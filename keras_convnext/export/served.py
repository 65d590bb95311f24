"""What leaves Keras of a network: its fused form, with all that may be asked of it by name."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import keras

from keras_convnext.export.fusing import fuse
from keras_convnext.network import layers_by_name, pyramid_features

T = TypeVar("T")


def served_network(model: keras.Model) -> keras.Model:
    """Makes the network that an artifact holds.

    Args:
        model: keras.Model. Made by one of the builders, with its classifier and in float32.

    Returns:
        A keras.Model, fused, from pixels in 0..255 to a dict: `probabilities` and `logits`, each
        (N, classes); `features`, what the classifier sees, (N, C); and, of a hierarchical network
        with patches of a power of two, the maps at the ends of its stages, as `P2` to `P5`.

    Raises:
        ValueError: If the model has no classifier, does not take RGB pixels, or is not in float32.
    """
    layers = layers_by_name(model)
    for name, option in (("head", "include_top"), ("normalization", "include_preprocessing")):
        if name not in layers:
            raise ValueError(
                "A model to export takes pixels and names classes: build it with "
                f"{option}=True. Received: {model.name}"
            )
    if model.input.shape[-1] != 3:
        raise ValueError(f"A model to export takes RGB. Received: input {model.input.shape}")
    if {layer.compute_dtype for layer in model._flatten_layers()} != {"float32"}:
        raise ValueError(
            "Export a model in float32 and say what the artifact is to be kept in: build it under "
            "keras.config.set_dtype_policy('float32'). Received: the policy "
            f"{layers['head'].dtype_policy.name}"
        )
    outputs = {
        "probabilities": layers["predictions"].output,
        "logits": layers["head"].output,
        "features": layers["norm"].output,
    }
    with suppress(ValueError):  # isotropic, or of strides that have no such names
        outputs |= pyramid_features(model).output
    return fuse(keras.Model(model.input, outputs, name=model.name))


def with_outputs(network: keras.Model, *names: str) -> keras.Model:
    """Returns the part of a served network that leads to some of its outputs."""
    outputs = {name: network.output[name] for name in names}
    return keras.Model(network.input, outputs, name=network.name)


def follow(network: keras.Model, pixels: T, step: Callable[..., T]) -> dict[str, T]:
    """Goes through a network layer by layer, to write it in another language.

    Args:
        network: keras.Model. With one input and a dict of outputs.
        pixels: What stands for the input.
        step: function of a layer and what stands for each of its inputs. Returns what stands for
            its output.

    Returns:
        What stands for each output, by name.
    """
    found: dict[int, T] = {id(network.input): pixels}
    for layer in network.operations:
        if not isinstance(layer, keras.layers.InputLayer):
            inputs: list[Any] = keras.tree.flatten(layer.input)
            found[id(layer.output)] = step(layer, *(found[id(tensor)] for tensor in inputs))
    return {name: found[id(tensor)] for name, tensor in network.output.items()}
