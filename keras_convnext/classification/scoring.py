"""Runs a classifier over a source, batch by batch: what every measure of accuracy has in common."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_convnext.data.checks import is_of_input, reason_of, refuse_broken
from keras_convnext.data.errors import DataError
from keras_convnext.data.source import Source
from keras_convnext.memory_errors import OutOfMemoryError, is_out_of_memory

_as_it_stands = tf.autograph.experimental.do_not_convert  # which takes seconds, and changes nothing


class Batch(NamedTuple):
    """The outputs for some images.

    Args:
        scores: float64 array (N, outputs).
        labels: int64 array (N,). Their labels in the source.
        read: int. Number of images of the source until here, with those that are left out.
    """

    scores: np.ndarray
    labels: np.ndarray
    read: int


def scored_batches(
    model: keras.Model,
    source: Source,
    prepare: Callable[[tf.Tensor], tf.Tensor],
    kept: np.ndarray,
    *,
    size: int,
    batch_size: int,
    limit: int | None = None,
) -> Iterator[Batch]:
    """Predicts the images of a source, and yields the outputs in batches.

    Args:
        model: keras.Model. Maps pixels to outputs (N, outputs).
        source: Source. The images.
        prepare: function. Maps the bytes of a file to pixels (size, size, 3).
        kept: bool array (labels,). Whether to predict the images of a label.
        size: int. Side of the square, in pixels.
        batch_size: int. Number of images per prediction step.
        limit: int or None. Number of images to read: a fixed random sample of all classes. Defaults
            to None, for all images.

    Raises:
        OutOfMemoryError: If a batch needs too much memory.
        DataError: If an image is broken.
        ValueError: If the outputs are not finite.
    """
    total = images_read(source, limit)
    indices = (source.order(0, 0) if limit is not None else np.arange(source.size))[:total]
    records = source.records(seed=0, epoch=0, shuffled=limit is not None).take(total)
    if not kept.all():
        records = records.filter(_is_in(kept))

    @_as_it_stands
    def prepared(
        encoded: tf.Tensor, label: tf.Tensor, position: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        return prepare(encoded), label, position

    options = {"num_parallel_calls": tf.data.AUTOTUNE, "deterministic": True}
    batches = records.map(prepared, **options).batch(batch_size).prefetch(2)
    with _advising_on(batch_size, size):
        for images, labels, positions in _read(batches, source, indices, kept, batch_size):
            scores = _predict(model, images, batch_size)
            if not np.isfinite(scores).all():
                raise ValueError("The model returns NaN or infinite values")
            yield Batch(scores, labels, int(positions[-1]) + 1)


def images_read(source: Source, limit: int | None) -> int:
    """Returns how many images of a source are read."""
    return source.size if limit is None else min(limit, source.size)


def image_size(model: keras.Model, size: int | None) -> int:
    """Returns the side of the images for a model, in pixels.

    Raises:
        ValueError: If the model does not accept `size`.
    """
    taken = model.input_shape[1:3]
    if size is None:
        size = taken[0] or 224
    if any(side not in (None, size) for side in taken):
        raise ValueError(f"The model expects images of {taken} pixels. Received: size={size}")
    return size


def _is_in(kept: np.ndarray) -> Callable[..., tf.Tensor]:
    known = tf.constant(kept)

    @_as_it_stands
    def is_evaluated(_: tf.Tensor, label: tf.Tensor, *__: tf.Tensor) -> tf.Tensor:
        return tf.gather(known, label)

    return is_evaluated


def _read(
    batches: tf.data.Dataset, source: Source, indices: np.ndarray, kept: np.ndarray, size: int
) -> Iterator[tuple[np.ndarray, ...]]:
    """Yields the batches as arrays, and names the broken image if there is one."""
    iterator, read = iter(batches), 0
    while read < len(indices):
        try:
            batch = next(iterator, None)
        except (tf.errors.OpError, UnicodeDecodeError) as error:
            if not is_of_input(error):
                raise
            refuse_broken(source, islice(_evaluated(source, indices[read:], kept), size))
            raise DataError(f"{reason_of(error)} Received: {source.name}") from error
        if batch is None:  # the rest is left out
            return
        images, labels, positions = (tensor.numpy() for tensor in batch)
        read = int(positions[-1]) + 1
        yield images, labels, positions


@contextmanager
def _advising_on(batch_size: int, size: int) -> Iterator[None]:
    """Says what to set if memory is exhausted, on any backend."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(
            f"Out of memory with {batch_size} images of {size} px at once. Close other programs, "
            f"or set a smaller batch_size (--batch-size). Received: batch_size={batch_size}"
        ) from error


def _evaluated(source: Source, indices: np.ndarray, kept: np.ndarray) -> Iterator[int]:
    """Yields the indices of the images that are evaluated, and of those that cannot be read."""
    for index in map(int, indices):
        try:
            label = source.example(index)[1]
        except (tf.errors.OpError, OSError, UnicodeDecodeError):
            yield index
        else:
            if kept[label]:
                yield index


def _predict(model: keras.Model, images: np.ndarray, batch_size: int) -> np.ndarray:
    """Predicts a batch. The last one is padded, because another shape would be recompiled."""
    missing = batch_size - len(images)
    padded = np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0)))
    return np.asarray(model.predict_on_batch(padded), np.float64)[: len(images)]
