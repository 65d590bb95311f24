"""Batches of tiles and their rotated objects for training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_convnext.data.errors import DataError, NoSuchSplitError
from keras_convnext.data.source import Source
from keras_convnext.detection.rotated.folders import open_rotated
from keras_convnext.detection.rotated.geometry import flipped, from_points, to_convention, turned
from keras_convnext.detection.rotated.objects import RotatedObject, RotatedObjects, RotatedPicture
from keras_convnext.detection.rotated.recipes import Input, RotatedDetection
from keras_convnext.detection.rotated.scenes import Scene
from keras_convnext.detection.rotated.tiles import Tile, objects_in, tiles_of
from keras_convnext.training.layout import Layout


class Part(NamedTuple):
    """A tile of a picture, or a whole picture.

    Args:
        picture: RotatedPicture.
        tile: Tile or None. None for a picture that is no larger than a tile.
        objects: tuple of RotatedObject. In the coordinates of the tile.
    """

    picture: RotatedPicture
    tile: Tile | None
    objects: tuple[RotatedObject, ...]


class TileSource(Source):
    """The tiles of images, in a reproducible order. The label of a tile is its index.

    Args:
        objects: RotatedObjects.
        split: str. Name of the split.
        own: Input. The fields of the recipe.
    """

    def __init__(self, objects: RotatedObjects, split: str, own: Input) -> None:
        self.objects = objects
        self.parts = [part for picture in objects.pictures for part in _parts_of(picture, own)]
        if own.drop_empty:
            self.parts = [part for part in self.parts if part.objects]
            if not self.parts:
                raise DataError(f"No image has an object. Received: {objects.source}")
        super().__init__(str(objects.source), split, objects.classes, len(self.parts))

    def find(self, indices: np.ndarray) -> list[bytes]:
        """Returns nothing: tiles are read together with their objects."""
        return [b""] * len(indices)

    def parse(self, found: tf.Tensor, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Adds the indices."""
        return found, indices

    def name_of(self, index: int) -> str:
        """Returns the path of the image, with the corner of the tile if it is one."""
        picture, tile, _ = self.parts[index]
        return f"{picture.path}" + (f" ({tile.left}, {tile.top})" if tile else "")

    def pixels(self, index: int) -> np.ndarray:
        """Returns the pixels of a tile, uint8 array (H, W, 3).

        Raises:
            DataError: If the image is broken, or has another size than before.
        """
        picture, tile, _ = self.parts[index]
        with Scene(picture.path) as scene:
            if (scene.height, scene.width) != (picture.height, picture.width):
                raise DataError(
                    f"The image has {scene.width} x {scene.height} pixels, but its header says "
                    f"{picture.width} x {picture.height} (file: {picture.path})"
                )
            if tile is None:
                return scene.band(0, scene.height)
            return scene.band(tile.top, tile.size)[:, tile.left : tile.left + tile.size]


def _parts_of(picture: RotatedPicture, own: Input) -> list[Part]:
    height, width = picture.height, picture.width
    if max(height, width) <= own.size:
        return [Part(picture, None, _trained(picture.objects, own))]
    return [
        Part(picture, tile, _trained(objects_in(tile, height, width, picture.objects), own))
        for row in tiles_of(height, width, own.size, own.overlap)
        for tile in row
    ]


def _trained(objects: Sequence[RotatedObject], own: Input) -> tuple[RotatedObject, ...]:
    """Leaves out what is too difficult or too small."""
    return tuple(
        each
        for each in objects
        if each.difficulty <= own.hardest and _shortest_edge(each) >= own.shortest_edge
    )


def _shortest_edge(each: RotatedObject) -> float:
    points = np.reshape(each.points, (4, 2))
    return float(np.linalg.norm(points[1:3] - points[:2], axis=1).min())


def open_training_data(
    data: str | Path, validation_data: str | Path | None, recipe: RotatedDetection
) -> tuple[TileSource, RotatedObjects | None]:
    """Opens the training tiles and, if there are any, the validation images.

    Args:
        data: str or path. As in `open_rotated`, with a split "train".
        validation_data: str, path or None. Other data to validate on, with the same classes, whose
            split "validation", or else "train", is used; None for the split "validation" of
            `data`, or else the recipe's `validation_share` of the training images.
        recipe: RotatedDetection. The recipe.

    Raises:
        DataError: If the data is broken or inconsistent, or there is no such data.
    """
    own = recipe.input
    training = open_rotated(data, "train", skip_broken=own.skip_broken)
    validation = None
    for split in ("validation", "train") if validation_data is not None else ("validation",):
        try:
            validation = open_rotated(
                validation_data or data, split, training.classes, skip_broken=own.skip_broken
            )
            break
        except NoSuchSplitError:
            continue
    if validation is None and own.validation_share:
        training, validation = _held_out(training, own.validation_share, recipe.seed)
    return TileSource(training, "train", own), validation


def _held_out(
    objects: RotatedObjects, share: float, seed: int
) -> tuple[RotatedObjects, RotatedObjects]:
    count = len(objects.pictures)
    if count < 2:
        raise DataError(f"A single image cannot be split. Add images. Received: {objects.source}")
    held = min(max(1, round(share * count)), count - 1)
    order = np.random.default_rng(seed).permutation(count)
    parts = np.sort(order[held:]), np.sort(order[:held])
    first, second = ([objects.pictures[index] for index in part] for part in parts)
    return replace(objects, pictures=first), replace(objects, pictures=second)


def training_tile(
    source: TileSource, recipe: RotatedDetection, index: int, epoch: int, position: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reads and augments a tile. It depends only on the seed, the epoch and the position.

    Returns:
        Pixels (H, W, 3), boxes (M, 5) in the convention of the recipe, and labels (M,).
    """
    key = np.array([recipe.seed, (epoch << 32) + position], np.uint64)
    random = np.random.Generator(np.random.Philox(key=key))
    objects = source.parts[index].objects
    points = np.array([each.points for each in objects], np.float64).reshape(-1, 4, 2)
    labels = np.array([each.label for each in objects], np.int32)
    pixels, boxes = augmented(source.pixels(index), from_points(points), random, recipe.input)
    most = recipe.input.most_objects
    if len(labels) > most:
        largest = np.sort(np.argsort(-boxes[:, 2] * boxes[:, 3], kind="stable")[:most])
        boxes, labels = boxes[largest], labels[largest]
    return pixels, to_convention(boxes, recipe.network.convention).astype(np.float32), labels


def augmented(
    pixels: np.ndarray, boxes: np.ndarray, random: np.random.Generator, own: Input
) -> tuple[np.ndarray, np.ndarray]:
    """Flips and turns an image and its boxes at random."""
    for axis, chance in (("horizontal", own.horizontal_flip), ("vertical", own.vertical_flip)):
        if random.random() < chance:
            boxes = flipped(boxes, (pixels.shape[0], pixels.shape[1]), axis)
            pixels = pixels[:, ::-1] if axis == "horizontal" else pixels[::-1]
    if random.random() < own.quarter_turns:
        height = pixels.shape[0]
        pixels = np.rot90(pixels, -1)  # clockwise: the lower left corner becomes the upper left one
        boxes = turned(boxes, math.pi / 2, (0.0, 0.0)) + np.array([height, 0, 0, 0, 0])
    return pixels, boxes


def training_batches(
    source: TileSource, recipe: RotatedDetection, layout: Layout, first_update: int = 0
) -> tf.data.Dataset:
    """Reads and augments the tiles of this process endlessly, starting at any update.

    Args:
        source: TileSource. The training tiles.
        recipe: RotatedDetection. The recipe.
        layout: Layout. How the batch is distributed.
        first_update: int. Number of updates already made. Defaults to 0.

    Returns:
        Dataset of (inputs, zeros). The inputs are those of `training_network.trained`, in the order
        of their names: boxes, images, labels and sizes.
    """

    def read(index: int, epoch: int, position: int) -> tuple[np.ndarray, ...]:
        pixels, boxes, labels = training_tile(source, recipe, int(index), int(epoch), int(position))
        return boxes, pixels.astype(np.float32), labels, np.array(pixels.shape[:2], np.float32)

    kinds = (tf.float32, tf.float32, tf.int32, tf.float32)
    shapes = ((None, 5), (None, None, 3), (None,), (2,))

    def load(_: tf.Tensor, *numbers: tf.Tensor) -> tuple[tf.Tensor, ...]:
        found = tf.numpy_function(read, numbers, kinds, stateful=False)
        for tensor, shape in zip(found, shapes):
            tensor.set_shape(shape)
        return tuple(found)

    def complete(*batch: tf.Tensor) -> tuple[tuple[tf.Tensor, ...], tf.Tensor]:
        boxes, images, labels, sizes = batch
        rows, columns = tf.unstack(-tf.shape(images)[1:3] % 32)
        images = tf.pad(images, [[0, 0], [0, rows], [0, columns], [0, 0]])
        more = tf.maximum(1 - tf.shape(labels)[1], 0)  # at least one, for maxima over objects
        boxes = tf.pad(boxes, [[0, 0], [0, more], [0, 0]])
        labels = tf.pad(labels, [[0, 0], [0, more]], constant_values=-1)
        return (boxes, images, labels, sizes), tf.zeros(tf.shape(sizes)[:1])

    records = source.stream(
        recipe.seed,
        first_update * recipe.batch.batch_size,
        (layout.process, layout.processes),
        recipe.batch.batch_size,
    )
    tiles = records.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    batches = tiles.padded_batch(
        layout.process_batch,
        padded_shapes=shapes,
        padding_values=(0.0, 0.0, -1, 0.0),
        drop_remainder=True,
    )
    return batches.map(complete).prefetch(tf.data.AUTOTUNE)
