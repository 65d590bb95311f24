"""Exports trained networks to other runtimes, and fuses them for fast inference."""

from keras_convnext.export.artifact import Artifact, Difference
from keras_convnext.export.exporting import ExportError, export
from keras_convnext.export.fusing import fuse

__all__ = ["Artifact", "Difference", "ExportError", "export", "fuse"]
