"""Builds the network that is exported: fused, with named outputs."""

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import keras

from keras_convnext.call_graph import Graph, Tensor, graph_of, logits_of
from keras_convnext.detection.weights import is_detector
from keras_convnext.export.detectors import served_detector
from keras_convnext.export.fusing import check_can_be_fused, fused_calls, quantized_layers
from keras_convnext.export.inference import LargestChannel
from keras_convnext.feature_maps import with_values
from keras_convnext.printable import printable
from keras_convnext.trunks import (
    Trunk,
    check_has_head,
    has_no_classes,
    is_of_roadmap,
    trunks_to_export,
)

T = TypeVar("T")

DETECTIONS = ("boxes", "labels", "masks", "num_detections", "scores")
OUTPUTS = ("probabilities", "classes", "logits", "features", *DETECTIONS)  # and the feature maps


def served_network(model: keras.Model) -> keras.Model:
    """Builds the network of an artifact.

    Args:
        model: keras.Model. A float32 classifier, segmenter or detector that contains a ConvNeXt
            and takes pixels.

    Returns:
        A fused keras.Model from pixels in 0..255 to a dict. For a classifier, it has
        `probabilities` and `logits`, each (N, classes), which are equal if the model has no last
        activation. If the model contains exactly one ConvNeXt, the dict also has `features` (N, C),
        the input of the classifier; if that is hierarchical and its patch size a power of two, it
        has the feature maps of the stages, `P2` to `P5`. For a segmenter, the dict has `classes`
        (N, H, W) and `logits` (N, H, W, classes). For a detector, it is that of the detector.

    Raises:
        ValueError: If the model is not a classifier of one image, does not scale its pixels, is
            quantized or not in float32, has a custom `call`, or layers that cannot be copied.
    """
    model = with_values(model)
    if quantized := quantized_layers(model):
        raise ValueError(
            "A quantized model cannot be exported: export it before calling quantize, with "
            "dtype='int8' for integer arithmetic. "
            f"Received: {printable(model.name)} with quantized layer {printable(quantized[0])}"
        )
    check_can_be_fused(model)
    for layer in model._flatten_layers():
        if layer.compute_dtype != "float32":
            raise ValueError(
                "Only float32 models can be exported: build the model with "
                "keras.config.set_dtype_policy('float32'), and choose the type of the stored "
                f"weights with dtype. Received: {printable(layer.name)} with the policy "
                f"{layer.dtype_policy.name}"
            )
    trunks = trunks_to_export(model)
    if is_detector(model):
        return served_detector(model)
    whole = graph_of(model)
    graph = logits_of(whole)
    if len(graph.inputs) != 1 or len(graph.inputs[0].shape) != 4:
        raise ValueError(
            "An exported model must have images (N, H, W, C) as its only input. For others, use "
            "fuse(model).export(folder), Keras' own export, which compares nothing. "
            f"Received: {printable(model.name)} with input shapes {[x.shape for x in graph.inputs]}"
        )
    check_has_head(graph, trunks)
    stems = [trunk.layers["stem_conv"] for trunk in trunks]
    if is_of_roadmap(model):
        if has_no_classes(model):
            raise ValueError(
                "The model returns features, not classes: build it with include_top=True. "
                f"Received: {printable(model.name)}"
            )
        stems = [graph.taken_by(graph.inputs[0])[0].layer]
        stems = [] if isinstance(stems[0], keras.layers.Rescaling) else stems
    for stem in stems:
        _check_pixels_are_scaled(graph, stem)
    is_dense = len(graph.outputs[0].shape) == 4
    outputs = {"logits": graph.outputs[0]}
    if not is_dense:
        outputs |= {"probabilities": whole.outputs[0]}
        if len(trunks) == 1:
            outputs |= _within(graph, trunks[0])
    graph.inputs[0].dtype = "float32"  # so that a rescaling of integers can be folded
    image = keras.Input(whole.inputs[0].shape[1:], name=model.inputs[0].name)
    made = fused_calls(graph._replace(outputs=tuple(outputs.values())), [image])
    served = {name: made[tensor] for name, tensor in outputs.items()}
    if is_dense:
        served["classes"] = LargestChannel(name="classes")(served["logits"])
    return keras.Model(image, served, name=model.name)


def _check_pixels_are_scaled(graph: Graph, stem: keras.layers.Layer) -> None:
    """Checks that there is a layer between the image and the stem."""
    for call in graph.of_layer(stem):
        before = graph.made_by(call.inputs[0])
        while before is not None and before.layer.name.endswith("_cast"):
            before = graph.made_by(before.inputs[0])
        if before is None:
            raise ValueError(
                "An exported model must take pixels in 0..255: build it with "
                "include_preprocessing=True, or add a keras.layers.Rescaling before the network. "
                f"Received: {printable(graph.name)}, in which {printable(call.layer.name)} takes "
                "the image directly"
            )


def _within(graph: Graph, trunk: Trunk) -> dict[str, Tensor]:
    """Returns the features and feature maps of a network that is called once."""
    layers: dict[str, keras.layers.Layer] = {}
    with suppress(ValueError):  # isotropic, or the strides are not powers of two
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
    """Returns a served network with only those of the named outputs that it has."""
    outputs = {name: network.output[name] for name in names if name in network.output}
    return keras.Model(network.input, outputs, name=network.name)


def follow(network: keras.Model, pixels: T, step: Callable[..., T]) -> dict[str, T]:
    """Converts a network layer by layer to another representation.

    Args:
        network: keras.Model. With one input and a dict of outputs.
        pixels: Representation of the input.
        step: callable. Takes a layer and the arguments of its call, and returns the representation
            of its output.

    Returns:
        dict of the representation of each output.
    """
    graph = graph_of(network)
    found = graph.run({graph.inputs[0]: pixels}, step)
    names = keras.tree.flatten({name: name for name in network.output})
    return {name: found[tensor] for name, tensor in zip(names, graph.outputs)}
