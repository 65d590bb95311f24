"""The public builder `UperNet`."""

from collections.abc import Callable, Sequence
from typing import Any

import keras

from keras_convnext.builders import BUILDERS
from keras_convnext.feature_maps import ResizeLike, normalized_maps
from keras_convnext.network import at_least_float32
from keras_convnext.segmentation.layers import WithAuxiliary
from keras_convnext.segmentation.network import auxiliary_head, decode_head
from keras_convnext.trunks import trunk_of
from keras_convnext.variants import VARIANTS

BACKBONES = tuple(name for name, variant in VARIANTS.items() if len(variant.depths) == 4)


def UperNet(
    backbone: str | keras.Model,
    *,
    classes: int = 150,
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
    auxiliary: bool = True,
    drop_path_rate: float = 0.0,
    include_preprocessing: bool = True,
    classifier_activation: str | Callable[[Any], Any] | None = "softmax",
    pool_scales: Sequence[int] = (1, 2, 3, 6),
    channels: int = 512,
    name: str | None = None,
) -> keras.Model:
    """Builds UperNet, which predicts a class for each pixel, on a ConvNeXt.

    Example:

    ```python
    model = keras_convnext.segmentation.UperNet("convnext_tiny", classes=150)
    probabilities = model.predict(images)  # (N, H, W, 3) in 0..255 -> (N, H, W, 150)
    ```

    Args:
        backbone: str or keras.Model. Name of a ConvNeXt with four stages, or such a model, whose
            layers are used, not copied.
        classes: int. Number of classes. Defaults to 150, those of ADE20K.
        input_shape: tuple. Height, width and channels of the images. Defaults to (None, None, 3):
            any size from 32 pixels. Ignored if `backbone` is a model.
        auxiliary: bool. Whether to add the head on the third stage that training uses. It does not
            change the output. Defaults to True.
        drop_path_rate: float. Stochastic depth rate of the last block. Ignored if `backbone` is a
            model. Defaults to 0.
        include_preprocessing: bool. Whether the model normalizes pixels in 0..255. Ignored if
            `backbone` is a model. Defaults to True.
        classifier_activation: str, function or None. Activation of the output; None for logits.
            Defaults to "softmax".
        pool_scales: sequence of int. Grids of the pyramid pooling. Defaults to (1, 2, 3, 6).
        channels: int. Width of the head. Defaults to 512.
        name: str or None. Name of the model, and prefix of the layers of the head. Defaults to
            None, for "upernet_" and the name of the backbone, without a prefix.

    Returns:
        A keras.Model, from images (N, H, W, 3) to an output (N, H, W, classes).

    Raises:
        ValueError: If an argument is invalid.

    References:
        Xiao et al., "Unified Perceptual Parsing for Scene Understanding", arXiv 1807.10221.
        Liu et al., "A ConvNet for the 2020s", arXiv 2201.03545, section 4 and table 7.
    """
    if isinstance(backbone, str):
        if backbone not in BACKBONES:
            raise ValueError(
                f"backbone must be one of {', '.join(BACKBONES)}. Received: backbone={backbone!r}"
            )
        trunk = BUILDERS[backbone](
            include_top=False,
            include_preprocessing=include_preprocessing,
            weights=None,
            input_shape=input_shape,
            drop_path_rate=drop_path_rate,
            layer_scale_init_value=1.0,  # as in the official configurations
        )
    else:
        trunk = trunk_of(backbone).model
    prefix = f"{name}_" if name else ""
    maps = normalized_maps(trunk, prefix)
    x = decode_head(maps, classes, channels, pool_scales, prefix)  # (N, H/4, W/4, classes)
    if auxiliary:
        x = WithAuxiliary(name=f"{prefix}auxiliary")(x, auxiliary_head(maps[2], classes, prefix))
    x = ResizeLike(dtype=at_least_float32(), name=f"{prefix}logits")(x, trunk.input)
    x = keras.layers.Activation(  # (N, H, W, classes)
        classifier_activation, dtype=at_least_float32(), name=f"{prefix}predictions"
    )(x)
    return keras.Model(trunk.input, x, name=name or f"upernet_{trunk.name}")
