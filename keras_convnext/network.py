"""The network of "A ConvNet for the 2020s" (Liu et al., arXiv 2201.03545), top to bottom.

Shapes are those of an image of H x W pixels and a patch of 4; C is the width of the stage.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_convnext.initializers import TruncatedNormal
from keras_convnext.layers import (
    DepthwiseConv2D,
    DropPath,
    LayerNormalization,
    LayerScale,
    PatchConv2D,
    PointwiseDense,
    Remat,
)
from keras_convnext.variants import Variant

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB in 0..1, as the official code normalises it
IMAGENET_STD = (0.229, 0.224, 0.225)


def _initializer(stddev: float | None, inputs: int) -> keras.initializers.Initializer:
    """A new one for each layer: an initializer that is shared gives equal shapes equal values.

    Args:
        stddev: float or None. As in `Variant`.
        inputs: int. Numbers that one output is the sum of.
    """
    return TruncatedNormal(stddev=inputs**-0.5 if stddev is None else stddev)


def _norm(name: str) -> keras.layers.Layer:
    return LayerNormalization(epsilon=1e-6, name=name)


def at_least_float32() -> str:
    """The dtype for what half precision would spoil: the pixels and the probabilities."""
    return keras.backend.result_type(keras.config.dtype_policy().compute_dtype, "float32")


def normalization(x: Any) -> Any:
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
        name="normalization",
    )(x)  # (N, H, W, 3)


def stem(x: Any, variant: Variant) -> Any:
    """Cuts the image into patches: "patchify", section 2.3."""
    x = PatchConv2D(
        variant.dims[0],
        variant.patch_size,
        kernel_initializer=_initializer(variant.stddev, variant.patch_size**2 * x.shape[-1]),
        name="stem_conv",
    )(x)  # (N, H/4, W/4, C)
    return x if variant.isotropic else _norm("stem_norm")(x)


def downsample(x: Any, dim: int, stddev: float | None, name: str) -> Any:
    """Halves the map before a stage, with a norm to keep training stable: section 2.6."""
    x = _norm(f"{name}_norm")(x)
    return PatchConv2D(
        dim, 2, kernel_initializer=_initializer(stddev, 4 * x.shape[-1]), name=f"{name}_conv"
    )(x)  # (N, H/8, W/8, 2C)


def block(
    x: Any,
    variant: Variant,
    drop_path_rate: float,
    remat: bool,
    name: str,
) -> Any:
    """Depthwise convolution, norm, and two pointwise layers around one GELU: figure 4."""
    shortcut, dim, stddev = x, x.shape[-1], variant.stddev
    x = DepthwiseConv2D(
        variant.kernel_size,
        padding="same",
        data_format="channels_last",
        depthwise_initializer=_initializer(stddev, variant.kernel_size**2),
        name=f"{name}_dwconv",
    )(x)  # (N, H/4, W/4, C)
    x = _norm(f"{name}_norm")(x)
    x = PointwiseDense(
        4 * dim,
        activation="gelu",  # the exact one, with erf
        kernel_initializer=_initializer(stddev, dim),
        name=f"{name}_pwconv1",
    )(x)  # (N, H/4, W/4, 4C)
    x = PointwiseDense(
        dim, kernel_initializer=_initializer(stddev, 4 * dim), name=f"{name}_pwconv2"
    )(x)  # (N, H/4, W/4, C)
    if variant.layer_scale is not None:
        x = LayerScale(variant.layer_scale, name=f"{name}_layer_scale")(x)
    if remat:
        x = Remat(name=f"{name}_remat")(x)
    if drop_path_rate > 0:
        x = DropPath(drop_path_rate, name=f"{name}_drop_path")(x)
    return keras.layers.Add(name=f"{name}_add")([shortcut, x])


def trunk(x: Any, variant: Variant, drop_path_rate: float = 0.0, remat: bool = False) -> Any:
    """Stem and stages: from normalised pixels to the last map.

    The drop rate rises linearly from 0 at the first block to `drop_path_rate` at the last.
    """
    rates = iter(np.linspace(0, drop_path_rate, sum(variant.depths)).tolist())
    x = stem(x, variant)
    for stage, (depth, dim) in enumerate(zip(variant.depths, variant.dims)):
        if stage > 0:
            x = downsample(x, dim, variant.stddev, f"downsample_{stage}")
        for index in range(depth):
            name = f"blocks_{index}" if variant.isotropic else f"stages_{stage}_blocks_{index}"
            x = block(x, variant, next(rates), remat, name)
    return x  # (N, H/32, W/32, 8C)


def pooled(x: Any, pooling: str) -> Any:
    """The features under the classifier: the norm comes after the pooling."""
    pools = {
        "avg": keras.layers.GlobalAveragePooling2D,
        "max": keras.layers.GlobalMaxPooling2D,
    }
    x = pools[pooling](data_format="channels_last", name=f"{pooling}_pool")(x)  # (N, 8C)
    return _norm("norm")(x)


def head(x: Any, classes: int, init_scale: float, activation: str | Callable | None) -> Any:
    """Logits from the layer `head`, and what the activation makes of them from `predictions`."""
    x = keras.layers.Dense(
        classes, kernel_initializer=TruncatedNormal(stddev=0.02 * init_scale), name="head"
    )(x)  # (N, classes)
    return keras.layers.Activation(activation, dtype=at_least_float32(), name="predictions")(x)


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
    last_of_stage = {}
    for layer in model.layers:
        parts = layer.name.split("_")
        if parts[0] == "stages" and parts[-1] == "add":
            last_of_stage[int(parts[1])] = layer
    if not last_of_stage:
        raise ValueError(
            "Only a hierarchical ConvNeXt has a pyramid of maps; wrap the network itself, not a "
            f"model around it. Received: model={model.name}"
        )
    patch_size = model.get_layer("stem_conv").patch_size
    if patch_size & (patch_size - 1):
        raise ValueError(
            "The levels of a pyramid are named after strides that are powers of 2. "
            f"Received: a model with patch_size={patch_size}"
        )
    first = patch_size.bit_length() - 1
    outputs = {f"P{first + stage}": layer.output for stage, layer in last_of_stage.items()}
    return keras.Model(model.input, outputs, name=f"{model.name}_pyramid")
