"""Semantic segmentation: a class for each pixel."""

from typing import TYPE_CHECKING

from keras_convnext.lazy import lazy_names

if TYPE_CHECKING:
    from keras_convnext.segmentation.builders import UperNet

__all__ = ["UperNet"]

_NAMES = {"builders": ("UperNet",)}

if not TYPE_CHECKING:  # or type checkers would accept any attribute
    __getattr__, __dir__ = lazy_names(__name__, _NAMES)
