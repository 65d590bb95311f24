"""The network of "A ConvNet for the 2020s" (Liu et al., arXiv 2201.03545), top to bottom.

Shapes are those of an image of H x W pixels and a patch of 4; C is the width of the stage.
"""

import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_convnext.block import Block
from keras_convnext.initializers import TruncatedNormal, kernel_initializer
from keras_convnext.layers import LayerNormalization, PatchConv2D
from keras_convnext.variants import Variant

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB in 0..1, as the official code normalises it
IMAGENET_STD = (0.229, 0.224, 0.225)


def at_least_float32() -> str:
    """The dtype for what half precision would spoil: the pixels and the probabilities."""
    return keras.backend.result_type(keras.config.dtype_policy().compute_dtype, "float32")


def normalization(x: Any, prefix: str = "") -> Any:
    """From pixels in 0..255 to ImageNet's zero mean and unit deviation.

    A grey image takes the average of the three channels' figures; channels past the third start
    over with red's.
    """
    channels = x.shape[-1]
    mean, std = np.array(IMAGENET_MEAN), np.array(IMAGENET_STD)
    if channels == 1:
        mean, std = mean.mean(keepdims=True), std.mean(keepdims=True)
    mean, std = np.resize(mean, channels), np.resize(std, channels)
    return keras.layers.Rescaling(
        scale=(1 / (255 * std)).tolist(),
        offset=(-mean / std).tolist(),
        dtype=at_least_float32(),
        name=f"{prefix}normalization",
    )(x)  # (N, H, W, 3)


def trunk(
    x: Any, variant: Variant, drop_path_rate: float = 0.0, remat: bool = False, prefix: str = ""
) -> Any:
    """Stem and stages: from normalised pixels to the last map.

    The drop rate rises linearly from 0 at the first block to `drop_path_rate` at the last.
    """
    rates = iter(np.linspace(0, drop_path_rate, sum(variant.depths)).tolist())
    x = stem(x, variant, prefix)
    for stage, (depth, dim) in enumerate(zip(variant.depths, variant.dims)):
        if stage > 0:
            x = downsample(x, dim, variant, f"{prefix}downsample_{stage}")
        of_stage = "" if variant.isotropic else f"stages_{stage}_"
        for index in range(depth):
            x = Block(
                dim,
                variant.kernel_size,
                layer_scale=variant.layer_scale,
                drop_path=next(rates),
                stddev=variant.stddev,
                remat=remat,
                epsilon=variant.epsilon,
                name=f"{prefix}{of_stage}blocks_{index}",
            )(x)  # (N, H/4, W/4, C)
    return x  # (N, H/32, W/32, 8C)


def stem(x: Any, variant: Variant, prefix: str = "") -> Any:
    """Cuts the image into patches: "patchify", section 2.3."""
    x = PatchConv2D(
        variant.dims[0],
        variant.patch_size,
        kernel_initializer=kernel_initializer(variant.stddev, variant.patch_size**2 * x.shape[-1]),
        name=f"{prefix}stem_conv",
    )(x)  # (N, H/4, W/4, C)
    return x if variant.isotropic else _norm(f"{prefix}stem_norm", variant.epsilon)(x)


def downsample(x: Any, dim: int, variant: Variant, name: str) -> Any:
    """Halves the map before a stage, with a norm to keep training stable: section 2.6."""
    x = _norm(f"{name}_norm", variant.epsilon)(x)
    init = kernel_initializer(variant.stddev, 4 * x.shape[-1])
    return PatchConv2D(dim, 2, kernel_initializer=init, name=f"{name}_conv")(x)  # (N, H/8, W/8, 2C)


def pooled(x: Any, pooling: str, prefix: str = "", epsilon: float = 1e-6) -> Any:
    """The features under the classifier: the norm comes after the pooling."""
    pools = {
        "avg": keras.layers.GlobalAveragePooling2D,
        "max": keras.layers.GlobalMaxPooling2D,
    }
    x = pools[pooling](data_format="channels_last", name=f"{prefix}{pooling}_pool")(x)  # (N, 8C)
    return _norm(f"{prefix}norm", epsilon)(x)


def head(
    x: Any,
    classes: int,
    init_scale: float,
    activation: str | Callable[[Any], Any] | None,
    prefix: str = "",
) -> Any:
    """Logits from the layer `head`, and what the activation makes of them from `predictions`."""
    x = keras.layers.Dense(
        classes,
        kernel_initializer=TruncatedNormal(stddev=0.02 * init_scale),
        name=f"{prefix}head",
    )(x)  # (N, classes)
    return keras.layers.Activation(
        activation, dtype=at_least_float32(), name=f"{prefix}predictions"
    )(x)


def _norm(name: str, epsilon: float) -> keras.layers.Layer:
    return LayerNormalization(epsilon=epsilon, name=name)


def layers_by_name(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """Returns the layers of a network by name, without the prefix that `name=` puts before them.

    Example:

    ```python
    left = keras_convnext.ConvNeXtTiny(weights=None, name="left")
    layers_by_name(left)["head"].name  # "left_head"
    ```
    """
    stem = next((layer.name for layer in model.layers if layer.name.endswith("stem_conv")), "")
    prefix = stem.removesuffix("stem_conv")
    return {layer.name.removeprefix(prefix): layer for layer in model.layers}


def pyramid_features(model: keras.Model) -> keras.Model:
    """Makes a model that returns the map at the end of each stage, for dense prediction.

    Example:

    ```python
    trunk = keras_convnext.ConvNeXtTiny(include_top=False, weights=None)
    maps = keras_convnext.pyramid_features(trunk)(images)
    maps["P3"].shape  # (N, H/8, W/8, 192)
    ```

    Args:
        model: keras.Model. Made by one of the hierarchical builders, with or without its top. The
            layers are shared with it, not copied.

    Returns:
        A keras.Model with the same input and a dict of maps `P2` to `P5`: `Pn` has stride 2**n.
        The maps are not normalised; detectors and segmenters add a norm of their own to each.

    Raises:
        ValueError: If the model has no stages, as the isotropic ones.
    """
    layers = layers_by_name(model)
    last_of_stage = {}
    for name, layer in layers.items():
        if match := re.fullmatch(r"stages_(\d+)_blocks_\d+", name):
            last_of_stage[int(match[1])] = layer
    if not last_of_stage:
        raise ValueError(
            "Only a hierarchical ConvNeXt has a pyramid of maps; pass the network itself, not a "
            f"model around it. Received: model={model.name}"
        )
    patch_size = layers["stem_conv"].patch_size
    if patch_size & (patch_size - 1):
        raise ValueError(
            "The levels of a pyramid are named after strides that are powers of 2. "
            f"Received: a model with patch_size={patch_size}"
        )
    first = patch_size.bit_length() - 1
    outputs = {f"P{first + stage}": layer.output for stage, layer in last_of_stage.items()}
    return keras.Model(model.input, outputs, name=f"{model.name}_pyramid")
