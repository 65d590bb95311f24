"""ConvNeXt for Keras 3: the official networks and checkpoints, with the same outputs."""

import os
from typing import TYPE_CHECKING

from keras_convnext.lazy import lazy_names
from keras_convnext.serialization import register_with_keras

# TensorFlow's oneDNN kernels make ConvNeXt a third faster. They are off by default on processors
# without AVX-512, and TensorFlow reads this variable only while it is imported.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

if TYPE_CHECKING:
    from keras_convnext import classification, export, preprocessing, roadmap, saliency, training
    from keras_convnext.applications import from_keras_applications
    from keras_convnext.block import Block
    from keras_convnext.builders import (
        ConvNeXt,
        ConvNeXtAtto,
        ConvNeXtAttoOLS,
        ConvNeXtBase,
        ConvNeXtCifar,
        ConvNeXtFemto,
        ConvNeXtFemtoOLS,
        ConvNeXtIsotropic,
        ConvNeXtIsotropicBase,
        ConvNeXtIsotropicLarge,
        ConvNeXtIsotropicSmall,
        ConvNeXtLarge,
        ConvNeXtLargeMLP,
        ConvNeXtNano,
        ConvNeXtNanoOLS,
        ConvNeXtPico,
        ConvNeXtPicoOLS,
        ConvNeXtSmall,
        ConvNeXtTiny,
        ConvNeXtV2,
        ConvNeXtV2Atto,
        ConvNeXtV2Base,
        ConvNeXtV2Cifar,
        ConvNeXtV2Femto,
        ConvNeXtV2Huge,
        ConvNeXtV2Large,
        ConvNeXtV2Nano,
        ConvNeXtV2Pico,
        ConvNeXtV2Small,
        ConvNeXtV2Tiny,
        ConvNeXtXLarge,
        ConvNeXtXXLarge,
    )
    from keras_convnext.conversion import convert, load_model
    from keras_convnext.distribution import layout_map
    from keras_convnext.feature_maps import pyramid_features
    from keras_convnext.lora import enable_lora
    from keras_convnext.preprocessing import decode_predictions, preprocess_input
    from keras_convnext.pretrained.cache import download_weights
    from keras_convnext.pretrained.catalog import list_weights
    from keras_convnext.pretrained.errors import CheckpointError, DownloadError
    from keras_convnext.pretrained.identify import identify
    from keras_convnext.pretrained.porting import load_checkpoint
    from keras_convnext.pretrained.writing import save_checkpoint
    from keras_convnext.verification import verify

__version__ = "0.1.0"

__all__ = [
    "Block",
    "CheckpointError",
    "ConvNeXt",
    "ConvNeXtAtto",
    "ConvNeXtAttoOLS",
    "ConvNeXtBase",
    "ConvNeXtCifar",
    "ConvNeXtFemto",
    "ConvNeXtFemtoOLS",
    "ConvNeXtIsotropic",
    "ConvNeXtIsotropicBase",
    "ConvNeXtIsotropicLarge",
    "ConvNeXtIsotropicSmall",
    "ConvNeXtLarge",
    "ConvNeXtLargeMLP",
    "ConvNeXtNano",
    "ConvNeXtNanoOLS",
    "ConvNeXtPico",
    "ConvNeXtPicoOLS",
    "ConvNeXtSmall",
    "ConvNeXtTiny",
    "ConvNeXtV2",
    "ConvNeXtV2Atto",
    "ConvNeXtV2Base",
    "ConvNeXtV2Cifar",
    "ConvNeXtV2Femto",
    "ConvNeXtV2Huge",
    "ConvNeXtV2Large",
    "ConvNeXtV2Nano",
    "ConvNeXtV2Pico",
    "ConvNeXtV2Small",
    "ConvNeXtV2Tiny",
    "ConvNeXtXLarge",
    "ConvNeXtXXLarge",
    "DownloadError",
    "classification",
    "convert",
    "decode_predictions",
    "download_weights",
    "enable_lora",
    "export",
    "from_keras_applications",
    "identify",
    "layout_map",
    "list_weights",
    "load_checkpoint",
    "load_model",
    "preprocess_input",
    "preprocessing",
    "pyramid_features",
    "roadmap",
    "saliency",
    "save_checkpoint",
    "training",
    "verify",
]

_NAMES = {
    "applications": ("from_keras_applications",),
    "block": ("Block",),
    "builders": (
        "ConvNeXt",
        "ConvNeXtAtto",
        "ConvNeXtAttoOLS",
        "ConvNeXtBase",
        "ConvNeXtCifar",
        "ConvNeXtFemto",
        "ConvNeXtFemtoOLS",
        "ConvNeXtIsotropic",
        "ConvNeXtIsotropicBase",
        "ConvNeXtIsotropicLarge",
        "ConvNeXtIsotropicSmall",
        "ConvNeXtLarge",
        "ConvNeXtLargeMLP",
        "ConvNeXtNano",
        "ConvNeXtNanoOLS",
        "ConvNeXtPico",
        "ConvNeXtPicoOLS",
        "ConvNeXtSmall",
        "ConvNeXtTiny",
        "ConvNeXtV2",
        "ConvNeXtV2Atto",
        "ConvNeXtV2Base",
        "ConvNeXtV2Cifar",
        "ConvNeXtV2Femto",
        "ConvNeXtV2Huge",
        "ConvNeXtV2Large",
        "ConvNeXtV2Nano",
        "ConvNeXtV2Pico",
        "ConvNeXtV2Small",
        "ConvNeXtV2Tiny",
        "ConvNeXtXLarge",
        "ConvNeXtXXLarge",
    ),
    "conversion": ("convert", "load_model"),
    "distribution": ("layout_map",),
    "feature_maps": ("pyramid_features",),
    "lora": ("enable_lora",),
    "preprocessing": ("decode_predictions", "preprocess_input"),
    "pretrained.cache": ("download_weights",),
    "pretrained.catalog": ("list_weights",),
    "pretrained.errors": ("CheckpointError", "DownloadError"),
    "pretrained.identify": ("identify",),
    "pretrained.porting": ("load_checkpoint",),
    "pretrained.writing": ("save_checkpoint",),
    "verification": ("verify",),
}

if not TYPE_CHECKING:  # or type checkers would accept any attribute
    __getattr__, __dir__ = lazy_names(__name__, _NAMES)

register_with_keras()
