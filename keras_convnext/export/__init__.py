"""What a trained network becomes to be run elsewhere, or faster."""

from keras_convnext.export.fusing import fuse

__all__ = ["fuse"]
