"""Builds classifiers and trunks from weight files."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import keras

from keras_convnext.builders import BUILDERS, ConvNeXt, ConvNeXtIsotropic, ConvNeXtV2
from keras_convnext.call_graph import graph_of
from keras_convnext.initializers import about_to_load
from keras_convnext.pixels import set_normalization
from keras_convnext.pretrained.cache import model_file
from keras_convnext.pretrained.catalog import find, list_weights
from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.foreign_files import missing_file
from keras_convnext.pretrained.hub_files import local_source
from keras_convnext.pretrained.identify import identify
from keras_convnext.pretrained.keras_file import SUFFIX as KERAS_SUFFIX
from keras_convnext.pretrained.keras_model import load_keras_model
from keras_convnext.pretrained.model_weights import Progress
from keras_convnext.pretrained.porting import load_checkpoint
from keras_convnext.pretrained.preparation import recorded_preparation
from keras_convnext.pretrained.trunks import listed
from keras_convnext.printable import printable
from keras_convnext.trunks import head_of, trunk_of
from keras_convnext.variants import VARIANTS, Variant


def load_classifier(
    source: str | Path,
    model: str | None = None,
    include_top: bool = True,
    entry: str | None = None,
    progress: Progress = iter,
    *,
    prefix: str | None = None,
    ignore: str | Iterable[str] = (),
    **options: Any,
) -> keras.Model:
    """Builds the classifier in a weight file, or the trunk of any network, and loads its weights.

    Args and errors are those of `conversion.load_model`, except for segmenters, whose trunk alone
    is loaded, with `include_top=False` or other `classes`.
    """
    source = Path(local_source(source))
    if not is_local(source, model):
        _check_may_be_published(source, model)
        if model not in VARIANTS:
            raise ValueError(
                f"model must be one of {', '.join(VARIANTS)}. Received: model={printable(model)}"
            )
        return build(VARIANTS[model], include_top, weights=str(source), **options)
    if source.suffix == KERAS_SUFFIX:
        if entry is not None:
            raise CheckpointError(f"A .keras file has no entries. Received: entry={entry!r}")
        loaded = load_keras_model(source)
        if model is None and prefix is None and not ignore and not options:
            return loaded if include_top else _without_top(loaded)
    found = identify(source, entry, prefix, ignore)
    network, classes = found.variant, options.get("classes")
    if model not in (None, network.name):
        raise CheckpointError(
            f"This is a checkpoint of {network.name}, not of {model} (file: {source})"
        )
    if not found.head:
        classes = classes or found.classes
    elif include_top and classes is None:
        raise CheckpointError(
            f"This is a checkpoint of {found.name}, which has no classifier of images: pass "
            f"include_top=False for its trunk (file: {source})"
        )
    if source.suffix == KERAS_SUFFIX:
        if not options and prefix is None and not ignore:
            return loaded if include_top else _without_top(loaded)
        options = {**_options_of(loaded, include_top, source), **options}
    include_top = include_top and classes is not None
    layer_scale = {} if network.grn else {"layer_scale_init_value": network.layer_scale}
    options = {**layer_scale, **options, "classes": classes}
    if options.get("input_shape") is None and options.get("input_tensor") is None:
        size = found.size or VARIANTS.get(network.name, network).size
        options["input_shape"] = (*([size] * 2 if include_top else [None] * 2), found.channels)
    # Then the head needs random weights.
    is_fresh = include_top and (found.head or classes != found.classes)
    with nullcontext() if is_fresh else about_to_load():
        built = build(network, include_top, **options)
    if pixels := recorded_preparation(source).pixels:
        set_normalization(built, pixels)
    load_checkpoint(built, source, entry, progress, prefix=prefix, ignore=ignore)
    return built


def _without_top(model: keras.Model) -> keras.Model:
    """Returns the network in a model up to its final norm, or up to its last feature map."""
    trunk = trunk_of(model)
    last = trunk.layers.get("norm", trunk.blocks[-1])
    return keras.Model(trunk.model.inputs[0], last.output, name=trunk.model.name)


def _options_of(model: keras.Model, include_top: bool, source: Path) -> dict[str, Any]:
    """Returns the builder arguments that recreate the network in a model.

    Raises:
        CheckpointError: If the model has layers that no builder creates.
    """
    trunk = trunk_of(model)
    head = head_of(model, trunk)
    graph = graph_of(model)
    stems = graph.of_layer(trunk.layers["stem_conv"])
    if len(stems) != 1 or len(graph.inputs) != 1:
        raise CheckpointError(
            f"The model has {len(graph.inputs)} inputs and calls its network {len(stems)} times: "
            "no builder can recreate it. Call load_model without other arguments, and modify the "
            f"model (file: {source})"
        )
    (last,) = graph.of_layer(trunk.layers.get("norm", trunk.blocks[-1]))
    known = {id(layer) for layer in (*trunk.layers.values(), head)}
    activation = graph.made_by(graph.outputs[0])
    if activation and isinstance(activation.layer, (keras.layers.Activation, keras.layers.Softmax)):
        known.add(id(activation.layer))
    own = [
        step.layer.name
        for step in graph.steps
        if id(step.layer) not in known
        and not step.layer.name.endswith("_cast")
        and (include_top or step not in graph.after(last.outputs[0]))
    ]
    if own or (include_top and (head is None or len(graph.outputs) > 1)):
        layers = f"has the layers {listed(own)}" if own else "has no head"
        raise CheckpointError(
            f"The model {layers}, so no builder can recreate it. Call load_model without other "
            f"arguments, and modify the model (file: {source})"
        )
    options = {
        "input_shape": graph.inputs[0].shape[1:],
        "include_preprocessing": stems[0].inputs != graph.inputs,
        "drop_path_rate": trunk.blocks[-1].drop_path.rate,
        "name": trunk.model.name,
    }
    if not include_top:
        return options | {"pooling": "max" if "max_pool" in trunk.layers else "avg"}
    assert activation is not None  # there is a head
    last_layer = activation.layer
    softmax = isinstance(last_layer, keras.layers.Softmax)
    return options | {
        "classifier_activation": "softmax" if softmax else last_layer.activation,
    }


def checkpoint_file(source: str | Path, model: str | None = None) -> Path:
    """Returns the weight file that `load_model` reads, downloading published weights if needed.

    Args:
        source: as in `load_model`.
        model: as in `load_model`.

    Raises:
        FileNotFoundError: If there is neither such a file nor a network to find a name for.
    """
    source = Path(local_source(source))
    if is_local(source, model):
        return source
    _check_may_be_published(source, model)
    return model_file(find(model, str(source)))


def _check_may_be_published(source: Path, model: str | None) -> None:
    """Refuses what names no file and cannot name published weights.

    Raises:
        FileNotFoundError: If it has the suffix of a file, or there is no network.
    """
    if source.suffix or model is None:
        told = missing_file(str(source)) or (
            "There is no such file. For published weights, pass the network as well: model="
        )
        raise FileNotFoundError(f"{told}. Received: {printable(source)}")


def is_local(source: Path, model: str | None) -> bool:
    """Whether a source is a file, or a folder without the name of published weights of the model.

    A folder `imagenet` may contain images.
    """
    tags = {row.tag for row in list_weights(model)} if model is not None else set()
    return source.is_file() or (source.is_dir() and str(source) not in tags)


def build(network: Variant, include_top: bool, **options: Any) -> keras.Model:
    """Builds a network, published or not, with random weights unless `options` have others."""
    options = {"weights": None, "include_top": include_top, **options}
    if not include_top:
        options = {"pooling": "avg", **options}
    if network.name in BUILDERS:
        return BUILDERS[network.name](**options)
    if network.hidden and include_top:
        raise CheckpointError(
            "The classifier in this file has a hidden layer, which only convnext_large_mlp has: "
            f"pass include_top=False. Received: {network.hidden} hidden channels"
        )
    patch_size, kernel_size = network.patch_size, network.kernel_size
    if network.isotropic:
        depth, dim = network.depths[0], network.dims[0]
        return ConvNeXtIsotropic(
            depth, dim, patch_size=patch_size, kernel_size=kernel_size, **options
        )
    return (ConvNeXtV2 if network.grn else ConvNeXt)(
        network.depths,
        network.dims,
        patch_size=patch_size,
        kernel_size=kernel_size,
        epsilon=network.epsilon,
        **options,
    )


@contextmanager
def dtype_policy(dtype: Any) -> Iterator[None]:
    """Sets the global dtype policy within a `with` block, unless it is None."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(before if dtype is None else dtype)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
