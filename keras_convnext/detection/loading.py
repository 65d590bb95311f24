"""Builds the detector in a weight file."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import keras

from keras_convnext.backbones import backbone_in
from keras_convnext.detection.builders import DETECTORS
from keras_convnext.detection.rotated.network import CONVENTIONS, KINDS, RotatedRetinaNet
from keras_convnext.detection.weights import load_detector_weights
from keras_convnext.loading import checkpoint_file
from keras_convnext.pretrained.checkpoint import open_checkpoint
from keras_convnext.pretrained.dense_heads import HEADS, heads_in
from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.identify import identity_of
from keras_convnext.pretrained.layouts import Place
from keras_convnext.pretrained.model_weights import Progress


def load_detector(
    source: str | Path,
    model: str | None = None,
    entry: str | None = None,
    progress: Progress = iter,
    *,
    prefix: str | None = None,
    ignore: str | Iterable[str] = (),
    **options: Any,
) -> keras.Model:
    """Builds the detector in a weight file, and loads its weights.

    The file determines the detector, the ConvNeXt, the number of classes, the widths and whether
    there is a mask head.

    Args:
        source: as in `conversion.load_model`.
        model: str or None. Name of the network, such as "mask_rcnn_convnext_tiny". Required for
            published weights; for files, it is checked. Defaults to None.
        entry: as in `conversion.load_model`.
        progress: as in `conversion.load_model`.
        prefix: as in `conversion.load_model`.
        ignore: as in `conversion.load_model`.
        **options: Other arguments of the builder, such as `score_threshold` or `classes`.

    Returns:
        A `keras.Model`, made by `MaskRCNN`, `CascadeMaskRCNN` or `RotatedRetinaNet`.

    Raises:
        CheckpointError: If the file is damaged or of another network.
        DownloadError: If published weights cannot be downloaded.
    """
    path = checkpoint_file(source, model)
    checkpoint = open_checkpoint(path, entry, prefix, ignore)
    found, heads = identity_of(checkpoint), heads_in(checkpoint)
    if model not in (None, found.name):
        raise CheckpointError(
            f"This is a checkpoint of {found.name}, not of {model} (file: {path})"
        )
    trunk = backbone_in(found, options)
    defaults: dict[str, Any] = {
        "classes": found.classes,
        "channels": heads.sources[Place("pyramid/output_0", "kernel")].shape[-1],
    }
    if heads.name in DETECTORS:
        builder: Callable[..., keras.Model] = DETECTORS[heads.name]
        classifier = HEADS[heads.name].classifier
        defaults["hidden"] = heads.sources[classifier].shape[0]
        defaults["masks"] = any(place.layer.startswith("mask_head") for place in heads.sources)
    else:
        builder = RotatedRetinaNet
        defaults["regression"] = next(each for each, own in KINDS.items() if own == heads.name)
        defaults["convention"] = CONVENTIONS[defaults["regression"]]
    built = builder(trunk, **{**defaults, **options})
    load_detector_weights(built, path, entry, progress, prefix=prefix, ignore=ignore)
    return built
