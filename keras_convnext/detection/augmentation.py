"""Random changes of training images, which move boxes and masks along.

The images are those of facebookresearch/ConvNeXt, object_detection/configs: flipped at random; then
resized to a random shorter side, or resized, cropped and resized.
"""

from typing import NamedTuple

import numpy as np

from keras_convnext.detection.recipes import Input
from keras_convnext.resizing import resized_linearly, scaled_size


class Scene(NamedTuple):
    """An image and its objects.

    Args:
        image: array (H, W, 3). RGB in 0..255.
        boxes: float32 array (M, 4).
        labels: int32 array (M,).
        masks: uint8 array (M, H, W), or (M, 0, 0) without masks.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    masks: np.ndarray


def augmented(scene: Scene, random: np.random.Generator, own: Input) -> Scene:
    """Changes an image and its objects at random.

    Args:
        scene: Scene.
        random: numpy Generator. What it draws determines the result.
        own: Input. The fields of the recipe.
    """
    if random.random() < own.horizontal_flip:
        scene = flipped(scene)
    if own.crop_from and random.random() < 0.5:
        scene = fitted(scene, int(random.choice(own.crop_from)), own.longest)
        height, width = scene.image.shape[:2]
        least, most = own.crop
        rows = int(random.integers(min(least, height), min(most, height) + 1))
        columns = int(random.integers(min(least, width), min(most, width) + 1))
        top = int(random.integers(0, height - rows + 1))
        left = int(random.integers(0, width - columns + 1))
        scene = cropped(scene, top, left, rows, columns)
    return fitted(scene, int(random.choice(own.shortest)), own.longest)


def flipped(scene: Scene) -> Scene:
    """Mirrors an image horizontally."""
    boxes = scene.boxes.copy()
    boxes[:, [0, 2]] = scene.image.shape[1] - boxes[:, [2, 0]]
    return Scene(scene.image[:, ::-1], boxes, scene.labels, scene.masks[:, :, ::-1])


def fitted(scene: Scene, shortest: int, longest: int) -> Scene:
    """Resizes an image to a shorter side, or less if the longer one would be too long.

    Images are interpolated bilinearly. Masks take the nearest pixel.
    """
    height, width = scene.image.shape[:2]
    size = scaled_size((height, width), (longest, shortest))
    factors = np.array([size[1] / width, size[0] / height] * 2, np.float32)
    masks = scene.masks
    if masks.shape[1]:
        rows = np.arange(size[0]) * height // size[0]
        columns = np.arange(size[1]) * width // size[1]
        masks = masks[:, rows[:, None], columns]
    return Scene(resized_linearly(scene.image, size), scene.boxes * factors, scene.labels, masks)


def cropped(scene: Scene, top: int, left: int, rows: int, columns: int) -> Scene:
    """Cuts a part out of an image, with the objects whose boxes have area in it."""
    boxes = scene.boxes - np.array([left, top] * 2, np.float32)
    boxes = np.clip(boxes, 0, np.array([columns, rows] * 2, np.float32))
    is_there = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)
    across, down = slice(left, left + columns), slice(top, top + rows)
    masks = scene.masks[is_there]
    if masks.shape[1]:
        masks = masks[:, down, across]
    return Scene(scene.image[down, across], boxes[is_there], scene.labels[is_there], masks)
