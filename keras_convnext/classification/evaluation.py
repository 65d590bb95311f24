"""Accuracy, measured as in the published evaluation."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from keras_convnext.data.checks import reason_of, refuse_broken
from keras_convnext.data.errors import DataError
from keras_convnext.data.images import evaluation_image
from keras_convnext.data.source import Source
from keras_convnext.data.sources import open_source
from keras_convnext.preprocessing import class_labels
from keras_convnext.printable import printable


class Accuracy(NamedTuple):
    """The results of an evaluation.

    Args:
        top1: float. Top-1 accuracy, in 0..1.
        top5: float. Top-5 accuracy, in 0..1.
        loss: float. Mean cross-entropy in nats, without label smoothing.
        images: int. Number of images evaluated.
        images_per_second: float. Throughput of reading, decoding and predicting, without the first
            batch, which includes compilation.
        guesses: mapping from (int, int) to int. Number of images for each pair of true and
            predicted class, as indices into the model's classes.
    """

    top1: float
    top5: float
    loss: float
    images: int
    images_per_second: float
    guesses: Mapping[tuple[int, int], int]


def evaluate(
    model: keras.Model,
    data: str | Path | Source,
    split: str | None = None,
    *,
    size: int | None = None,
    batch_size: int = 32,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Accuracy:
    """Measures the accuracy of a classifier.

    Images are prepared as in the published evaluation: if `size` is below 384, the short side is
    resized to `size / 0.875` and the center is cropped; otherwise the whole image is warped to the
    square.

    A model with 1,000 or 21,841 classes is assumed to be an ImageNet model, and data classes named
    by WordNet identifiers, such as `n01440764`, are matched with its classes. The data may
    therefore have only some of the classes, or be ImageNet-1K for an ImageNet-22K model. In all
    other cases, data and model must have the same number of classes, in the same order.

    Example:

    ```python
    model = keras_convnext.ConvNeXtTiny(weights="imagenet")
    print(evaluate(model, "imagenet2012").top1)
    ```

    Args:
        model: keras.Model. Maps pixels in 0..255 to probabilities or logits (N, classes).
        data: str, path or Source. As in `open_source`, or an open `Source`.
        split: str or None. Split of `data`. Defaults to None, for the only split or validation.
        size: int or None. Side of the square, in pixels. Defaults to None, for the input size of
            the model, or 224 if it accepts any size.
        batch_size: int. Number of images per prediction step. Defaults to 32.
        limit: int or None. Number of images to evaluate: a fixed random sample of all classes.
            Defaults to None, for all images.
        progress: function (done, total), called after each batch with numbers of images.

    Returns:
        An `Accuracy`.

    Raises:
        DataError: If the classes of data and model differ, or an image is broken.
        ValueError: If `size` does not fit the model, or its outputs are not finite.
    """
    source = data if isinstance(data, Source) else open_source(data, split)
    size = _size_of(model, size)
    outputs = _outputs_of_classes(source, model.output_shape[-1])
    has_logits = returns_logits(model)
    total = source.size if limit is None else min(limit, source.size)
    indices = source.order(0, 0) if limit is not None else np.arange(source.size)
    records = source.records(seed=0, epoch=0, shuffled=limit is not None).take(total)

    @tf.autograph.experimental.do_not_convert  # which takes seconds, and changes nothing
    def prepare(encoded: tf.Tensor, label: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return evaluation_image(encoded, size), label

    options = {"num_parallel_calls": tf.data.AUTOTUNE, "deterministic": True}
    batches = records.map(prepare, **options).batch(batch_size).prefetch(2)
    right, loss, done = np.zeros(2, int), 0.0, 0
    guesses: Counter[tuple[int, int]] = Counter()
    started, start = 0, time.perf_counter()
    iterator = iter(batches)
    while done < total:
        try:
            images, labels = next(iterator)
        except tf.errors.OpError as error:
            refuse_broken(source, indices[done : done + batch_size])
            raise DataError(f"{reason_of(error)} Received: {source.name}") from error
        scores = _predict(model, images.numpy(), batch_size)
        true = outputs[labels.numpy()]
        losses, ranks = _losses_and_ranks(scores, true, has_logits)
        guesses.update(zip(true.tolist(), scores.argmax(axis=1).tolist()))
        right += [int((ranks < top).sum()) for top in (1, 5)]
        loss += float(losses.sum())
        done += len(ranks)
        if not started and done < total:
            started, start = done, time.perf_counter()
        if progress:
            progress(done, total)
    speed = (done - started) / (time.perf_counter() - start)
    top1, top5 = (right / done).tolist()
    return Accuracy(top1, top5, loss / done, done, speed, dict(guesses))


def _size_of(model: keras.Model, size: int | None) -> int:
    taken = model.input_shape[1:3]
    if size is None:
        size = taken[0] or 224
    if any(side not in (None, size) for side in taken):
        raise ValueError(f"The model expects images of {taken} pixels. Received: size={size}")
    return size


def _outputs_of_classes(source: Source, outputs: int) -> np.ndarray:
    """Returns the index of the model output for each class of the data."""
    if outputs in (1000, 21841):
        output_of = {wnid: output for output, (wnid, _) in enumerate(class_labels(outputs))}
        unknown = [name for name in source.classes if name not in output_of]
        if not unknown:
            return np.array([output_of[wnid] for wnid in source.classes])
    else:
        unknown = list(source.classes)
    if len(source.classes) != outputs:
        raise DataError(
            f"The model has {outputs:,} classes, but the data has {len(source.classes):,}, such as "
            f"{unknown[0]!r}. Only classes named by WordNet identifiers may be a subset of the "
            f"classes of an ImageNet model. Received: {source.name}"
        )
    return np.arange(outputs)


def returns_logits(model: keras.Model) -> bool:
    """Whether a classifier returns logits, not probabilities.

    Raises:
        ValueError: If it returns neither.
    """
    layer = model
    while isinstance(layer, keras.Model):
        layer = layer.layers[-1]
    if isinstance(layer, keras.layers.Softmax):
        return False
    activation = keras.activations.serialize(getattr(layer, "activation", keras.activations.linear))
    if activation not in ("softmax", "linear"):
        raise ValueError(
            "The model must return probabilities from a softmax, or logits. "
            f"Received: activation={printable(activation)}"
        )
    return activation != "softmax"


def _predict(model: keras.Model, images: np.ndarray, batch_size: int) -> np.ndarray:
    """Predicts a batch. The last one is padded, because another shape would be recompiled."""
    missing = batch_size - len(images)
    padded = np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0)))
    return np.asarray(model.predict_on_batch(padded), np.float64)[: len(images)]


def _losses_and_ranks(
    scores: np.ndarray, labels: np.ndarray, has_logits: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the cross-entropy of each image, and the number of more probable classes."""
    if not np.isfinite(scores).all():
        raise ValueError("The model returns NaN or infinite values")
    score = np.take_along_axis(scores, labels[:, None], axis=1)
    # Ties are won by the class with the lower index.
    earlier = np.arange(scores.shape[1]) < labels[:, None]
    ranks = (scores > score).sum(axis=1) + ((scores == score) & earlier).sum(axis=1)
    if has_logits:
        highest = scores.max(axis=1, keepdims=True)
        normalizer = highest + np.log(np.exp(scores - highest).sum(axis=1, keepdims=True))
        return (normalizer - score)[:, 0], ranks
    return -np.log(np.maximum(score[:, 0], np.finfo(np.float32).tiny)), ranks
