"""Finds the outputs of a model that belong to the classes of some data."""

import warnings
from collections import Counter
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from keras_convnext.data.errors import DataError, DataWarning
from keras_convnext.data.source import Source
from keras_convnext.preprocessing import class_labels


def outputs_of_classes(source: Source, outputs: int, names: Sequence[str] | None) -> np.ndarray:
    """Returns the index of the model's output for each class of the data.

    Args:
        source: Source. The data.
        outputs: int. Number of outputs of the model.
        names: sequence of str or None. The class of each output, if known. The outputs of a model
            with 1,000 or 21,841 classes also have ImageNet's WordNet identifiers as names.

    Returns:
        int array (classes of the data,), -1 for a class that the model does not have. Classes are
        matched by name if at least one of the data's is also one of the model's, and otherwise by
        their order.

    Raises:
        DataError: If no class matches by name, and the numbers of classes differ.
        ValueError: If the number of `names` is not that of the outputs.
    """
    known_names = _known_names(outputs, names)
    for known in known_names:
        if tuple(known) == source.classes:
            return np.arange(outputs)
        found = _places(known, source.classes)
        if (found >= 0).any():
            return found
    known = next(filter(None, known_names), ())
    if len(source.classes) != outputs:
        theirs = f", such as {known[0]!r}" if known else " with unknown names"
        raise DataError(
            f"The model has {outputs:,} classes{theirs}, but the data has "
            f"{len(source.classes):,}, such as {source.classes[0]!r}. Classes are matched by name, "
            "as in the classes.txt beside a trained model, or by WordNet identifier for ImageNet "
            f"models; in the same order if both have as many. Received: {source.name}"
        )
    if names is not None:
        warnings.warn(
            f"No class of the data, such as {source.classes[0]!r}, is named like one of the model, "
            f"such as {names[0]!r}: they are matched in order. Received: {source.name}",
            DataWarning,
            stacklevel=3,
        )
    return np.arange(outputs)


def outputs_of_imagenet(outputs: int, names: Sequence[str] | None) -> np.ndarray:
    """Returns the index of the model's output for each class of ImageNet-1K.

    Args:
        outputs: int. Number of outputs of the model.
        names: sequence of str or None. As in `outputs_of_classes`.

    Returns:
        int array (1000,), -1 for a class that the model does not have.

    Raises:
        ValueError: If the model has none, or the number of `names` is not that of the outputs.
    """
    for known in _known_names(outputs, names):
        found = _places(known, [wnid for wnid, _ in class_labels(1000)])
        if (found >= 0).any():
            return found
    raise ValueError(
        "The model must have classes of ImageNet: 1,000 or 21,841 outputs, or classes that are "
        f"WordNet identifiers. Received: {outputs:,} outputs"
        + (f" with classes such as {names[0]!r}" if names else "")
    )


def _known_names(outputs: int, names: Sequence[str] | None) -> tuple[Sequence[str], ...]:
    """Returns the lists of names that the outputs of a model may have."""
    if names is not None and len(names) != outputs:
        raise ValueError(
            f"The model has {outputs:,} outputs: classes must name each of them. "
            f"Received: {len(names):,} classes"
        )
    imagenet = [wnid for wnid, _ in class_labels(outputs)] if outputs in (1000, 21841) else []
    return names or (), imagenet


class Relabeled(Source):
    """Another source with the classes of a model; labels of other classes become -1.

    Args:
        whole: Source. The other source.
        classes: sequence of str. The classes of the model.

    Raises:
        DataError: If no class of the source is one of the model's.
    """

    def __init__(self, whole: Source, classes: Sequence[str]) -> None:
        self._whole = whole
        self._labels = _places(classes, whole.classes)
        self.missing = tuple(np.array(whole.classes)[self._labels < 0].tolist())
        if len(self.missing) == len(whole.classes):
            raise DataError(
                f"None of the classes, such as {whole.classes[0]!r}, is one of the training data, "
                f"such as {classes[0]!r}. Received: {whole.name}"
            )
        super().__init__(whole.name, whole.split, classes, whole.size)

    def find(self, indices: np.ndarray) -> list[bytes]:
        """Returns the records or paths of the images."""
        return self._whole.find(indices)

    def parse(self, found: tf.Tensor, indices: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Parses records or paths, and replaces the labels."""
        encoded, labels = self._whole.parse(found, indices)
        return encoded, tf.gather(tf.constant(self._labels, tf.int64), labels)

    def load(self, parsed: tf.Tensor) -> tf.Tensor:
        """Loads an encoded image like the whole source."""
        return self._whole.load(parsed)

    def name_of(self, index: int) -> str:
        """Returns the location of image `index`, for a message."""
        return self._whole.name_of(index)


def _places(known: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    """Returns the index of each wanted name, -1 for one that is not or not uniquely known."""
    times = Counter(known)
    place_of = {name: place for place, name in enumerate(known) if times[name] == 1}
    return np.array([place_of.get(name, -1) for name in wanted])
