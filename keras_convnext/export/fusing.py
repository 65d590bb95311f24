"""The graph for inference: what only scales and shifts goes into the weights beside it."""

import re
from typing import Any

import keras
import numpy as np

from keras_convnext.export.inference_norm import InferenceLayerNormalization
from keras_convnext.layers import DropPath, LayerScale, Remat

# Neighbours that become one, in the order of the graph: the one with a kernel takes in the other.
# The norm of the stem is in no row, since the first shortcut takes its output as it is, and the
# first depthwise convolution pads it with zeros, where a shift would have to be.
_FOLDS = (
    (r"normalization",         r"stem_conv"),
    (r"(downsample_\d+)_norm", r"\1_conv"),
    (r"(.*blocks_\d+)_norm",   r"\1_pwconv1"),
    (r"(.*blocks_\d+)_pwconv2", r"\1_layer_scale"),
    (r"norm",                  r"head"),
)  # fmt: skip


def fuse(model: keras.Model) -> keras.Model:
    """Makes the model that gives the same outputs faster, for inference alone.

    The input normalisation, the scale and shift of the norms, and the layer scale go into the
    weights of the layers beside them; stochastic depth goes; the norms that are left are written
    for speed. Every other layer keeps its name and its weights. Where a network computes in half
    precision, the pixels stay normalised and the layer scale apart, in float32.

    Example:

    ```python
    model = keras_convnext.ConvNeXtTiny(weights="convnext_tiny_1k_224_ema.pth")
    fused = keras_convnext.export.fuse(model)
    fused.predict(images)  # as model.predict(images), to 1e-5 of the largest value
    fused.export("convnext_tiny")  # a SavedModel
    ```

    Args:
        model: keras.Model. Made by one of the builders, or by `pyramid_features`. It is left as it
            is and shares nothing with the result.

    Returns:
        A keras.Model with the inputs and outputs of `model`, not compiled.

    Raises:
        ValueError: If `model` is not as the builders make it: a model around one, or a fused one.
    """
    layers = {layer.name: layer for layer in model.layers}
    if "stem_conv" not in layers or any(
        isinstance(layer, InferenceLayerNormalization) for layer in model.layers
    ):
        raise ValueError(
            "A network is fused once, and as the builders make it: pass the network itself, not a "
            f"model around it. Received: model={model.name} with the layers {[*layers][:4]}..."
        )
    taken = _taken(model, layers)
    gone = {
        name
        for name, layer in layers.items()
        if isinstance(layer, (DropPath, Remat))
        or (name in taken.values() and not isinstance(layer, keras.layers.LayerNormalization))
    }

    def copy(layer: keras.layers.Layer) -> keras.layers.Layer:
        if isinstance(layer, keras.layers.Activation):  # of any callable, also one without config
            return keras.layers.Activation(
                layer.activation, dtype=layer.dtype_policy, name=layer.name
            )
        config = layer.get_config()
        if isinstance(layer, keras.layers.LayerNormalization):
            affine = layer.name not in taken.values()
            config |= {"center": affine, "scale": affine}
            return InferenceLayerNormalization.from_config(config)
        return layer.__class__.from_config(config)

    def call(layer: keras.layers.Layer, x: Any, *args: Any, **kwargs: Any) -> Any:
        return x if layer.name in gone else layer(x, *args, **kwargs)

    fused = keras.models.clone_model(
        keras.Model(model.input, model.output, name=model.name),  # without what it was compiled for
        clone_function=copy,
        call_function=call,
    )
    for layer in fused.layers:
        original = layers[layer.name]
        if layer.name in taken:
            layer.set_weights(_with(layers[taken[layer.name]], *original.get_weights()))
        elif layer.weights:
            layer.set_weights(original.get_weights())
    return fused


def _taken(model: keras.Model, layers: dict[str, keras.layers.Layer]) -> dict[str, str]:
    """What each layer takes in, by name; nothing where the map between the two is an output."""
    outputs = {id(output) for output in keras.tree.flatten(model.output)}
    taken = {}
    for name, layer in layers.items():
        for first, second in _FOLDS:
            pair = re.fullmatch(first, name)
            if not pair or id(layer.output) in outputs:
                continue
            other = layers.get(pair.expand(second))
            if other is None or _needs_float32(layer, other):
                continue
            taker, giver = (layer, other) if hasattr(layer, "kernel") else (other, layer)
            taken[taker.name] = giver.name
    return taken


def _needs_float32(*pair: keras.layers.Layer) -> bool:
    return any(layer.compute_dtype in ("float16", "bfloat16") for layer in pair) and any(
        isinstance(layer, (keras.layers.Rescaling, LayerScale)) for layer in pair
    )


def _with(giver: keras.layers.Layer, kernel: np.ndarray, bias: np.ndarray) -> list[np.ndarray]:
    """The kernel and bias of a layer that does what `giver` does as well."""
    dtype, kernel, bias = kernel.dtype, kernel.astype("float64"), bias.astype("float64")
    if isinstance(giver, LayerScale):  # comes after
        gamma = giver.get_weights()[0].astype("float64")
        kernel, bias = kernel * gamma, bias * gamma
    else:  # comes before
        if isinstance(giver, keras.layers.Rescaling):
            scale, shift = np.asarray(giver.scale), np.asarray(giver.offset)
        else:
            scale, shift = (weight.astype("float64") for weight in giver.get_weights())
        inputs_but_channels = tuple(range(kernel.ndim - 2))
        bias = bias + shift @ kernel.sum(inputs_but_channels)
        kernel = kernel * scale[:, None]
    return [kernel.astype(dtype), bias.astype(dtype)]
