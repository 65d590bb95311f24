"""A file of weights into a model, and into a file of another kind."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras

from keras_convnext.builders import BUILDERS, ConvNeXt, ConvNeXtIsotropic
from keras_convnext.initializers import about_to_load
from keras_convnext.network import layers_by_name
from keras_convnext.pretrained.cache import ported_weights
from keras_convnext.pretrained.catalog import find
from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.identify import identify
from keras_convnext.pretrained.porting import Progress, load_checkpoint, save_checkpoint
from keras_convnext.variants import VARIANTS, Variant

TARGETS = (".h5", ".keras", ".safetensors", ".pth")


def load_model(
    source: str | Path,
    model: str | None = None,
    include_top: bool = True,
    entry: str | None = None,
    progress: Progress = iter,
    **options: Any,
) -> keras.Model:
    """Builds the network that a file of weights is of, with those weights.

    Example:

    ```python
    model = keras_convnext.load_model("convnext_base_22k_224.pth")  # base, with 21,841 classes
    ```

    Args:
        source: str or path. A `.pth`, `.safetensors`, `.weights.h5` or legacy `.h5` file in any
            layout, or a `.keras` model; or the name of published weights, such as "imagenet".
        model: str or None. The network, such as "convnext_tiny": needed for published weights, and
            otherwise compared with the file's. Defaults to None.
        include_top: bool. Whether to keep the head. Without it, and if the file has none, the model
            ends in the pooled and normalised features. Defaults to True.
        entry: str or None. Which dict of tensors of a `.pth` to take, as in `load_checkpoint`.
        progress: function. As in `load_checkpoint`.
        **options: Other arguments of the builder, such as `input_shape`.

    Returns:
        A keras.Model.

    Raises:
        ValueError: If the network has no such published weights.
        CheckpointError: If the file is damaged, or is none of this network.
        DownloadError: If published weights cannot be fetched.
        FileNotFoundError: If there is no such file.
    """
    source = Path(source)
    if not source.is_file():
        if source.suffix or model is None:
            raise FileNotFoundError(
                "There is no such file; of published weights, name the network too. "
                f"Received: {source}"
            )
        if model not in VARIANTS:
            raise ValueError(f"model is one of {', '.join(VARIANTS)}. Received: model={model}")
        return _build(VARIANTS[model], include_top, weights=str(source), **options)
    if source.suffix == ".keras":
        loaded = keras.models.load_model(source)
        if include_top:
            return loaded
        return keras.Model(loaded.input, layers_by_name(loaded)["norm"].output)
    variant, classes = identify(source, entry)
    if model not in (None, variant.name):
        raise CheckpointError(f"This is a {variant.name} checkpoint, not {model} (file: {source})")
    if include_top and classes is not None:
        options = {"classes": classes, **options}
    with about_to_load():
        built = _build(
            variant,
            include_top and classes is not None,
            layer_scale_init_value=variant.layer_scale,
            **options,
        )
    load_checkpoint(built, source, entry, progress)
    return built


def checkpoint_file(source: str | Path, model: str | None = None) -> Path:
    """Returns the file of weights that `load_model` reads, fetching published ones if need be.

    Args:
        source: as in `load_model`.
        model: as in `load_model`.
    """
    return Path(source) if Path(source).is_file() else ported_weights(find(model, str(source)))


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
        network.depths, network.dims, patch_size=patch_size, kernel_size=kernel_size, **options
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
    if target.suffix != ".keras":
        converted = load_model(source, model, include_top, entry, progress)
        save_checkpoint(converted, target, layout, dtype, progress)
        return converted
    if dtype is not None and Path(source).suffix == ".keras":
        raise ValueError(f"A .keras model keeps its dtypes. Received: dtype={dtype}")
    with dtype_policy(dtype):
        converted = load_model(source, model, include_top, entry, progress)
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
