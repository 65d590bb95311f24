"""A file of weights into a model, and into a file of another kind."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import keras

from keras_convnext.builders import BUILDERS, ConvNeXt, ConvNeXtIsotropic
from keras_convnext.call_graph import graph_of
from keras_convnext.initializers import about_to_load
from keras_convnext.pretrained.cache import ported_weights
from keras_convnext.pretrained.catalog import find, list_weights
from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.foreign_files import missing_file
from keras_convnext.pretrained.identify import identify
from keras_convnext.pretrained.keras_file import SUFFIX as KERAS_SUFFIX
from keras_convnext.pretrained.keras_model import load_keras_model
from keras_convnext.pretrained.model_weights import Progress
from keras_convnext.pretrained.porting import load_checkpoint
from keras_convnext.pretrained.rewriting import check_dtype
from keras_convnext.pretrained.trunks import listed
from keras_convnext.pretrained.writing import save_checkpoint
from keras_convnext.printable import printable
from keras_convnext.trunks import head_of, trunk_of
from keras_convnext.variants import VARIANTS, Variant

TARGETS = (".h5", ".keras", ".safetensors", ".pth")


def load_model(
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
    """Builds the network that a file of weights is of, with those weights.

    The file decides on the depths and widths, layer scale, the number of classes, and the channels
    and, if it records it, the size of the images.

    The model of a `.keras` file comes as it was saved, with the layers around the network, and is
    not compiled; with `options` the network in it is built anew, if a builder can.

    Example:

    ```python
    model = keras_convnext.load_model("convnext_base_22k_224.pth")  # base, with 21,841 classes
    ```

    Args:
        source: str or path. A PyTorch, safetensors or HDF5 file in any layout, the index of a
            sharded one, a folder that holds one of these, or a `.keras` model; or the name of
            published weights, such as "imagenet".
        model: str or None. The network, such as "convnext_tiny": needed for published weights, and
            otherwise compared with the file's. Defaults to None.
        include_top: bool. Whether to keep the head. Without it, and if the file has none, the model
            ends in the pooled and normalised features. Defaults to True.
        entry: str or None. Which dict of tensors of a `.pth` to take, as in `load_checkpoint`.
        progress: function. As in `load_checkpoint`.
        prefix: str or None. Which ConvNeXt of several to take, as in `load_checkpoint`.
        ignore: str or iterable of str. Tensors to leave out, as in `load_checkpoint`.
        **options: Other arguments of the builder, such as `input_shape`.

    Returns:
        A keras.Model.

    Raises:
        ValueError: If the network has no such published weights.
        CheckpointError: If the file is damaged, or is none of this network; or if `options` are
            given for a `.keras` model that has layers which no builder makes.
        DownloadError: If published weights cannot be fetched.
        FileNotFoundError: If there is no such file.
    """
    source = Path(source)
    if not _is_local(source, model):
        if source.suffix or model is None:
            told = missing_file(str(source)) or (
                "There is no such file; of published weights, name the network too"
            )
            raise FileNotFoundError(f"{told}. Received: {printable(source)}")
        if model not in VARIANTS:
            raise ValueError(f"model is one of {', '.join(VARIANTS)}. Received: model={model}")
        return _build(VARIANTS[model], include_top, weights=str(source), **options)
    if source.suffix == KERAS_SUFFIX:
        if entry is not None:
            raise CheckpointError(f"A .keras file has no entries. Received: entry={entry!r}")
        loaded = load_keras_model(source)
        if model is None and prefix is None and not ignore and not options:
            return loaded if include_top else _without_top(loaded)
    found = identify(source, entry, prefix, ignore)
    network, classes = found.variant, options.get("classes") or found.classes
    if model not in (None, network.name):
        raise CheckpointError(f"This is a {network.name} checkpoint, not {model} (file: {source})")
    if source.suffix == KERAS_SUFFIX:
        if not options:
            return loaded if include_top else _without_top(loaded)
        options = {**_options_of(loaded, include_top, source), **options}
    include_top = include_top and classes is not None
    options = {"layer_scale_init_value": network.layer_scale, **options, "classes": classes}
    if options.get("input_shape") is None and options.get("input_tensor") is None:
        size = found.size or VARIANTS.get(network.name, network).size
        options["input_shape"] = (*([size] * 2 if include_top else [None] * 2), found.channels)
    is_fresh = include_top and classes != found.classes  # the head, which needs random weights
    with nullcontext() if is_fresh else about_to_load():
        built = _build(network, include_top, **options)
    load_checkpoint(built, source, entry, progress, prefix=prefix, ignore=ignore)
    return built


def _without_top(model: keras.Model) -> keras.Model:
    """The network in a model, up to its norm, or to its last map if it has none."""
    trunk = trunk_of(model)
    last = trunk.layers.get("norm", trunk.blocks[-1])
    return keras.Model(trunk.model.inputs[0], last.output, name=trunk.model.name)


def _options_of(model: keras.Model, include_top: bool, source: Path) -> dict[str, Any]:
    """What a builder is asked for, to make the network in a model again.

    Raises:
        CheckpointError: If the model has layers that no builder makes.
    """
    trunk = trunk_of(model)
    head = head_of(model, trunk)
    graph = graph_of(model)
    stems = graph.of_layer(trunk.layers["stem_conv"])
    if len(stems) != 1 or len(graph.inputs) != 1:
        raise CheckpointError(
            f"The model has {len(graph.inputs)} inputs and calls its network {len(stems)} times, "
            "which no builder does: call load_model with nothing but the file, and change what it "
            f"returns (file: {source})"
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
        layers = listed(own) if own else "no head"
        raise CheckpointError(
            f"The model has {layers} where a network of the builders has not: call load_model with "
            f"nothing but the file, and change what it returns (file: {source})"
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
    """Returns the file of weights that `load_model` reads, fetching published ones if need be.

    Args:
        source: as in `load_model`.
        model: as in `load_model`.
    """
    if _is_local(Path(source), model):
        return Path(source)
    return ported_weights(find(model, str(source)))


def _is_local(source: Path, model: str | None) -> bool:
    """Whether it is a file, or a folder that is not called as published weights of the model are.

    A folder `imagenet` may hold the images.
    """
    tags = {row.tag for row in list_weights(model)} if model in VARIANTS else set()
    return source.is_file() or (source.is_dir() and str(source) not in tags)


def _build(network: Variant, include_top: bool, **options: Any) -> keras.Model:
    options = {"weights": None, "include_top": include_top, **options}
    if not include_top:
        options = {"pooling": "avg", **options}
    if network.name in BUILDERS:
        return BUILDERS[network.name](**options)
    patch_size, kernel_size = network.patch_size, network.kernel_size
    if network.isotropic:
        depth, dim = network.depths[0], network.dims[0]
        return ConvNeXtIsotropic(
            depth, dim, patch_size=patch_size, kernel_size=kernel_size, **options
        )
    return ConvNeXt(
        network.depths,
        network.dims,
        patch_size=patch_size,
        kernel_size=kernel_size,
        epsilon=network.epsilon,
        **options,
    )


def convert(
    source: str | Path,
    target: str | Path,
    model: str | None = None,
    layout: str | None = None,
    include_top: bool = True,
    dtype: str | None = None,
    entry: str | None = None,
    progress: Progress = iter,
    *,
    prefix: str | None = None,
    ignore: str | Iterable[str] = (),
) -> keras.Model:
    """Turns a file of weights into one of another kind or another layout.

    Example:

    ```python
    convert("convnext_tiny_1k_224_ema.pth", "tiny.safetensors", layout="timm", dtype="float16")
    ```

    Args:
        source: as in `load_model`.
        target: str or path. Ends in `.weights.h5`, the legacy `.h5`, `.keras`, `.safetensors` or
            `.pth`. The file appears under its name once it is whole.
        model: as in `load_model`.
        layout: str or None. As in `save_checkpoint`; a `.keras` target has none. Defaults to None.
        include_top: bool. Whether to keep the head. Defaults to True.
        dtype: str or None. What to round the weights to, such as "float16". Defaults to None, as
            they are.
        entry: as in `load_model`.
        progress: function. As in `load_checkpoint`, for what is read and again for what is written.
        prefix: as in `load_model`.
        ignore: as in `load_model`.

    Returns:
        The keras.Model that was written.

    Raises:
        ValueError: If `target` ends in something else, or has no such layout.
        CheckpointError: As in `load_model`, or if the layout has no place for a weight.
        OSError: If the target cannot be written; nothing is left of it.
    """
    target = Path(target)
    if not target.name.endswith(TARGETS):
        raise ValueError(f"target ends in {', '.join(TARGETS)}. Received: target={target}")
    check_dtype(dtype)
    if target.suffix != ".keras":
        converted = load_model(
            source, model, include_top, entry, progress, prefix=prefix, ignore=ignore
        )
        save_checkpoint(converted, target, layout, dtype, progress)
        return converted
    if dtype is not None and Path(source).suffix == ".keras":
        raise ValueError(f"A .keras model keeps its dtypes. Received: dtype={dtype}")
    with dtype_policy(dtype):
        converted = load_model(
            source, model, include_top, entry, progress, prefix=prefix, ignore=ignore
        )
    partial = target.with_name(f"partial.{target.name}")
    try:
        converted.save(partial)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return converted


@contextmanager
def dtype_policy(dtype: Any) -> Iterator[None]:
    """Makes layers with another dtype policy than the global one, or with that if it is None."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(before if dtype is None else dtype)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)
