"""Converts models of `keras.applications.ConvNeXt*` to ours."""

import re
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import keras

from keras_convnext.block import Block
from keras_convnext.builders import BUILDERS, ConvNeXt
from keras_convnext.initializers import about_to_load
from keras_convnext.layers import LayerNormalization
from keras_convnext.loading import dtype_policy
from keras_convnext.network import pooled
from keras_convnext.pretrained.layouts import KERAS_APPLICATIONS, Place
from keras_convnext.pretrained.names import form_of
from keras_convnext.printable import printable
from keras_convnext.trunks import trunk_of
from keras_convnext.variants import VARIANTS

_POOLS = {
    keras.layers.GlobalAveragePooling2D: "avg",
    keras.layers.GlobalMaxPooling2D: "max",
}


class _Trunk(NamedTuple):
    """A ConvNeXt of `keras.applications` in the graph of a model.

    Args:
        name: str. Prefix of its layers' names.
        image: KerasTensor. Its input.
        output: KerasTensor. Its output.
        pooling: str or None. "avg" or "max".
        norm: keras.layers.LayerNormalization. The norm after the pooling.
        head: keras.layers.Dense or None.
    """

    name: str
    image: Any
    output: Any
    pooling: str | None
    norm: keras.layers.Layer
    head: keras.layers.Layer | None


def from_keras_applications(model: keras.Model) -> keras.Model:
    """Converts a ConvNeXt of `keras.applications` to this package, with the same outputs.

    Example:

    ```python
    theirs = keras.applications.ConvNeXtTiny()
    ours = keras_convnext.from_keras_applications(theirs)
    ```

    Args:
        model: keras.Model. Built by `keras.applications.ConvNeXtTiny` or one of its siblings, with
            any arguments, or a Sequential or functional model that contains one, with your own
            head, augmentation or nesting. Layers outside the ConvNeXt are shared with the returned
            model. A frozen ConvNeXt stays frozen.

    Returns:
        A keras.Model, not compiled. For a ConvNeXt alone it equals what the builders return; for a
        model that contains one, it is that model with the ConvNeXt replaced.

    Raises:
        ValueError: If the model contains no ConvNeXt of `keras.applications`, or uses intermediate
            outputs of it.
    """
    if not _names(model):
        raise ValueError(
            "The model contains no ConvNeXt of keras.applications: pass one, or a model with one. "
            f"Received: model={printable(model.name)}"
        )
    return _converted(model)


def _names(model: keras.Model) -> list[str]:
    """Returns the name prefix of each of their networks, including those in nested models."""
    found = (
        re.fullmatch(r"(.+)_stem", layer.name)
        for layer in model._flatten_layers()
        if isinstance(layer, keras.Sequential)
    )
    return [match[1] for match in found if match]


def _converted(model: keras.Model) -> keras.Model:
    names = [name for name in _names(model) if f"{name}_stem" in {x.name for x in model.layers}]
    if names:
        return _replaced(model, _trunk(model, names[0]))

    def replace(layer: keras.layers.Layer) -> keras.layers.Layer:
        is_around = isinstance(layer, keras.Model) and _names(layer)
        return _converted(layer) if is_around else layer

    return keras.models.clone_model(model, clone_function=replace)


def _replaced(model: keras.Model, trunk: _Trunk) -> keras.Model:
    """Returns the model with our network in place of theirs."""
    ours = _network(model, trunk)
    starts, ends = trunk.image is model.input, trunk.output is model.output
    if starts and ends:
        return ours
    image = model.input if starts else keras.Model(model.input, trunk.image)(model.input)
    x = ours(image)
    if not ends:
        x = keras.Model(trunk.output, model.output)(x)
    return keras.Model(model.input, x, name=model.name)


def _trunk(model: keras.Model, name: str) -> _Trunk:
    nodes = [node for nodes in model._nodes_by_depth.values() for node in nodes]

    def node_of(layer: keras.layers.Layer) -> Any:
        return next(node for node in nodes if node.operation is layer)

    def next_after(tensor: Any) -> Any:
        users = [node for node in nodes if any(tensor is each for each in node.input_tensors)]
        if len(users) != 1:
            raise ValueError(
                "The model uses intermediate outputs of the ConvNeXt: remove them before the "
                "conversion, and call pyramid_features on the converted network instead. "
                f"Received: model={printable(model.name)} with {len(users)} layers after "
                f"{printable(tensor.name)}"
            )
        return users[0]

    layers = {layer.name: layer for layer in model.layers}
    first = layers.get(f"{name}_prestem_normalization", layers[f"{name}_stem"])
    *_, last = (layer for layer in model.layers if layer.name.startswith(f"{name}_stage_"))
    added = next_after(node_of(last).output_tensors[0])  # the residual sum of the last block
    node, pooling = next_after(added.output_tensors[0]), None
    if type(node.operation) in _POOLS:
        pooling = _POOLS[type(node.operation)]
        node = next_after(node.output_tensors[0])
    norm, head = node.operation, layers.get(f"{name}_head_dense")
    return _Trunk(
        name,
        node_of(first).input_tensors[0],
        node_of(head or norm).output_tensors[0],
        pooling,
        norm,
        head,
    )


def _network(model: keras.Model, trunk: _Trunk) -> keras.Model:
    """Builds our network with the weights of theirs."""
    theirs = {layer.name: layer for layer in model._flatten_layers()}
    theirs[f"{trunk.name}_head_layernorm"] = trunk.norm
    pattern = re.compile(re.escape(trunk.name) + r"_stage_(\d)_block_\d+_depthwise_conv")
    blocks = [
        (int(match[1]), layer)
        for name, layer in theirs.items()
        if (match := pattern.fullmatch(name))
    ]
    depths = tuple(sum(each == stage for each, _ in blocks) for stage in range(4))
    dims = tuple(dict(blocks)[stage].filters for stage in range(4))
    known = (
        row for row in VARIANTS.values() if (row.depths, row.dims) == (depths, dims) and not row.grn
    )
    build = next((BUILDERS[row.name] for row in known), partial(ConvNeXt, depths, dims))
    prefix = f"{trunk.name}_stage_3_block_{depths[3] - 1}"
    scale = theirs.get(f"{prefix}_layer_scale")
    drop_path = theirs.get(f"{prefix}_stochastic_depth")
    options: dict[str, Any] = {"include_top": False}
    if trunk.head is not None:
        options = {
            "classes": trunk.head.units,
            "classifier_activation": trunk.head.activation,
        }
    with dtype_policy(blocks[0][1].dtype_policy), about_to_load():
        ours = build(
            weights=None,
            include_preprocessing=f"{trunk.name}_prestem_normalization" in theirs,
            input_shape=trunk.image.shape[1:],
            drop_path_rate=drop_path.drop_path_rate if drop_path else 0.0,
            layer_scale_init_value=scale.init_values if scale else None,
            **options,
        )
        if trunk.head is None:
            norm = LayerNormalization(epsilon=1e-6, name="norm")
            x = pooled(ours.output, trunk.pooling) if trunk.pooling else norm(ours.output)
            ours = keras.Model(ours.input, x, name=ours.name)
    for place, layer in _places(ours):
        form = form_of(place, KERAS_APPLICATIONS, trunk.name)
        assert form is not None  # the layout has a row for every layer of a hierarchical network
        source = theirs[form.key.rpartition(".")[0].rpartition("/")[2]]
        target = getattr(layer, place.variable)
        array = keras.ops.convert_to_numpy(getattr(source, place.variable))
        target.assign(array.reshape(target.shape))  # a depthwise kernel's axis of 1 may differ
    ours.trainable = any(layer.trainable for _, layer in blocks)
    return ours


def _places(model: keras.Model) -> Iterator[tuple[Place, keras.layers.Layer]]:
    """Yields the place of each variable of a network, and the layer that holds it."""
    for name, layer in trunk_of(model).layers.items():
        parts = layer.parts() if isinstance(layer, Block) else ()
        for place, part in {name: layer, **{f"{name}/{part.name}": part for part in parts}}.items():
            for variable in ("gamma", "beta", "kernel", "bias"):
                if getattr(part, variable, None) is not None:
                    yield Place(place, variable), part
