"""The network of "A ConvNet for the 2020s" (Liu et al., arXiv 2201.03545), from stem to head.

ConvNeXt V2 (Woo et al., arXiv 2301.00808) only has another block.

Shapes are for an image of H x W pixels and a patch size of 4; C is the width of the first stage.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_convnext.block import Block
from keras_convnext.initializers import TruncatedNormal, kernel_initializer
from keras_convnext.layers import LayerNormalization, PatchConv2D, PreLogits
from keras_convnext.variants import Variant


def at_least_float32() -> str:
    """Returns the dtype of pixels and probabilities, which half precision would degrade."""
    return keras.backend.result_type(keras.config.dtype_policy().compute_dtype, "float32")


def trunk(
    x: Any, variant: Variant, drop_path_rate: float = 0.0, remat: bool = False, prefix: str = ""
) -> Any:
    """Applies stem and stages to normalized pixels, and returns the last feature map.

    The drop path rate rises linearly from 0 in the first block to `drop_path_rate` in the last.
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
                grn=variant.grn,
                name=f"{prefix}{of_stage}blocks_{index}",
            )(x)  # (N, H/4, W/4, C)
    return x  # (N, H/32, W/32, 8C)


def stem(x: Any, variant: Variant, prefix: str = "") -> Any:
    """Cuts the image into patches: "patchify", section 2.3."""
    x = PatchConv2D(
        variant.dims[0],
        variant.patch_size,
        variant.overlap,
        kernel_initializer=kernel_initializer(variant.stddev, variant.patch_size**2 * x.shape[-1]),
        name=f"{prefix}stem_conv",
    )(x)  # (N, H/4, W/4, C)
    return x if variant.isotropic else _norm(f"{prefix}stem_norm", variant.epsilon)(x)


def downsample(x: Any, dim: int, variant: Variant, name: str) -> Any:
    """Halves the resolution before a stage, with a norm for stable training (section 2.6)."""
    x = _norm(f"{name}_norm", variant.epsilon)(x)
    init = kernel_initializer(variant.stddev, 4 * x.shape[-1])
    return PatchConv2D(dim, 2, kernel_initializer=init, name=f"{name}_conv")(x)  # (N, H/8, W/8, 2C)


def pooled(x: Any, pooling: str, prefix: str = "", epsilon: float = 1e-6) -> Any:
    """Pools a feature map and then normalizes it, as the classifier expects."""
    return _norm(f"{prefix}norm", epsilon)(pool(x, pooling, prefix))


def pool(x: Any, pooling: str, prefix: str = "") -> Any:
    """Pools a feature map over all positions: "avg" or "max"."""
    pools = {
        "avg": keras.layers.GlobalAveragePooling2D,
        "max": keras.layers.GlobalMaxPooling2D,
    }
    return pools[pooling](data_format="channels_last", name=f"{prefix}{pooling}_pool")(x)  # (N, 8C)


def head(
    x: Any,
    classes: int,
    init_scale: float,
    activation: str | Callable[[Any], Any] | None,
    prefix: str = "",
    hidden: int | None = None,
) -> Any:
    """Adds the classifier: `head` computes the logits, `predictions` applies the activation.

    With `hidden`, a layer of that width, `pre_logits`, precedes it.
    """
    if hidden is not None:
        x = PreLogits(
            hidden,
            kernel_initializer=TruncatedNormal(stddev=0.02),
            name=f"{prefix}pre_logits",
        )(x)  # (N, hidden)
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
