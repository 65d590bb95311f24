"""Draws what a masked autoencoder sees, what it makes of it, and the original."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from keras_convnext.normalization import IMAGENET
from keras_convnext.pretraining.losses import images_of, patches_of, statistics_of

GRAY, GAP = 127, 4  # of hidden patches; pixels between images


def reconstructions(
    model: keras.Model, inputs: np.ndarray, normalize: bool = True
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reconstructs the hidden parts of images.

    Args:
        model: keras.Model. As `autoencoder` builds it.
        inputs: float32 array (N, H, W, 4). Pixels, and 1 where they are hidden.
        normalize: bool. Whether the model predicts normalized patches, whose means and deviations
            are then those of the original. Defaults to True.

    Returns:
        Three uint8 arrays (N, H, W, 3): the masked images, the same with the hidden patches as
        predicted, and the originals.
    """
    predicted = tf.constant(model.predict(inputs, verbose=0))
    pixels, hidden = inputs[..., :3], inputs[..., 3:]
    side = inputs.shape[1] // predicted.shape[1]
    mean, std = np.array(IMAGENET.mean, np.float32), np.array(IMAGENET.std, np.float32)
    if normalize:
        patches = patches_of(tf.constant((pixels / 255 - mean) / std), side)
        of_patch, deviation = statistics_of(patches)
        predicted = predicted * deviation + of_patch
    made = (images_of(predicted, side).numpy() * std + mean) * 255
    parts = (
        pixels * (1 - hidden) + GRAY * hidden,
        pixels * (1 - hidden) + made * hidden,
        pixels,
    )
    masked, drawn, original = (np.rint(part).clip(0, 255).astype(np.uint8) for part in parts)
    return masked, drawn, original


def draw_reconstructions(
    model: keras.Model, inputs: np.ndarray, path: str | Path, normalize: bool = True
) -> None:
    """Draws a row per image: masked, reconstructed, original.

    Args:
        model: keras.Model. As in `reconstructions`.
        inputs: float32 array (N, H, W, 4). As in `reconstructions`.
        path: str or path. The picture to write.
        normalize: bool. As in `reconstructions`. Defaults to True.
    """
    columns = reconstructions(model, inputs, normalize)
    count, height, width, _ = inputs.shape
    sheet = Image.new("RGB", (3 * (width + GAP) - GAP, count * (height + GAP) - GAP), "white")
    for column, images in enumerate(columns):
        for row, image in enumerate(images):
            sheet.paste(Image.fromarray(image), (column * (width + GAP), row * (height + GAP)))
    sheet.save(path)
