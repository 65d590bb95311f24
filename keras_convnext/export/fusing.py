"""The graph for inference: scales and shifts are folded into the neighbouring weights."""

import re
from typing import Any

import keras
import numpy as np

from keras_convnext.block import Block
from keras_convnext.export.inference import InferenceBlock, InferenceLayerNormalization
from keras_convnext.network import layers_by_name

# Neighbours that become one, in the order of the graph: the one with a kernel takes in the other.
# In a block the norm goes into pwconv1, and gamma into pwconv2. The norm of the stem is in no row,
# since the first shortcut takes its output as it is, and the first depthwise convolution pads it
# with zeros, where a shift would have to be.
_FOLDS = (
    (r"normalization",         r"stem_conv"),
    (r"(downsample_\d+)_norm", r"\1_conv"),
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
    layers = layers_by_name(model)
    if "stem_conv" not in layers or any(
        isinstance(layer, InferenceLayerNormalization) for layer in model.layers
    ):
        raise ValueError(
            "A network is fused once, and as the builders make it: pass the network itself, not a "
            f"model around it. Received: model={model.name} with the layers {[*layers][:4]}..."
        )
    if quantized := quantized_layers(model):
        raise ValueError(
            "Weights are folded before they are quantized: fuse the network first, and call "
            f"quantize on what you get. Received: {model.name} with quantized {quantized[0]}"
        )
    taken = _taken(model, layers)
    givers = {giver.name for giver in taken.values()}

    def copy(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config()
        for each in (config, *config.get("dense", {}).values()):
            each.pop("lora_rank", None)  # what it learned goes into the kernel
        if isinstance(layer, Block):
            config |= {"drop_path": 0.0, "remat": False}
            config |= {} if _is_half(layer) else {"layer_scale": None}
            return InferenceBlock.from_config(config)
        if isinstance(layer, keras.layers.LayerNormalization):
            affine = layer.name not in givers
            return InferenceLayerNormalization.from_config(
                config | {"center": affine, "scale": affine}
            )
        if isinstance(layer, keras.layers.Activation):  # of any callable, also one without config
            return keras.layers.Activation(
                layer.activation, dtype=layer.dtype_policy, name=layer.name
            )
        return layer.__class__.from_config(config)

    def call(layer: keras.layers.Layer, x: Any, *args: Any, **kwargs: Any) -> Any:
        is_folded = layer.name in givers and isinstance(layer, keras.layers.Rescaling)
        return x if is_folded else layer(x, *args, **kwargs)

    fused = keras.models.clone_model(
        keras.Model(model.input, model.output, name=model.name),  # without what it was compiled for
        clone_function=copy,
        call_function=call,
    )
    for layer in fused.layers:
        original = model.get_layer(layer.name)
        if isinstance(original, Block):
            _fill(layer, original)
        elif hasattr(original, "kernel"):
            layer.set_weights(_after(taken.get(layer.name), *_kernel_and_bias(original)))
        elif layer.weights:
            layer.set_weights(original.get_weights())
    return fused


def quantized_layers(model: keras.Model) -> list[str]:
    """Returns the paths of the layers of a model that `quantize` has changed."""
    return [layer.path for layer in model._flatten_layers() if layer.quantization_mode]


def _taken(
    model: keras.Model, layers: dict[str, keras.layers.Layer]
) -> dict[str, keras.layers.Layer]:
    """What each layer takes in, by its name; nothing where the map between the two is an output."""
    outputs = {id(output) for output in keras.tree.flatten(model.output)}
    taken = {}
    for name, giver in layers.items():
        for pattern, neighbour in _FOLDS:
            match = re.fullmatch(pattern, name)
            taker = layers.get(match.expand(neighbour)) if match else None
            if taker is None or id(giver.output) in outputs:
                continue
            if not (isinstance(giver, keras.layers.Rescaling) and _is_half(taker)):
                taken[taker.name] = giver
    return taken


def _is_half(layer: keras.layers.Layer) -> bool:
    return layer.compute_dtype in ("float16", "bfloat16")


def _fill(fused: InferenceBlock, block: Block) -> None:
    """Gives a fused block the weights of a block."""
    fused.dwconv.set_weights(block.dwconv.get_weights())
    fused.pwconv1.set_weights(_after(block.norm, *_kernel_and_bias(block.pwconv1)))
    kernel, bias = _kernel_and_bias(block.pwconv2)
    if fused.gamma is not None:
        fused.gamma.assign(block.gamma)
    elif block.gamma is not None:
        gamma = _array(block.gamma).astype("float64")
        kernel, bias = (weight.astype("float64") * gamma for weight in (kernel, bias))
    fused.pwconv2.set_weights([kernel, bias])


def _after(
    giver: keras.layers.Layer | None, kernel: np.ndarray, bias: np.ndarray
) -> list[np.ndarray]:
    """The kernel and bias of a layer that also scales and shifts as `giver`, before it, does."""
    if giver is None:
        return [kernel, bias]
    if isinstance(giver, keras.layers.Rescaling):
        scale, shift = np.asarray(giver.scale), np.asarray(giver.offset)
    else:
        scale, shift = (_array(weight).astype("float64") for weight in (giver.gamma, giver.beta))
    kernel = kernel.astype("float64")
    positions = tuple(range(kernel.ndim - 2))
    return [kernel * scale[:, None], bias + shift @ kernel.sum(positions)]


def _kernel_and_bias(layer: keras.layers.Layer) -> tuple[np.ndarray, np.ndarray]:
    return _array(layer.kernel), _array(layer.bias)


def _array(weight: Any) -> np.ndarray:
    return keras.ops.convert_to_numpy(weight)
