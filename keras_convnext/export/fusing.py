"""Fuses a model for inference: scales and shifts are folded into neighboring weights."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from keras_convnext.block import Block
from keras_convnext.call_graph import Graph, Tensor, as_functional, graph_of
from keras_convnext.export.inference import InferenceBlock, InferenceLayerNormalization
from keras_convnext.feature_maps import PyramidConv2D
from keras_convnext.layers import LayerNormalization, PatchConv2D
from keras_convnext.printable import printable
from keras_convnext.trunks import trunks_to_export


def fuse(model: keras.Model) -> keras.Model:
    """Builds a faster model with the same outputs, for inference only.

    The input normalization, the scale and shift of the norms, batch norms after convolutions, layer
    scale and the shift of global response normalization are folded into neighboring weights.
    Stochastic depth, dropout, augmentation and auxiliary heads are removed, and the remaining norms
    use a faster implementation. All other layers keep their names and weights. Nested models are
    flattened. If a network computes in half precision, input normalization, batch norms and layer
    scale are not folded, and the latter stays in float32.

    Example:

    ```python
    model = keras_convnext.ConvNeXtTiny(weights="convnext_tiny_1k_224_ema.pth")
    fused = keras_convnext.export.fuse(model)
    fused.predict(images)  # equals model.predict(images) to 1e-5 of the largest value
    fused.export("convnext_tiny")  # a SavedModel
    ```

    Args:
        model: keras.Model. Built by one of the builders or by `pyramid_features`, or a functional
            or Sequential model that contains such networks. It is not changed, and shares no
            weights with the result.

    Returns:
        A keras.Model with the inputs and outputs of `model`, not compiled.

    Raises:
        ValueError: If the model contains no ConvNeXt, has a custom `call` or layers that cannot be
            copied, or is already fused or quantized.
    """
    check_can_be_fused(model)
    graph = graph_of(model)
    _check_is_followed(model, graph)
    functional = as_functional(model)
    inputs = [
        keras.Input(batch_shape=x.shape, dtype=x.dtype, name=x.name) for x in functional.inputs
    ]
    made = fused_calls(graph, inputs)
    return keras.Model(
        keras.tree.pack_sequence_as(functional.input, inputs),
        keras.tree.pack_sequence_as(functional.output, [made[x] for x in graph.outputs]),
        name=model.name,
    )


def check_can_be_fused(model: keras.Model) -> None:
    """Checks that a model contains a ConvNeXt, and is neither fused nor quantized.

    Raises:
        ValueError: If not; the message says what to do.
    """
    trunks_to_export(model)  # raises if there is none
    if any(isinstance(layer, InferenceLayerNormalization) for layer in model._flatten_layers()):
        raise ValueError(
            "The model is already fused. To export it, pass the model from before fuse: export "
            f"fuses it. Received: model={printable(model.name)}"
        )
    if quantized := quantized_layers(model):
        raise ValueError(
            "A quantized model cannot be fused: fuse it first, and call quantize on the result. "
            f"Received: {printable(model.name)} with quantized layer {printable(quantized[0])}"
        )


def _check_is_followed(model: keras.Model, graph: Graph) -> None:
    """Refuses a network inside a wrapper such as TimeDistributed, which would stay unfused.

    Raises:
        ValueError: If there is one; the message names the wrapper.
    """
    followed = {id(step.layer) for step in graph.steps}
    hidden = {id(block): trunk.name for trunk in trunks_to_export(model) for block in trunk.blocks}
    for step in graph.steps:
        parts = step.layer._flatten_layers() if isinstance(step.layer, keras.layers.Layer) else ()
        for part in parts:
            if id(part) in hidden and id(part) not in followed:
                raise ValueError(
                    f"{printable(hidden[id(part)])} is called inside the layer "
                    f"{printable(step.layer.name)} ({type(step.layer).__name__}): fuse that "
                    "network alone, and build the model around the result. "
                    f"Received: model={printable(model.name)}"
                )


def quantized_layers(model: keras.Model) -> list[str]:
    """Returns the paths of the quantized layers of a model."""
    return [layer.path for layer in model._flatten_layers() if layer.quantization_mode]


def fused_calls(graph: Graph, inputs: Sequence[Any]) -> dict[Tensor, Any]:
    """Calls fused copies of the layers of a graph.

    Args:
        graph: Graph. A layer may be folded only if its output is not an output of the graph and
            has no other consumer.
        inputs: sequence of keras.KerasTensor. Inputs for the copies.

    Returns:
        dict from the tensors of the graph to the outputs of the copies.
    """
    taken = _taken(graph)
    givers = {id(giver) for giver in taken.values()}
    followers = _followers(graph)
    folded = {id(norm) for norm in followers.values()}
    copies: dict[int, tuple[keras.layers.Layer, keras.layers.Layer]] = {}
    names = _names(graph)

    def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
        if not isinstance(layer, keras.layers.Layer):  # an operation without weights
            return layer(*args, **kwargs)
        is_giver = id(layer) in givers
        if id(layer) in folded or (is_giver and isinstance(layer, keras.layers.Rescaling)):
            return args[0]
        if id(layer) not in copies:
            is_followed = id(layer) in followers
            copies[id(layer)] = _copy(layer, names[id(layer)], is_giver, is_followed), layer
        return copies[id(layer)][0](*args, **kwargs)

    made = graph.run(dict(zip(graph.inputs, inputs)), call)
    for copy, original in copies.values():
        if isinstance(copy, InferenceBlock):
            _fill(copy, original)
        elif id(original) in followers:
            copy.set_weights(with_norm(followers[id(original)], *_kernel_and_bias(original)))
        elif id(original) in taken:
            copy.set_weights(_after(taken[id(original)], *_kernel_and_bias(original)))
        elif id(original) not in givers:
            _set_weights(copy, original)
    return made


def _taken(graph: Graph) -> dict[int, keras.layers.Layer]:
    """Returns the layer that is folded into each layer, by the id of the latter."""
    layers = {id(step.layer): step.layer for step in graph.steps}
    taken = {}
    for key, layer in layers.items():
        calls = graph.of_layer(layer)
        before = [graph.made_by(step.inputs[0]) for step in calls if len(step.inputs) == 1]
        givers = {id(step.layer): step.layer for step in before if step is not None}
        if len(before) < len(calls) or None in before or len(givers) != 1:
            continue
        (giver,) = givers.values()
        between = [x for step in graph.of_layer(giver) for x in step.outputs]
        seen = any(x in graph.outputs for x in between)
        others = any(step.layer is not layer for x in between for step in graph.taken_by(x))
        if not seen and not others and _folds(giver, layer, graph):
            taken[key] = giver
    return taken


def _followers(graph: Graph) -> dict[int, keras.layers.BatchNormalization]:
    """Returns the batch norm that is folded into the convolution before it, by the latter's id."""
    followers = {}
    for step in graph.steps:
        norm = step.layer
        if not isinstance(norm, keras.layers.BatchNormalization) or len(step.inputs) != 1:
            continue
        (between,) = step.inputs
        before = graph.made_by(between)
        if (
            before is not None
            and _is_linear_convolution(before.layer)
            and norm.axis in (-1, [-1], 3, [3])
            and len(graph.of_layer(norm)) == len(graph.of_layer(before.layer)) == 1
            and len(graph.taken_by(between)) == 1
            and between not in graph.outputs
            and not _is_half(norm)
        ):
            followers[id(before.layer)] = norm
    return followers


def _is_linear_convolution(layer: keras.layers.Layer) -> bool:
    if isinstance(layer, keras.layers.Conv2D):
        return layer.activation is keras.activations.linear
    return isinstance(layer, PyramidConv2D)


def _folds(giver: keras.layers.Layer, taker: keras.layers.Layer, graph: Graph) -> bool:
    """Whether the layer before can be folded into the kernel of a layer.

    In a block the norm is folded into pwconv1, and gamma or the shift of GRN into pwconv2. The
    scale of GRN depends on the image and cannot be folded. The norm of the stem cannot be folded:
    the first residual connection uses its output, and the first depthwise convolution pads it with
    zeros, where the shift would be missing.
    """
    if type(taker) not in (PatchConv2D, keras.layers.Dense) or not taker.use_bias:
        return False
    if type(taker) is PatchConv2D and (taker.padding != "valid" or taker.overlap is not None):
        return False
    if _is_norm(giver):
        return giver.center and giver.scale
    if type(giver) is not keras.layers.Rescaling or type(taker) is not PatchConv2D:
        return False
    of_floats = all("float" in step.inputs[0].dtype for step in graph.of_layer(giver))
    return of_floats and not _is_half(taker)


def _is_norm(layer: keras.layers.Layer) -> bool:
    """Whether a layer normalizes over the channels."""
    known = type(layer) in (LayerNormalization, keras.layers.LayerNormalization)
    return known and layer.axis in (-1, [-1]) and not getattr(layer, "rms_scaling", False)


def _names(graph: Graph) -> dict[int, str]:
    """Returns unique names for the layers of a graph, as nested models may repeat names."""
    own = {step.layer.name for step in graph.steps if step.model == graph.name}
    homes = {id(step.layer): (step.model, step.layer.name) for step in graph.steps}
    counts = Counter(name for _, name in homes.values())
    prefixed = {model for model, name in homes.values() if counts[name] > 1 and model != graph.name}
    names: dict[int, str] = {}
    used = set(own)
    for key, (model, name) in homes.items():
        if model != graph.name:
            name = plain = f"{model}_{name}" if model in prefixed else name
            number = 0
            while name in used:
                number += 1
                name = f"{plain}_{number}"
        used.add(name)
        names[key] = name
    return names


def _copy(
    layer: keras.layers.Layer, name: str, is_giver: bool, is_followed: bool
) -> keras.layers.Layer:
    """Creates a layer for inference. Its weights are set later."""
    config = layer.get_config() | {"name": name}
    if is_followed:
        config |= {"use_bias": True}
    nested = config["dense"].values() if isinstance(layer, Block) else ()
    for each in (config, *nested):
        if isinstance(each, dict):
            each.pop("lora_rank", None)  # the adapters are merged into the kernel
            each.pop("lora_alpha", None)
    if type(layer) is Block:
        config |= {"drop_path": 0.0, "remat": False}
        config |= {} if _is_half(layer) else {"layer_scale": None}
        return InferenceBlock.from_config(config)
    if _is_norm(layer):
        config |= {"center": False, "scale": False} if is_giver else {}
        return InferenceLayerNormalization.from_config(config)
    if isinstance(layer, keras.layers.Activation):  # its callable may have no config
        return keras.layers.Activation(layer.activation, dtype=layer.dtype_policy, name=name)
    try:
        return type(layer).from_config(config)
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            f"The layer {printable(name)} cannot be copied: its class {type(layer).__name__} needs "
            f"a get_config that returns all constructor arguments. Received: {printable(error)}"
        ) from error


def _set_weights(copy: keras.layers.Layer, original: keras.layers.Layer) -> None:
    if getattr(original, "lora_enabled", False):
        copy.set_weights([x for x in _kernel_and_bias(original) if x is not None])
    elif original.weights:
        copy.set_weights(original.get_weights())
    if hasattr(copy, "finalize_state"):  # keras.layers.Normalization caches its weights
        copy.finalize_state()


def _is_half(layer: keras.layers.Layer) -> bool:
    return layer.compute_dtype in ("float16", "bfloat16")


def _fill(fused: InferenceBlock, block: Block) -> None:
    """Sets the weights of a fused block from a block."""
    fused.dwconv.set_weights(block.dwconv.get_weights())
    fused.pwconv1.set_weights(_after(block.norm, *_kernel_and_bias(block.pwconv1)))
    kernel, bias = _kernel_and_bias(block.pwconv2)
    if fused.gamma is not None:
        fused.gamma.assign(block.gamma)
    elif block.gamma is not None:
        gamma = _array(block.gamma).astype("float64")
        kernel, bias = (weight.astype("float64") * gamma for weight in (kernel, bias))
    if fused.grn is not None and block.grn is not None:
        fused.grn.gamma.assign(block.grn.gamma)
        bias = bias + _array(block.grn.beta).astype("float64") @ kernel.astype("float64")
    fused.pwconv2.set_weights([kernel, bias])


def _after(giver: keras.layers.Layer, kernel: np.ndarray, bias: np.ndarray) -> list[np.ndarray]:
    """Folds the scale and shift of `giver` into the kernel and bias of the layer after it."""
    channels = kernel.shape[-2]
    if isinstance(giver, keras.layers.Rescaling):
        scale, shift = (np.broadcast_to(x, channels) for x in (giver.scale, giver.offset))
    else:
        scale, shift = (_array(weight).astype("float64") for weight in (giver.gamma, giver.beta))
    kernel = kernel.astype("float64")
    positions = tuple(range(kernel.ndim - 2))
    return [kernel * scale[:, None], bias + shift @ kernel.sum(positions)]


def with_norm(
    norm: keras.layers.BatchNormalization, kernel: np.ndarray, bias: np.ndarray | None
) -> list[np.ndarray]:
    """Returns the kernel and bias of a convolution with the batch norm after it."""
    mean, variance = (
        _array(each).astype("float64") for each in (norm.moving_mean, norm.moving_variance)
    )
    scale = (_array(norm.gamma) if norm.scale else 1) / np.sqrt(variance + norm.epsilon)
    shift = (_array(norm.beta) if norm.center else 0) - mean * scale
    return [kernel * scale, shift if bias is None else bias * scale + shift]


def _kernel_and_bias(layer: keras.layers.Layer) -> tuple[np.ndarray, Any]:
    return _array(layer.kernel), None if layer.bias is None else _array(layer.bias)


def _array(weight: Any) -> np.ndarray:
    return keras.ops.convert_to_numpy(weight)
