"""UperNet: a segmentation head on the feature maps of four stages.

Xiao et al., "Unified Perceptual Parsing for Scene Understanding" (arXiv 1807.10221), as configured
in facebookresearch/ConvNeXt, semantic_segmentation/configs/_base_/models/upernet_convnext.py. The
names follow open-mmlab/mmsegmentation. Shapes are for an image of H x W pixels; C is the width of
the first stage.
"""

from collections.abc import Sequence
from typing import Any

import keras

from keras_convnext.feature_maps import PoolToGrid, PyramidConv2D, ResizeLike
from keras_convnext.layers import SyncBatchNormalization
from keras_convnext.segmentation.cost import AUXILIARY_CHANNELS

DROPOUT = 0.1  # of whole channels, before the last layer


def decode_head(
    maps: Sequence[Any], classes: int, channels: int, pool_scales: Sequence[int], prefix: str = ""
) -> Any:
    """Applies the head to the normalized maps of the backbone, and returns logits.

    Args:
        maps: Keras tensors (N, H/4, W/4, C) to (N, H/32, W/32, 8C).
        classes: int. Number of classes.
        channels: int. Width of the head.
        pool_scales: ints. Grids of the pyramid pooling.
        prefix: str. Prefix of the layers' names.

    Returns:
        Keras tensor (N, H/4, W/4, classes).
    """
    laterals = [
        conv_norm(x, channels, 1, f"{prefix}lateral_{level}") for level, x in enumerate(maps[:-1])
    ]  # (N, H/4, W/4, channels) to (N, H/16, W/16, channels)
    laterals.append(pyramid_pooling(maps[-1], channels, pool_scales, prefix))
    for level in range(len(maps) - 1, 0, -1):
        coarse, fine = laterals[level], laterals[level - 1]
        coarse = ResizeLike(name=f"{prefix}top_down_{level}")(coarse, fine)
        laterals[level - 1] = keras.layers.Add(name=f"{prefix}add_{level - 1}")([fine, coarse])
    outputs = [
        conv_norm(x, channels, 3, f"{prefix}fpn_{level}") for level, x in enumerate(laterals[:-1])
    ]
    outputs.append(laterals[-1])
    x = fusion(outputs, channels, f"{prefix}fpn_bottleneck")  # (N, H/4, W/4, channels)
    return classifier(x, classes, f"{prefix}classifier")


def pyramid_pooling(x: Any, channels: int, pool_scales: Sequence[int], prefix: str = "") -> Any:
    """Adds the means over grids of several scales to the last map: PSPNet (arXiv 1612.01105)."""
    levels = [x]  # (N, H/32, W/32, 8C)
    for index, scale in enumerate(pool_scales):
        name = f"{prefix}psp_{index}"
        pooled = PoolToGrid(scale, name=f"{name}_pool")(x)  # (N, scale, scale, 8C)
        levels.append(conv_norm(pooled, channels, 1, name))  # (N, scale, scale, channels)
    return fusion(levels, channels, f"{prefix}bottleneck")  # (N, H/32, W/32, channels)


def auxiliary_head(x: Any, classes: int, prefix: str = "") -> Any:
    """Predicts the classes from the map of the third stage, for the loss during training.

    Args:
        x: Keras tensor (N, H/16, W/16, 4C).
        classes: int. Number of classes.
        prefix: str. Prefix of the layers' names.

    Returns:
        Keras tensor (N, H/16, W/16, classes).
    """
    x = conv_norm(x, AUXILIARY_CHANNELS, 3, f"{prefix}auxiliary_0")
    return classifier(x, classes, f"{prefix}auxiliary_classifier")


def fusion(maps: Sequence[Any], channels: int, name: str) -> Any:
    """Resizes maps to the size of the first, concatenates and convolves them: `conv_norm`."""
    convolution = PyramidConv2D(
        channels, use_bias=False, kernel_initializer=_initializer(), name=f"{name}_conv"
    )
    return _norm_relu(convolution(list(maps)), name)


def conv_norm(x: Any, channels: int, kernel_size: int, name: str) -> Any:
    """Applies convolution, batch norm and ReLU: `ConvModule` of mmcv."""
    convolution = keras.layers.Conv2D(
        channels,
        kernel_size,
        padding="same",
        use_bias=False,
        kernel_initializer=_initializer(),
        data_format="channels_last",
        name=f"{name}_conv",
    )
    return _norm_relu(convolution(x), name)


def _initializer() -> keras.Initializer:
    return keras.initializers.VarianceScaling(2, "fan_out", "untruncated_normal")


def _norm_relu(x: Any, name: str) -> Any:
    x = SyncBatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm")(x)
    return keras.layers.ReLU(name=f"{name}_relu")(x)


def classifier(x: Any, classes: int, name: str) -> Any:
    """Drops channels during training, and predicts the logits of each position."""
    x = keras.layers.SpatialDropout2D(DROPOUT, data_format="channels_last", name=f"{name}_dropout")(
        x
    )
    return keras.layers.Conv2D(
        classes,
        1,
        kernel_initializer=keras.initializers.RandomNormal(stddev=0.01),
        data_format="channels_last",
        name=name,
    )(x)
