"""Accuracy, measured as in the published evaluation."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np

from keras_convnext.classification.class_matching import outputs_of_classes
from keras_convnext.classification.scoring import image_size, images_read, scored_batches
from keras_convnext.classification.suite_recognition import refuse_suite_data, refuse_suite_source
from keras_convnext.data.errors import DataError
from keras_convnext.data.images import evaluation_image
from keras_convnext.data.source import Source
from keras_convnext.data.sources import open_source
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
        missing: tuple of str. Classes of the data that the model does not have.
        excluded: int. Number of images of these classes, which are not evaluated.
    """

    top1: float
    top5: float
    loss: float
    images: int
    images_per_second: float
    guesses: Mapping[tuple[int, int], int]
    missing: tuple[str, ...] = ()
    excluded: int = 0


def evaluate(
    model: keras.Model,
    data: str | Path | Source,
    split: str | None = None,
    *,
    size: int | None = None,
    batch_size: int = 32,
    limit: int | None = None,
    classes: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
    crop: float | None = None,
) -> Accuracy:
    """Measures the accuracy of a classifier.

    Images are prepared as in the published evaluation: the short side is resized to `size / crop`
    and the center is cropped, or the whole image is warped to the square.

    Classes of data and model are matched by name. A model with 1,000 or 21,841 classes is assumed
    to be an ImageNet model, with WordNet identifiers such as `n01440764` as names; `classes` names
    those of other models. The data may have only some of the model's classes. Images of a class
    that the model does not have are excluded and counted: ImageNet-22K lacks one of the classes of
    ImageNet-1K, n04399382 (teddy). If no name matches, data and model must have the same number of
    classes, in the same order.

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
        classes: sequence of str or None. The names of the model's classes, in order, such as the
            lines of the `classes.txt` that `train` writes. Defaults to None, for those of ImageNet
            if the model has as many classes.
        progress: function (done, total), called after each batch with numbers of images.
        crop: float in 0..1, or None. As in `preprocessing.load_image`.

    Returns:
        An `Accuracy`.

    Raises:
        OutOfMemoryError: If a batch needs too much memory.
        DataError: If the model has none of the data's classes, an image is broken, or the data is a
            set that `evaluate_suites` scores by another rule, such as ImageNet-A.
        ValueError: If `size` or `classes` do not fit the model, or its outputs are not finite.
    """
    if isinstance(data, str | Path):
        refuse_suite_data(data)
    source = data if isinstance(data, Source) else open_source(data, split)
    refuse_suite_source(source, model.output_shape[-1], classes)
    size = image_size(model, size)
    outputs = outputs_of_classes(source, model.output_shape[-1], classes)
    has_logits = returns_logits(model)
    total = images_read(source, limit)
    right, loss, done, read = np.zeros(2, int), 0.0, 0, 0  # read: with those excluded
    guesses: Counter[tuple[int, int]] = Counter()
    started, start = 0, time.perf_counter()
    for scores, labels, read in scored_batches(
        model,
        source,
        partial(evaluation_image, size=size, crop=crop),
        outputs >= 0,
        size=size,
        batch_size=batch_size,
        limit=limit,
    ):
        true = outputs[labels]
        losses, ranks = _losses_and_ranks(scores, true, has_logits)
        guesses.update(zip(true.tolist(), scores.argmax(axis=1).tolist()))
        right += [int((ranks < top).sum()) for top in (1, 5)]
        loss += float(losses.sum())
        done += len(ranks)
        if not started and read < total:
            started, start = done, time.perf_counter()
        if progress:
            progress(read, total)
    if progress and read < total:
        progress(total, total)
    missing = tuple(name for name, output in zip(source.classes, outputs) if output < 0)
    if not done:
        raise DataError(
            f"None of the {total:,} images is of a class that the model has. {len(missing):,} "
            f"classes of the data are missing in it, such as {missing[0]!r}. "
            f"Received: {source.name}"
        )
    speed = (done - started) / (time.perf_counter() - start)
    top1, top5 = (right / done).tolist()
    return Accuracy(top1, top5, loss / done, done, speed, dict(guesses), missing, total - done)


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


def _losses_and_ranks(
    scores: np.ndarray, labels: np.ndarray, has_logits: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the cross-entropy of each image, and the number of more probable classes."""
    score = np.take_along_axis(scores, labels[:, None], axis=1)
    # Ties are won by the class with the lower index.
    earlier = np.arange(scores.shape[1]) < labels[:, None]
    ranks = (scores > score).sum(axis=1) + ((scores == score) & earlier).sum(axis=1)
    if has_logits:
        highest = scores.max(axis=1, keepdims=True)
        normalizer = highest + np.log(np.exp(scores - highest).sum(axis=1, keepdims=True))
        return (normalizer - score)[:, 0], ranks
    return -np.log(np.maximum(score[:, 0], np.finfo(np.float32).tiny)), ranks
