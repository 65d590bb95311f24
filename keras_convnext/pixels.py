"""The layer that normalizes the pixels of a network."""

from typing import Any

import keras
import numpy as np

from keras_convnext.network import at_least_float32
from keras_convnext.normalization import IMAGENET, Pixels
from keras_convnext.trunks import trunk_of


def normalization(x: Any, prefix: str = "", pixels: Pixels = IMAGENET) -> Any:
    """Normalizes pixels in 0..255 with a mean and a standard deviation, by default ImageNet's.

    A grayscale image uses the averages over the three channels; with more than three channels, the
    RGB values repeat.
    """
    channels = x.shape[-1]
    scale, offset = _scale_and_offset(pixels, channels)
    return keras.layers.Rescaling(
        scale=scale, offset=offset, dtype=at_least_float32(), name=f"{prefix}normalization"
    )(x)  # (N, H, W, 3)


def _scale_and_offset(pixels: Pixels, channels: int) -> tuple[list[float], list[float]]:
    mean, std = np.array(pixels.mean), np.array(pixels.std)
    if channels == 1:
        mean, std = mean.mean(keepdims=True), std.mean(keepdims=True)
    mean, std = np.resize(mean, channels), np.resize(std, channels)
    return (1 / (255 * std)).tolist(), (-mean / std).tolist()


def set_normalization(model: keras.Model, pixels: Pixels) -> None:
    """Changes how a new network, which has not been called, normalizes pixels."""
    trunk = trunk_of(model)
    if layer := trunk.layers.get("normalization"):
        channels = trunk.model.inputs[0].shape[-1]
        layer.scale, layer.offset = _scale_and_offset(pixels, channels)
