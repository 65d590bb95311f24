"""Finds the ConvNeXt in a Keras model: on its own, with any head, or nested at any depth."""

import re
from typing import NamedTuple

import keras

from keras_convnext.block import Block
from keras_convnext.call_graph import Graph, as_functional, graph_of, nodes_of
from keras_convnext.layers import PatchConv2D
from keras_convnext.printable import printable

_PLAIN_NAME = re.compile(
    r"normalization|stem_(conv|norm)|downsample_\d+_(norm|conv)|(stages_\d+_)?blocks_\d+"
    r"|(avg|max)_pool|norm|pre_logits|head|predictions"
)


class Trunk(NamedTuple):
    """A ConvNeXt in a model.

    Args:
        name: str. Name for messages.
        model: keras.Model. The model that directly contains its layers, possibly nested.
        layers: dict of str to keras.layers.Layer. Names have no prefix from the builder's `name`.
            `norm` and `head` are included if a builder created them.
    """

    name: str
    model: keras.Model
    layers: dict[str, keras.layers.Layer]

    @property
    def blocks(self) -> list[Block]:
        """The blocks, in order."""
        return [layer for layer in self.layers.values() if isinstance(layer, Block)]

    def ends_of_stages(self) -> dict[str, Block]:
        """Returns the last block of each stage, by pyramid level: `Pn` has stride 2**n.

        Raises:
            ValueError: If the network is isotropic, or its strides are not powers of 2.
        """
        ends = {}
        for name, layer in self.layers.items():
            if match := re.fullmatch(r"stages_(\d+)_blocks_\d+", name):
                ends[int(match[1])] = layer
        if not ends:
            raise ValueError(
                "Feature pyramids need a hierarchical ConvNeXt, but this one is isotropic. "
                f"Received: model={printable(self.model.name)}"
            )
        patch_size = self.layers["stem_conv"].patch_size
        if patch_size & (patch_size - 1):
            raise ValueError(
                "Feature pyramids need a patch_size that is a power of 2. "
                f"Received: a model with patch_size={patch_size}"
            )
        first = patch_size.bit_length() - 1
        return {f"P{first + stage}": block for stage, block in ends.items()}


def find_trunks(model: keras.Model) -> list[Trunk]:
    """Finds all ConvNeXt networks in a model. One that is called several times counts once.

    Raises:
        ValueError: If there is none.
    """
    if not isinstance(model, keras.Model):
        raise ValueError(f"model is a keras.Model. Received: a {type(model).__name__}")
    found: dict[int, Trunk] = {}
    for container in model._flatten_layers():
        if not isinstance(container, keras.Model):
            continue
        for stem in container.layers:
            if not (isinstance(stem, PatchConv2D) and stem.name.endswith("stem_conv")):
                continue
            prefix = stem.name.removesuffix("stem_conv")
            plain = {
                layer.name.removeprefix(prefix): layer
                for layer in container.layers
                if layer.name.startswith(prefix)
            }
            own = {name: plain[name] for name in plain if _PLAIN_NAME.fullmatch(name)}
            known = found.get(id(stem))
            if known is None or len(known.layers) < len(own):
                found[id(stem)] = Trunk(prefix.rstrip("_") or container.name, container, own)
    if not found:
        names = [layer.name for layer in model.layers]
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        theirs = any(
            layer.name.endswith("_prestem_normalization") for layer in model._flatten_layers()
        )
        remedy = "Convert a keras.applications model with from_keras_applications first. " * theirs
        raise ValueError(
            f"The model contains no ConvNeXt of this package. {remedy}"
            f"Received: {printable(model.name)} with the layers "
            f"{printable(', '.join(names[:4]))}{more}"
        )
    return list(found.values())


def trunk_of(model: keras.Model) -> Trunk:
    """Finds the ConvNeXt in a model.

    Raises:
        ValueError: If there is none, or more than one.
    """
    trunks = find_trunks(model)
    if len(trunks) > 1:
        raise ValueError(
            f"The model contains {len(trunks)} ConvNeXt networks: pass a model with one of them, "
            "such as model.get_layer(name) or keras.Model(inputs, outputs). "
            f"Received: {printable(model.name)} with "
            f"{printable(', '.join(trunk.name for trunk in trunks))}"
        )
    return trunks[0]


def head_of(model: keras.Model, trunk: Trunk) -> keras.layers.Dense | None:
    """Returns the classifier: a builder's head, or the only `Dense` after the trunk's norm.

    Args:
        model: keras.Model.
        trunk: Trunk. Part of `model`.

    Returns:
        A keras.layers.Dense, or None if there is no head or a different one.
    """
    if "head" in trunk.layers:
        return trunk.layers["head"]
    try:
        graph = graph_of(model)
    except ValueError:  # a custom `call`
        return None
    calls = graph.of_layer(trunk.layers["norm"]) if "norm" in trunk.layers else []
    if len(calls) != 1:
        return None
    (features,) = calls[0].outputs
    behind = [step for step in graph.after(features) if getattr(step.layer, "weights", ())]
    if len(behind) != 1 or behind[0] not in graph.taken_by(features):
        return None
    layer = behind[0].layer
    return layer if isinstance(layer, keras.layers.Dense) and layer.use_bias else None


def check_has_head(graph: Graph, trunks: list[Trunk]) -> None:
    """Checks that the model has a head after the trunks.

    Raises:
        ValueError: If not.
    """
    last = graph.made_by(graph.outputs[0])
    for trunk in trunks:
        for name, layer in trunk.layers.items():
            if last is not None and last.layer is layer and name not in ("head", "predictions"):
                raise ValueError(
                    "The model returns features, not classes: build it with include_top=True, or "
                    "add a head. "
                    f"Received: {printable(graph.name)}, which ends in {printable(last.layer.name)}"
                )


def is_of_roadmap(model: keras.Model) -> bool:
    """Whether a model is or contains one of `roadmap`, in which a block is several layers."""
    return isinstance(model, keras.Model) and any(
        layer.name.endswith("stages_0_blocks_0_conv1")
        for layer in model._flatten_layers(include_self=False)
    )


def trunks_to_export(model: keras.Model) -> list[Trunk]:
    """Finds all ConvNeXt networks in a model. A network of `roadmap` has none, and needs none.

    Raises:
        ValueError: If there is none, and the model is not one of `roadmap`.
    """
    return [] if is_of_roadmap(model) else find_trunks(model)


def has_no_classes(model: keras.Model) -> bool:
    """Whether a model returns the features or the last feature map of its network."""
    if is_of_roadmap(model):
        return len(model.output_shape) != 2 or model.layers[-1].name.endswith(("_pool", "norm"))
    return len(model.output_shape) != 2 or any(
        any(layer.output is output for output in model.outputs)
        for trunk in find_trunks(model)
        for name, layer in trunk.layers.items()
        if trunk.model is model and name not in ("head", "predictions")
    )


def other_layers(model: keras.Model, trunk: Trunk, head: keras.layers.Layer | None) -> list[str]:
    """Returns the paths of the layers with weights outside of the trunk and its head."""
    known = {id(head)}
    for layer in trunk.layers.values():
        known |= {id(layer), *map(id, layer._flatten_layers())}
    return [
        layer.path
        for layer in model._flatten_layers(include_self=False)
        if layer.weights and id(layer) not in known and not isinstance(layer, keras.Model)
    ]


def reaching(model: keras.Model, trunk: Trunk, part: keras.Model) -> keras.Model:
    """Builds the model from the input of the whole model to the outputs of a part of its trunk.

    Args:
        model: keras.Model.
        trunk: Trunk. Part of `model`.
        part: keras.Model. From the input of `trunk.model` to tensors in it.

    Raises:
        ValueError: If the trunk is called from a custom `call`, or more than once.
    """
    if model is trunk.model:
        return part
    graph_of(model)  # raises if there is no graph
    functional = as_functional(model)
    calls = [
        node
        for node in nodes_of(functional)
        if as_functional(node.operation) is not None
        and trunk.model in [node.operation, *node.operation._flatten_layers()]
    ]
    if len(calls) != 1:
        raise ValueError(
            f"{printable(trunk.name)} is called {len(calls)} times in {printable(model.name)}: "
            f"pass {printable(trunk.name)} itself. "
            f"Received: model={printable(model.name)}"
        )
    inner = reaching(calls[0].operation, trunk, part)
    inputs = calls[0].input_tensors
    outputs = inner(inputs[0] if len(inputs) == 1 else inputs)
    return keras.Model(functional.input, outputs, name=part.name)
