"""ConvNeXt for Keras 3: the official networks and checkpoints, with the same numbers."""

from keras_convnext import export, preprocessing
from keras_convnext.builders import (
    ConvNeXt,
    ConvNeXtAtto,
    ConvNeXtBase,
    ConvNeXtFemto,
    ConvNeXtIsotropic,
    ConvNeXtIsotropicBase,
    ConvNeXtIsotropicLarge,
    ConvNeXtIsotropicSmall,
    ConvNeXtLarge,
    ConvNeXtNano,
    ConvNeXtPico,
    ConvNeXtSmall,
    ConvNeXtTiny,
    ConvNeXtXLarge,
)
from keras_convnext.conversion import convert, load_model
from keras_convnext.network import pyramid_features
from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.identify import identify
from keras_convnext.pretrained.porting import load_checkpoint, save_checkpoint

__version__ = "0.1.0"

__all__ = [
    "CheckpointError",
    "ConvNeXt",
    "ConvNeXtAtto",
    "ConvNeXtBase",
    "ConvNeXtFemto",
    "ConvNeXtIsotropic",
    "ConvNeXtIsotropicBase",
    "ConvNeXtIsotropicLarge",
    "ConvNeXtIsotropicSmall",
    "ConvNeXtLarge",
    "ConvNeXtNano",
    "ConvNeXtPico",
    "ConvNeXtSmall",
    "ConvNeXtTiny",
    "ConvNeXtXLarge",
    "convert",
    "export",
    "identify",
    "load_checkpoint",
    "load_model",
    "preprocessing",
    "pyramid_features",
    "save_checkpoint",
]
