"""The catalog of published weights: the rows of all tasks, and how they are found."""

from keras_convnext.pretrained.catalog_row import Checkpoint
from keras_convnext.pretrained.classifier_rows import CLASSIFIERS
from keras_convnext.pretrained.detector_rows import DETECTORS
from keras_convnext.pretrained.segmenter_rows import SEGMENTERS
from keras_convnext.pretrained.timm_rows import TIMM, TIMM_TAGS
from keras_convnext.pretrained.v2_rows import V2
from keras_convnext.printable import printable

# The values of `weights=`, and what each stands for.
TAGS = {
    "imagenet":             "ImageNet-1K at 224 px",
    "imagenet_384":         "ImageNet-1K at 224 px, then at 384 px",
    "imagenet_no_ema":      "ImageNet-1K at 224 px, without EMA: the initialization of detectors and segmenters",
    "imagenet22k":          "ImageNet-22K at 224 px, 21,841 classes",
    "imagenet22k_ft":       "ImageNet-22K, then ImageNet-1K at 224 px",
    "imagenet22k_ft_384":   "ImageNet-22K, then ImageNet-1K at 384 px",
    "imagenet22k_ft_512":   "ImageNet-22K, then ImageNet-1K at 512 px",
    "fcmae":                "V2 pre-trained on ImageNet-1K without labels, as a masked autoencoder; no final norm and classifier",
    "dinov3":               "LVD-1689M, distilled from DINOv3; no classifier",
    "cifar10":              "CIFAR-10 at 32 px; included in the package",
    "ade20k":               "ImageNet-1K, then ADE20K at 512 px; a UperNet, like the next three",
    "ade20k_22k":           "ImageNet-22K, then ADE20K at 640 px",
    "ade20k_openmmlab":     "as `ade20k`, trained by OpenMMLab",
    "ade20k_22k_openmmlab": "as `ade20k_22k`, trained by OpenMMLab",
    "coco":                 "ImageNet-1K, then COCO 2017; a Mask R-CNN or Cascade Mask R-CNN, like the next two",
    "coco_22k":             "ImageNet-22K, then COCO 2017",
    "coco_openmmlab":       "as `coco`, trained by OpenMMLab",
    "dota_openmmlab":       "ImageNet-1K, then DOTA-v1.0; a RotatedRetinaNet, trained by OpenMMLab",
    **TIMM_TAGS,
}  # fmt: skip

# `weights=` uses the first row of a model and tag. Later rows are copies of it, used if the first
# cannot be downloaded.
CATALOG = (*CLASSIFIERS, *V2, *TIMM, *SEGMENTERS, *DETECTORS)

# Names of networks with a dense head, as `load_model` takes them.
DENSE_NETWORKS = tuple(dict.fromkeys(row.model for row in CATALOG if row.head))


def find(model: str | None, tag: str) -> tuple[Checkpoint, ...]:
    """Returns the checkpoint of a network for a tag, followed by its copies.

    Raises:
        ValueError: If the network has no such checkpoint; the message lists the available tags.
    """
    found = tuple(row for row in CATALOG if (row.model, row.tag) == (model, tag))
    if not found:
        tags = [row.tag for row in list_weights(model)]
        raise ValueError(
            f"{printable(model)} has no published weights of this name. Available: "
            f"{', '.join(map(repr, tags)) or 'none'}. You can also pass a file, such as a .pth or a "
            f".weights.h5, or None for random weights. Received: weights={tag!r}"
        )
    return found


def list_weights(model: str | None = None, copies: bool = False) -> list[Checkpoint]:
    """Lists the published checkpoints.

    Example:

    ```python
    [row.tag for row in keras_convnext.list_weights("convnext_base")]
    [row.tag for row in keras_convnext.list_weights("upernet_convnext_base")]
    ```

    Args:
        model: str or None. The network to list checkpoints for. Defaults to None, for all.
        copies: bool. Whether to include copies of the same weights from other publishers. Defaults
            to False.

    Returns:
        List of `Checkpoint`s, each with its network, URL and accuracy.
    """
    first = {(row.model, row.tag): row for row in reversed(CATALOG)}
    return [
        row
        for row in CATALOG
        if model in (None, row.model) and (copies or first[row.model, row.tag] is row)
    ]
