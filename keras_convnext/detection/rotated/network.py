"""The public builder `RotatedRetinaNet`, from the image to boxes and scores before suppression."""

from pathlib import Path
from typing import Any

import keras

from keras_convnext.detection.assembly import (
    file_and_classes,
    normalized_maps,
    trunk_for,
    whole_model,
)
from keras_convnext.detection.layers import FeaturePyramid
from keras_convnext.detection.rotated.coder import CODERS
from keras_convnext.detection.rotated.layers import DecodeRotated, RotatedHead
from keras_convnext.network import at_least_float32
from keras_convnext.pretrained.catalog import DENSE_NETWORKS
from keras_convnext.pretrained.identify import head_of_file

# By the regression: the head, as weight files and the catalog name it; and what coarser levels of
# the pyramid are made of.
KINDS = {"expectation": "rotated_gfl_retinanet", "direct": "rotated_retinanet"}
_COARSER = {"expectation": "output", "direct": "input"}
CONVENTIONS = {"expectation": "le135", "direct": "le90"}  # of the published ones


def RotatedRetinaNet(
    backbone: str | keras.Model,
    *,
    weights: str | Path | None = None,
    classes: int | None = None,
    regression: str | None = None,
    convention: str | None = None,
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
    drop_path_rate: float = 0.0,
    include_preprocessing: bool = True,
    channels: int = 256,
    before: int = 2000,
    name: str | None = None,
) -> keras.Model:
    """Builds a RetinaNet that finds rotated boxes, on a ConvNeXt.

    Example:

    ```python
    model = RotatedRetinaNet("convnext_tiny", weights="dota_openmmlab")
    found = model.predict({"images": images, "sizes": sizes})  # (N, H, W, 3) in 0..255, (N, 2)
    found["boxes"]  # (N, K, 5) as cx, cy, w, h in pixels, and the angle in radians
    found["scores"]  # (N, K, 15)
    ```

    `detect_rotated` also cuts large images into tiles, and suppresses duplicates.

    Args:
        backbone: str or keras.Model. Name of a ConvNeXt with four stages, or such a model, whose
            layers are used, not copied.
        weights: str, path or None. The name of published weights, which `list_weights` has for
            `rotated_retinanet_` followed by the name of the backbone; or a weight file, as in
            `load_detector_weights`, such as that of a classifier. Defaults to None, for random
            weights.
        classes: int or None. Number of classes. Defaults to None, for those of the file, or else
            15, those of DOTA-v1.0.
        regression: str or None. "expectation": each of the five numbers is the expectation of nine
            bins, which bounds it; one anchor, group norm. "direct": the numbers are outputs of a
            convolution; nine anchors. Defaults to None, for that of the file, or else
            "expectation".
        convention: str or None. Of the angle, and with it how boxes are encoded: "le135", "le90" or
            "oc". Weight files of other programs do not tell it. Defaults to None, for that of the
            published networks: "le90" for weights with "direct", else "le135".
        input_shape: tuple. As in `MaskRCNN`.
        drop_path_rate: float. As in `MaskRCNN`.
        include_preprocessing: bool. As in `MaskRCNN`.
        channels: int. Width of the pyramid and the head. Defaults to 256.
        before: int. Anchors of each level that are decoded. Defaults to 2000.
        name: str or None. Name of the model. Defaults to None, for `rotated_gfl_retinanet_` or
            `rotated_retinanet_` followed by the name of the backbone.

    Returns:
        A keras.Model, with the inputs of `MaskRCNN`, and a dict of `boxes` (N, K, 5) and `scores`
        (N, K, classes) as outputs. K depends on the size of the images.

    Raises:
        ValueError: If an argument is invalid, or the backbone has no such published weights.
        CheckpointError: If the weight file is damaged or of another network.
        DownloadError: If published weights cannot be downloaded.
        FileNotFoundError: If the weight file does not exist.

    References:
        Lin et al., "Focal Loss for Dense Object Detection", arXiv 1708.02002.
        Xuyihaoby/rotate_detection, configs/convnext/gfl_convnext_tiny_fpn_1x.py, for "expectation".
        open-mmlab/mmrotate, configs/convnext, for "direct" with "le90".
    """
    in_file = _regression_in(weights, backbone)
    regression = regression or in_file or "expectation"
    if regression not in KINDS:
        raise ValueError(
            f"regression must be one of {', '.join(KINDS)}. Received: regression={regression!r}"
        )
    published = CONVENTIONS[regression] if in_file == regression else "le135"
    convention = convention or published
    if convention not in CODERS:
        raise ValueError(
            f"convention must be one of {', '.join(CODERS)}. Received: convention={convention!r}"
        )
    path, classes = file_and_classes(KINDS[regression], backbone, weights, classes, default=15)
    trunk = trunk_for(path, backbone, input_shape, include_preprocessing, drop_path_rate)
    inputs, sizes, maps = normalized_maps(trunk)  # (N, H/4, W/4, ...) to (N, H/32, W/32, ...)
    pyramid = FeaturePyramid(channels, first=1, coarser=_COARSER[regression], name="pyramid")
    levels = pyramid(maps)  # P3 to P7: (N, H/8, W/8, C) to (N, H/128, W/128, C)
    name_of_head = "expectation_head" if regression == "expectation" else "rotated_head"
    head = RotatedHead(classes, regression, channels, name=name_of_head)
    logits, deltas = head(levels)
    decode = DecodeRotated(regression, convention, before, dtype=at_least_float32(), name="decode")
    outputs: dict[str, Any] = decode(logits, deltas, sizes)
    return whole_model(inputs, outputs, name or f"{KINDS[regression]}_{trunk.name}", path)


def _regression_in(weights: str | Path | None, backbone: str | keras.Model) -> str | None:
    """Returns the regression of a weight file or of published weights, if it is of these heads."""
    if weights is None:
        return None
    if Path(weights).exists():
        kind = head_of_file(weights)
        return next((each for each, own in KINDS.items() if own == kind), None)
    name = backbone if isinstance(backbone, str) else getattr(backbone, "name", "")
    known = (each for each, own in KINDS.items() if f"{own}_{name}" in DENSE_NETWORKS)
    return next(known, None)
