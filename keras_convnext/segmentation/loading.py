"""Builds the segmenter in a weight file."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras

from keras_convnext.backbones import backbone_in
from keras_convnext.loading import checkpoint_file
from keras_convnext.pretrained.checkpoint import open_checkpoint
from keras_convnext.pretrained.dense_heads import heads_in
from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.identify import identity_of
from keras_convnext.pretrained.layouts import Place
from keras_convnext.pretrained.model_weights import Progress
from keras_convnext.segmentation.builders import POOL_SCALES, UperNet
from keras_convnext.segmentation.weights import load_segmenter_weights


def load_segmenter(
    source: str | Path,
    model: str | None = None,
    entry: str | None = None,
    progress: Progress = iter,
    *,
    prefix: str | None = None,
    ignore: str | Iterable[str] = (),
    **options: Any,
) -> keras.Model:
    """Builds the segmenter in a weight file, and loads its weights.

    The file determines the ConvNeXt, the number of classes, the width of the head and whether there
    is an auxiliary head.

    Args:
        source: as in `conversion.load_model`.
        model: str or None. Name of the network, such as "upernet_convnext_tiny". Required for
            published weights; for files, it is checked. Defaults to None.
        entry: as in `conversion.load_model`.
        progress: as in `conversion.load_model`.
        prefix: as in `conversion.load_model`.
        ignore: as in `conversion.load_model`.
        **options: Other arguments of `UperNet`, such as `input_shape` or `classes`.

    Returns:
        A `keras.Model`, made by `UperNet`.

    Raises:
        CheckpointError: If the file is damaged or of another network.
        DownloadError: If published weights cannot be downloaded.
    """
    path = checkpoint_file(source, model)
    checkpoint = open_checkpoint(path, entry, prefix, ignore)
    found, heads = identity_of(checkpoint), heads_in(checkpoint).sources
    if model not in (None, found.name):
        raise CheckpointError(
            f"This is a checkpoint of {found.name}, not of {model} (file: {path})"
        )
    grids = {place.layer for place in heads if place.layer.startswith("psp_")}
    if "pool_scales" not in options and len(grids) != 2 * len(POOL_SCALES):
        raise CheckpointError(
            f"The head pools at {len(grids) // 2} scales, which the file does not record: pass "
            f"pool_scales=... (file: {path})"
        )
    trunk = backbone_in(found, options)
    defaults = {
        "classes": found.classes,
        "channels": heads[Place("fpn_bottleneck_conv", "kernel")].shape[-1],
        "auxiliary": any(place.layer.startswith("auxiliary") for place in heads),
    }
    built = UperNet(trunk, **{**defaults, **options})
    load_segmenter_weights(built, path, entry, progress, prefix=prefix, ignore=ignore)
    return built
