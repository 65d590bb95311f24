"""The public builder `UperNet`."""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import keras

from keras_convnext.backbones import backbone_of
from keras_convnext.feature_maps import LargestOfResized, ResizeLike, WithAuxiliary, normalized_maps
from keras_convnext.initializers import about_to_load
from keras_convnext.network import at_least_float32
from keras_convnext.pretrained.cache import weights_file
from keras_convnext.segmentation.network import auxiliary_head, decode_head
from keras_convnext.segmentation.weights import classes_in, load_segmenter_weights

POOL_SCALES = (1, 2, 3, 6)


def UperNet(
    backbone: str | keras.Model,
    *,
    weights: str | Path | None = None,
    classes: int | None = None,
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
    auxiliary: bool = True,
    drop_path_rate: float = 0.0,
    include_preprocessing: bool = True,
    classifier_activation: str | Callable[[Any], Any] | None = "softmax",
    class_map: bool = False,
    pool_scales: Sequence[int] = POOL_SCALES,
    channels: int = 512,
    name: str | None = None,
) -> keras.Model:
    """Builds UperNet, which predicts a class for each pixel, on a ConvNeXt.

    Example:

    ```python
    model = UperNet("convnext_tiny", weights="ade20k")
    probabilities = model.predict(images)  # (N, H, W, 3) in 0..255 -> (N, H, W, 150)
    ```

    Args:
        backbone: str or keras.Model. Name of a ConvNeXt with four stages, or such a model, whose
            layers are used, not copied.
        weights: str, path or None. The name of published weights, which `list_weights` has for
            `upernet_` followed by the name of the backbone; or a weight file, as in
            `load_segmenter_weights`, such as that of a classifier. Defaults to None, for random
            weights.
        classes: int or None. Number of classes. Defaults to None, for those of the file, or else
            150, those of ADE20K.
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
        class_map: bool. Whether the output is the class of each pixel instead, that of the largest
            logit. This needs no memory for logits at the size of the image. Such a model cannot be
            trained. Defaults to False.
        pool_scales: sequence of int. Grids of the pyramid pooling. Defaults to (1, 2, 3, 6).
        channels: int. Width of the head. Defaults to 512.
        name: str or None. Name of the model, and prefix of the layers of the head. Defaults to
            None, for `upernet_` followed by the name of the backbone, without a prefix.

    Returns:
        A keras.Model, from images (N, H, W, 3) to an output (N, H, W, classes); with `class_map`,
        to int32 (N, H, W).

    Raises:
        ValueError: If an argument is invalid, or the backbone has no such published weights.
        CheckpointError: If the weight file is damaged or of another network.
        DownloadError: If published weights cannot be downloaded.
        FileNotFoundError: If the weight file does not exist.

    References:
        Xiao et al., "Unified Perceptual Parsing for Scene Understanding", arXiv 1807.10221.
        Liu et al., "A ConvNet for the 2020s", arXiv 2201.03545, section 4 and table 7.
    """
    _check_positive("channels", channels)
    if weights is not None:
        weights = weights_file("upernet", backbone, weights)
    if classes is None:
        classes = (classes_in(weights) if weights is not None else None) or 150
    _check_positive("classes", classes)
    with about_to_load() if weights is not None else nullcontext():
        trunk = backbone_of(
            backbone,
            input_shape=input_shape,
            include_preprocessing=include_preprocessing,
            drop_path_rate=drop_path_rate,
        )
    prefix = f"{name}_" if name else ""
    maps = normalized_maps(trunk, prefix)
    x = decode_head(maps, classes, channels, pool_scales, prefix)  # (N, H/4, W/4, classes)
    if auxiliary:
        x = WithAuxiliary(name=f"{prefix}auxiliary")(x, auxiliary_head(maps[2], classes, prefix))
    if class_map:
        x = LargestOfResized(name=f"{prefix}classes")(x, trunk.input)  # (N, H, W)
    else:
        x = ResizeLike(dtype=at_least_float32(), name=f"{prefix}logits")(x, trunk.input)
        x = keras.layers.Activation(  # (N, H, W, classes)
            classifier_activation, dtype=at_least_float32(), name=f"{prefix}predictions"
        )(x)
    model = keras.Model(trunk.input, x, name=name or f"upernet_{trunk.name}")
    if weights is not None:
        load_segmenter_weights(model, weights)
    return model


def _check_positive(argument: str, value: int) -> None:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{argument} must be a positive integer. Received: {argument}={value!r}")
