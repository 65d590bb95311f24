"""What leaves Keras of a network: its fused form, with all that may be asked of it by name."""

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import keras

from keras_convnext.call_graph import Graph, Tensor, graph_of, logits_of
from keras_convnext.export.fusing import check_can_be_fused, fused_calls, quantized_layers
from keras_convnext.trunks import Trunk, check_has_head, find_trunks

T = TypeVar("T")

OUTPUTS = ("probabilities", "logits", "features")  # and the maps


def served_network(model: keras.Model) -> keras.Model:
    """Makes the network that an artifact holds.

    Args:
        model: keras.Model. A classifier of pixels in float32, with a ConvNeXt in it.

    Returns:
        A keras.Model, fused, from pixels in 0..255 to a dict: `probabilities` and `logits`, each
        (N, classes), which are the same if the model ends without an activation; of a model with
        one ConvNeXt also `features`, what the classifier sees, (N, C), and of a hierarchical one
        with patches of a power of two the maps at the ends of its stages, as `P2` to `P5`.

    Raises:
        ValueError: If the model is no classifier of one image, does not scale its pixels, is
            quantized or not in float32, or has layers that cannot be followed or copied.
    """
    if quantized := quantized_layers(model):
        raise ValueError(
            "Export a model before quantize is called, with dtype='int8' for weights and products "
            f"in integers. Received: {model.name} with quantized {quantized[0]}"
        )
    check_can_be_fused(model)
    for layer in model._flatten_layers():
        if layer.compute_dtype != "float32":
            raise ValueError(
                "Export a model in float32 and say what the artifact is to be kept in: build it "
                "under keras.config.set_dtype_policy('float32'). Received: "
                f"{layer.name}, of the policy {layer.dtype_policy.name}"
            )
    trunks = find_trunks(model)
    whole = graph_of(model)
    graph = logits_of(whole)
    if len(graph.inputs) != 1 or len(graph.inputs[0].shape) != 4:
        raise ValueError(
            "A model to export takes images, (N, H, W, C), and nothing else. "
            f"Received: {model.name}, with inputs of shapes {[x.shape for x in graph.inputs]}"
        )
    check_has_head(graph, trunks)
    for trunk in trunks:
        _check_pixels_are_scaled(graph, trunk)
    outputs = {"probabilities": whole.outputs[0], "logits": graph.outputs[0]}
    if len(trunks) == 1:
        outputs |= _within(graph, trunks[0])
    graph.inputs[0].dtype = "float32"  # so that what scales integers may be folded
    image = keras.Input(whole.inputs[0].shape[1:], name=model.inputs[0].name)
    made = fused_calls(graph._replace(outputs=tuple(outputs.values())), [image])
    served = {name: made[tensor] for name, tensor in outputs.items()}
    return keras.Model(image, served, name=model.name)


def _check_pixels_are_scaled(graph: Graph, trunk: Trunk) -> None:
    """Checks that something stands between the image and the stem."""
    for call in graph.of_layer(trunk.layers["stem_conv"]):
        before = graph.made_by(call.inputs[0])
        while before is not None and before.layer.name.endswith("_cast"):
            before = graph.made_by(before.inputs[0])
        if before is None:
            raise ValueError(
                "A model to export takes pixels in 0..255: build it with "
                "include_preprocessing=True, or put a keras.layers.Rescaling before its network. "
                f"Received: {graph.name}, where the image goes to {call.layer.name} as it is"
            )


def _within(graph: Graph, trunk: Trunk) -> dict[str, Tensor]:
    """The features and the maps of a network that looks at the image once."""
    layers: dict[str, keras.layers.Layer] = {}
    with suppress(ValueError):  # isotropic, or of strides that have no such names
        layers |= trunk.ends_of_stages()
    if "norm" in trunk.layers:
        layers["features"] = trunk.layers["norm"]
    calls = {name: graph.of_layer(layer) for name, layer in layers.items()}
    found = {name: steps[0].outputs[0] for name, steps in calls.items() if len(steps) == 1}
    last = graph.made_by(graph.outputs[0])
    if "norm" not in trunk.layers and last and isinstance(last.layer, keras.layers.Dense):
        found["features"] = last.inputs[0]
    return found


def with_outputs(network: keras.Model, *names: str) -> keras.Model:
    """Returns the part of a served network that leads to some of its outputs, if it has them."""
    outputs = {name: network.output[name] for name in names if name in network.output}
    return keras.Model(network.input, outputs, name=network.name)


def follow(network: keras.Model, pixels: T, step: Callable[..., T]) -> dict[str, T]:
    """Goes through a network layer by layer, to write it in another language.

    Args:
        network: keras.Model. With one input and a dict of outputs.
        pixels: What stands for the input.
        step: function of a layer and of the arguments that it is called with. Returns what stands
            for its output.

    Returns:
        What stands for each output, by name.
    """
    graph = graph_of(network)
    found = graph.run({graph.inputs[0]: pixels}, step)
    names = keras.tree.flatten({name: name for name in network.output})
    return {name: found[tensor] for name, tensor in zip(names, graph.outputs)}
