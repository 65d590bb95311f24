"""Batches of images and their objects for training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import tensorflow as tf

from keras_convnext.data.errors import DataError, NoSuchSplitError
from keras_convnext.data.source import Source
from keras_convnext.detection.augmentation import Scene, augmented
from keras_convnext.detection.evaluation import pixels_of
from keras_convnext.detection.objects import Objects, Picture, mask_of
from keras_convnext.detection.recipes import Detection
from keras_convnext.detection.splits import open_objects
from keras_convnext.training.layout import Layout


class ObjectSource(Source):
    """Images with objects, in a reproducible order. The label of an image is its index.

    Args:
        objects: Objects.
        split: str. Name of the split.
    """

    def __init__(self, objects: Objects, split: str) -> None:
        self.objects = objects
        super().__init__(str(objects.source), split, objects.classes, len(objects.pictures))

    def find(self, indices: np.ndarray) -> list[bytes]:
        """Returns nothing: images are read together with their objects."""
        return [b""] * len(indices)

    def parse(self, found: tf.Tensor, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Adds the indices."""
        return found, indices

    def name_of(self, index: int) -> str:
        """Returns the path of image `index`."""
        return self.objects.pictures[index].title

    def scene(self, index: int, masks: bool) -> Scene:
        """Returns an image and its objects, without crowds.

        Raises:
            DataError: If the image is broken.
        """
        picture = self.objects.pictures[index]
        own = [each for each in picture.annotations if _is_trained(each.box, each.is_crowd)]
        size = picture.height, picture.width
        drawn = [mask_of(each, *size) for each in own] if masks else []
        return Scene(
            pixels_of(picture),
            np.array([each.box for each in own], np.float32).reshape(-1, 4),
            np.array([each.label for each in own], np.int32),
            np.array(drawn, np.uint8).reshape(len(own), *(size if masks else (0, 0))),
        )


def _is_trained(box: Sequence[float], is_crowd: bool) -> bool:
    """As in mmdetection, objects of less than a pixel are left out."""
    return not is_crowd and box[2] - box[0] >= 1 and box[3] - box[1] >= 1


def open_training_data(
    data: str | Path, validation_data: str | Path | None, recipe: Detection
) -> tuple[ObjectSource, Objects | None]:
    """Opens the training images and, if there are any, the validation images.

    Args:
        data: str or path. As in `open_objects`, with a split "train".
        validation_data: str, path or None. Other data to validate on, with the same categories;
            None for the split "validation" of `data`, or else the recipe's `validation_share` of
            the training images.
        recipe: Detection. The recipe.

    Raises:
        DataError: If the data is broken or inconsistent, or there is no such data.
    """
    own = recipe.input
    training = open_objects(data, "train", skip_broken=own.skip_broken)
    try:
        if validation_data is not None and Path(validation_data).is_file():
            validation = open_objects(validation_data, "train", skip_broken=own.skip_broken)
        else:
            validation = open_objects(
                validation_data or data, "validation", skip_broken=own.skip_broken
            )
    except NoSuchSplitError:
        if validation_data is not None:
            raise
        validation = None
        if own.validation_share:
            training, validation = _held_out(training, own.validation_share, recipe.seed)
    if validation is not None and validation.classes != training.classes:
        raise DataError(
            "The validation data must have the categories of the training data. "
            f"Received: {validation.source} with {len(validation.classes)} categories, and "
            f"{training.source} with {len(training.classes)}"
        )
    if own.drop_empty:
        training = replace(training, pictures=[p for p in training.pictures if _is_useful(p)])
        if not training.pictures:
            raise DataError(f"No image has an object. Received: {training.source}")
    return ObjectSource(training, "train"), validation


def _is_useful(picture: Picture) -> bool:
    has_object = any(_is_trained(each.box, each.is_crowd) for each in picture.annotations)
    return has_object and min(picture.height, picture.width) >= 32


def _held_out(objects: Objects, share: float, seed: int) -> tuple[Objects, Objects]:
    count = len(objects.pictures)
    if count < 2:
        raise DataError(f"A single image cannot be split. Add images. Received: {objects.source}")
    held = min(max(1, round(share * count)), count - 1)
    order = np.random.default_rng(seed).permutation(count)
    parts = np.sort(order[held:]), np.sort(order[:held])
    first, second = ([objects.pictures[index] for index in part] for part in parts)
    return replace(objects, pictures=first), replace(objects, pictures=second)


def has_masks(source: ObjectSource, wanted: bool | None) -> bool:
    """Returns whether masks are trained: `wanted`, or else whether all objects have them.

    Raises:
        DataError: If masks are wanted, but some objects have none.
    """
    missing = sum(
        each.shape is None
        for picture in source.objects.pictures
        for each in picture.annotations
        if not each.is_crowd
    )
    if wanted and missing:
        raise DataError(
            f"{missing:,} objects have no mask: set masks=false to train boxes only. "
            f"Received: {source.name}"
        )
    return not missing if wanted is None else wanted


def crowded(source: ObjectSource, most: int) -> int:
    """Returns how many images have more objects than are trained on."""
    return sum(
        sum(_is_trained(each.box, each.is_crowd) for each in picture.annotations) > most
        for picture in source.objects.pictures
    )


def training_scene(
    source: ObjectSource, recipe: Detection, masks: bool, index: int, epoch: int, position: int
) -> Scene:
    """Reads and augments an image. It depends only on the seed, the epoch and the position."""
    key = np.array([recipe.seed, (epoch << 32) + position], np.uint64)
    random = np.random.Generator(np.random.Philox(key=key))
    scene = augmented(source.scene(index, masks), random, recipe.input)
    most = recipe.input.most_objects
    if len(scene.labels) > most:
        sides = scene.boxes[:, 2:] - scene.boxes[:, :2]
        largest = np.sort(np.argsort(-sides.prod(axis=1), kind="stable")[:most])
        scene = Scene(scene.image, *(each[largest] for each in scene[1:]))
    return scene


def training_batches(
    source: ObjectSource, recipe: Detection, masks: bool, layout: Layout, first_update: int = 0
) -> tf.data.Dataset:
    """Reads and augments the images of this process endlessly, starting at any update.

    Args:
        source: ObjectSource. The training images.
        recipe: Detection. The recipe.
        masks: bool. Whether masks are trained.
        layout: Layout. How the batch is distributed.
        first_update: int. Number of updates already made. Defaults to 0.

    Returns:
        Dataset of (inputs, zeros). The inputs are those of `training_network.trained`, in the order
        of their names: boxes, images, labels, masks if there are any, and sizes.
    """

    def read(index: int, epoch: int, position: int) -> tuple[np.ndarray, ...]:
        scene = training_scene(source, recipe, masks, int(index), int(epoch), int(position))
        size = np.array(scene.image.shape[:2], np.float32)
        return scene.boxes, scene.image.astype(np.float32), scene.labels, scene.masks, size

    kinds = (tf.float32, tf.float32, tf.int32, tf.uint8, tf.float32)
    shapes = ((None, 4), (None, None, 3), (None,), (None, None, None), (2,))

    def load(_: tf.Tensor, *numbers: tf.Tensor) -> tuple[tf.Tensor, ...]:
        found = tf.numpy_function(read, numbers, kinds, stateful=False)
        for tensor, shape in zip(found, shapes):
            tensor.set_shape(shape)
        return tuple(found)

    def complete(*batch: tf.Tensor) -> tuple[tuple[tf.Tensor, ...], tf.Tensor]:
        boxes, images, labels, drawn, sizes = batch
        rows, columns = tf.unstack(-tf.shape(images)[1:3] % recipe.input.bucket)
        images = tf.pad(images, [[0, 0], [0, rows], [0, columns], [0, 0]])
        more = tf.maximum(1 - tf.shape(labels)[1], 0)  # at least one, for maxima over objects
        boxes = tf.pad(boxes, [[0, 0], [0, more], [0, 0]])
        labels = tf.pad(labels, [[0, 0], [0, more]], constant_values=-1)
        inputs = [boxes, images, labels]
        if masks:
            inputs.append(tf.pad(drawn, [[0, 0], [0, more], [0, rows], [0, columns]]))
        return (*inputs, sizes), tf.zeros(tf.shape(sizes)[:1])

    records = source.stream(
        recipe.seed,
        first_update * recipe.batch.batch_size,
        (layout.process, layout.processes),
        recipe.batch.batch_size,
    )
    scenes = records.map(load, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    batches = scenes.padded_batch(
        layout.process_batch,
        padded_shapes=shapes,
        padding_values=(0.0, 0.0, -1, tf.constant(0, tf.uint8), 0.0),
        drop_remainder=True,
    )
    return batches.map(complete).prefetch(tf.data.AUTOTUNE)
