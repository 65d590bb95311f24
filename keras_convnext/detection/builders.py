"""The public builders `MaskRCNN` and `CascadeMaskRCNN`, each from the image to the detections.

The names follow open-mmlab/mmdetection, and the numbers facebookresearch/ConvNeXt,
object_detection/configs. Shapes are for a batch of N images, padded to H x W pixels; R is the
number of proposals, D of detections, and C the width of the pyramid.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from keras_convnext.detection.assembly import (
    file_and_classes,
    normalized_maps,
    trunk_for,
    whole_model,
)
from keras_convnext.detection.layers import BoxHead, FeaturePyramid, MaskHead, ProposalHead
from keras_convnext.detection.stages import (
    Detect,
    Propose,
    Refine,
    RoIAlign,
    SelectMasks,
)
from keras_convnext.network import at_least_float32

BOX_SIZE, MASK_SIZE = 7, 14  # of pooled regions
# Of the deltas of the box head, and of the three heads of the cascade.
STDS = (0.1, 0.1, 0.2, 0.2)
CASCADE_STDS = (STDS, (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067))


def MaskRCNN(
    backbone: str | keras.Model,
    *,
    weights: str | Path | None = None,
    classes: int | None = None,
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
    masks: bool = True,
    drop_path_rate: float = 0.0,
    include_preprocessing: bool = True,
    channels: int = 256,
    hidden: int = 1024,
    proposals: int = 1000,
    score_threshold: float = 0.05,
    iou_threshold: float = 0.5,
    detections: int = 100,
    name: str | None = None,
) -> keras.Model:
    """Builds Mask R-CNN, which finds objects and their masks, on a ConvNeXt.

    Example:

    ```python
    model = MaskRCNN("convnext_tiny", weights="coco")
    found = model.predict({"images": images, "sizes": sizes})  # (N, H, W, 3) in 0..255, (N, 2)
    found["boxes"]  # (N, 100, 4) as x1, y1, x2, y2 in pixels
    found["scores"], found["labels"]  # (N, 100)
    found["masks"]  # (N, 100, 28, 28) in 0..1, for `paste_masks`
    found["num_detections"]  # (N,)
    ```

    Args:
        backbone: str or keras.Model. Name of a ConvNeXt with four stages, or such a model, whose
            layers are used, not copied.
        weights: str, path or None. The name of published weights, which `list_weights` has for
            `mask_rcnn_` followed by the name of the backbone; or a weight file, as in
            `load_detector_weights`, such as that of a classifier. Defaults to None, for random
            weights.
        classes: int or None. Number of classes. Defaults to None, for those of the file, or else
            80, those of COCO.
        input_shape: tuple. Height, width and channels of the batches. Defaults to (None, None, 3):
            any size that is a multiple of 32 pixels.
        masks: bool. Whether to predict masks. Defaults to True.
        drop_path_rate: float. Stochastic depth rate of the last block. Ignored if `backbone` is a
            model. Defaults to 0.
        include_preprocessing: bool. Whether the model normalizes pixels in 0..255. Ignored if
            `backbone` is a model. Defaults to True.
        channels: int. Width of the pyramid and the heads. Defaults to 256.
        hidden: int. Width of the dense layers of the box head. Defaults to 1024.
        proposals: int. Regions per image that are classified. Defaults to 1000.
        score_threshold: float. A detection's score is above it. Defaults to 0.05.
        iou_threshold: float. Boxes that overlap more with a better box of the same class are not
            detections. Defaults to 0.5.
        detections: int. The most detections per image. Defaults to 100.
        name: str or None. Name of the model. Defaults to None, for `mask_rcnn_` followed by the
            name of the backbone.

    Returns:
        A keras.Model. Its inputs are a dict of `images` (N, H, W, 3), padded to the same size at
        the right and at the bottom, and `sizes` (N, 2), the height and width without padding. Its
        outputs are a dict, as in the example. Detections are sorted by score; after the last one,
        boxes, scores and masks are 0, and labels -1.

    Raises:
        ValueError: If an argument is invalid, or the backbone has no such published weights.
        CheckpointError: If the weight file is damaged or of another network.
        DownloadError: If published weights cannot be downloaded.
        FileNotFoundError: If the weight file does not exist.

    References:
        He et al., "Mask R-CNN", arXiv 1703.06870.
        Liu et al., "A ConvNet for the 2020s", arXiv 2201.03545, section 4 and table 3.
    """
    path, classes = file_and_classes("mask_rcnn", backbone, weights, classes)
    trunk = trunk_for(path, backbone, input_shape, include_preprocessing, drop_path_rate)
    inputs, sizes, maps = normalized_maps(trunk)  # (N, H/4, W/4, ...) to (N, H/32, W/32, ...)
    pyramid = FeaturePyramid(channels, name="pyramid")(maps)  # P2 to P6: (N, ..., C)
    objectness, deltas = ProposalHead(channels, name="proposal_head")(pyramid)
    propose = Propose(after=proposals, dtype=at_least_float32(), name="propose")
    boxes, scores = propose(objectness, deltas, sizes)  # (N, R, 4), (N, R)

    pooled = RoIAlign(BOX_SIZE, name="box_align")(boxes, pyramid[:-1])  # (N, R, 7, 7, C)
    box_head = BoxHead(classes, hidden, name="box_head")
    logits, deltas = box_head(pooled)  # (N, R, classes + 1), (N, R, classes, 4)
    outputs = _detect(STDS, score_threshold, iou_threshold, detections)(
        boxes, scores, logits, deltas, sizes
    )
    if masks:
        pooled = RoIAlign(MASK_SIZE, name="mask_align")(outputs["boxes"], pyramid[:-1])
        logits = MaskHead(classes, channels, name="mask_head")(pooled)  # (N, D, 28, 28, classes)
        select = SelectMasks(dtype=at_least_float32(), name="masks")
        outputs["masks"] = select(logits, outputs["labels"])  # (N, D, 28, 28)
    return whole_model(inputs, outputs, name or f"mask_rcnn_{trunk.name}", path)


def CascadeMaskRCNN(
    backbone: str | keras.Model,
    *,
    weights: str | Path | None = None,
    classes: int | None = None,
    input_shape: tuple[int | None, int | None, int] = (None, None, 3),
    masks: bool = True,
    drop_path_rate: float = 0.0,
    include_preprocessing: bool = True,
    channels: int = 256,
    hidden: int = 1024,
    proposals: int = 1000,
    score_threshold: float = 0.05,
    iou_threshold: float = 0.5,
    detections: int = 100,
    name: str | None = None,
) -> keras.Model:
    """Builds Cascade Mask R-CNN, which refines its boxes in three stages, on a ConvNeXt.

    Example:

    ```python
    model = CascadeMaskRCNN("convnext_base", weights="coco_22k")
    found = model.predict({"images": images, "sizes": sizes})  # as for `MaskRCNN`
    ```

    Args:
        backbone: str or keras.Model. As in `MaskRCNN`.
        weights: str, path or None. As in `MaskRCNN`, with `cascade_mask_rcnn_`.
        classes: int or None. As in `MaskRCNN`.
        input_shape: tuple. As in `MaskRCNN`.
        masks: bool. As in `MaskRCNN`.
        drop_path_rate: float. As in `MaskRCNN`.
        include_preprocessing: bool. As in `MaskRCNN`.
        channels: int. As in `MaskRCNN`.
        hidden: int. As in `MaskRCNN`.
        proposals: int. As in `MaskRCNN`.
        score_threshold: float. As in `MaskRCNN`.
        iou_threshold: float. As in `MaskRCNN`.
        detections: int. As in `MaskRCNN`.
        name: str or None. Name of the model. Defaults to None, for `cascade_mask_rcnn_` followed
            by the name of the backbone.

    Returns:
        A keras.Model, as in `MaskRCNN`.

    Raises:
        ValueError: As in `MaskRCNN`.
        CheckpointError: As in `MaskRCNN`.
        DownloadError: As in `MaskRCNN`.
        FileNotFoundError: As in `MaskRCNN`.

    References:
        Cai and Vasconcelos, "Cascade R-CNN", arXiv 1906.09756.
        Liu et al., "A ConvNet for the 2020s", arXiv 2201.03545, section 4 and table 3.
    """
    path, classes = file_and_classes("cascade_mask_rcnn", backbone, weights, classes)
    trunk = trunk_for(path, backbone, input_shape, include_preprocessing, drop_path_rate)
    inputs, sizes, maps = normalized_maps(trunk)  # (N, H/4, W/4, ...) to (N, H/32, W/32, ...)
    pyramid = FeaturePyramid(channels, name="pyramid")(maps)  # P2 to P6: (N, ..., C)
    objectness, deltas = ProposalHead(channels, name="proposal_head")(pyramid)
    propose = Propose(after=proposals, dtype=at_least_float32(), name="propose")
    boxes, scores = propose(objectness, deltas, sizes)  # (N, R, 4), (N, R)

    of_stages: list[Any] = []
    logits: Any = None
    for stage in range(len(CASCADE_STDS)):
        if stage > 0:
            refine = Refine(
                CASCADE_STDS[stage - 1], dtype=at_least_float32(), name=f"refine_{stage}"
            )
            boxes = refine(boxes, logits, deltas, sizes)  # (N, R, 4)
        pooled = RoIAlign(BOX_SIZE, name=f"box_align_{stage}")(boxes, pyramid[:-1])
        box_head = BoxHead(classes, hidden, convolutions=4, dense=1, name=f"box_head_{stage}")
        logits, deltas = box_head(pooled)  # (N, R, classes + 1), (N, R, classes, 4)
        of_stages.append(logits)
    logits = keras.layers.Average(dtype=at_least_float32(), name="logits")(of_stages)
    outputs = _detect(CASCADE_STDS[-1], score_threshold, iou_threshold, detections)(
        boxes, scores, logits, deltas, sizes
    )
    if masks:
        pooled = RoIAlign(MASK_SIZE, name="mask_align")(outputs["boxes"], pyramid[:-1])
        of_stages = []
        for stage in range(len(CASCADE_STDS)):
            logits = MaskHead(classes, channels, name=f"mask_head_{stage}")(pooled)
            select = SelectMasks(dtype=at_least_float32(), name=f"masks_{stage}")
            of_stages.append(select(logits, outputs["labels"]))  # (N, D, 28, 28)
        outputs["masks"] = keras.layers.Average(dtype=at_least_float32(), name="masks")(of_stages)
    return whole_model(inputs, outputs, name or f"cascade_mask_rcnn_{trunk.name}", path)


DETECTORS = {"mask_rcnn": MaskRCNN, "cascade_mask_rcnn": CascadeMaskRCNN}


def _detect(
    stds: Sequence[float], score_threshold: float, iou_threshold: float, detections: int
) -> keras.layers.Layer:
    return Detect(
        stds,
        score_threshold,
        iou_threshold,
        detections,
        dtype=at_least_float32(),
        name="detections",
    )
