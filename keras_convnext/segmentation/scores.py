"""Mean intersection over union and pixel accuracy, as mmsegmentation computes them.

Source: open-mmlab/mmsegmentation 1.2.2, mmseg/evaluation/metrics/iou_metric.py.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

IGNORED = 255  # label of pixels that are not scored


class Counts(NamedTuple):
    """Pixels by class, over any number of images.

    Args:
        right: int array (classes,). Pixels of the class that are predicted so.
        predicted: int array (classes,). Pixels that are predicted as the class.
        labeled: int array (classes,). Pixels of the class.
    """

    right: np.ndarray
    predicted: np.ndarray
    labeled: np.ndarray

    def __add__(self, other: "Counts") -> "Counts":  # type: ignore[override]
        """Adds the pixels of other images."""
        return Counts(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))

    @classmethod
    def none(cls, classes: int) -> "Counts":
        """Returns the counts of no image."""
        return cls(*(np.zeros(classes, np.int64) for _ in cls._fields))


class Scores(NamedTuple):
    """Scores over a set of images, in 0..1.

    Args:
        mean_iou: float. Mean over the classes that are labeled or predicted somewhere (mIoU).
        pixel_accuracy: float. Share of right pixels (aAcc).
        class_accuracy: float. Mean over the labeled classes of the share of right pixels (mAcc).
        ious: tuple of float. Intersection over union of each class; NaN if it does not occur.
        accuracies: tuple of float. Share of right pixels of each class; NaN if it has no pixel.
    """

    mean_iou: float
    pixel_accuracy: float
    class_accuracy: float
    ious: tuple[float, ...]
    accuracies: tuple[float, ...]


def count(
    prediction: np.ndarray, labels: np.ndarray, classes: int, ignored: int = IGNORED
) -> Counts:
    """Counts the pixels of an image.

    Args:
        prediction: int array (H, W). Predicted classes.
        labels: int array (H, W). True classes.
        classes: int. Number of classes.
        ignored: int. Label of pixels that are not scored. Defaults to 255.

    Raises:
        ValueError: If the sizes differ, or a class is out of range.
    """
    if prediction.shape != labels.shape:
        raise ValueError(
            "Prediction and labels must have the same size. "
            f"Received: {prediction.shape} and {labels.shape}"
        )
    scored = labels != ignored
    prediction, labels = prediction[scored], labels[scored]
    for what, values in {"label": labels, "predicted class": prediction}.items():
        if values.size and not 0 <= values.min() <= values.max() < classes:
            raise ValueError(
                f"A {what} must be in 0..{classes - 1}. Received: {values.min()} to {values.max()}"
            )

    def histogram(values: np.ndarray) -> np.ndarray:
        return np.bincount(values.astype(np.int64), minlength=classes)

    right = histogram(labels[prediction == labels])
    return Counts(right, histogram(prediction), histogram(labels))


def scores_of(counts: Counts) -> Scores:
    """Computes the scores from the counts of all images.

    Raises:
        ValueError: If no pixel is labeled.
    """
    total = int(counts.labeled.sum())
    if not total:
        raise ValueError("No pixel has a label of a class, so there is nothing to score")
    with np.errstate(invalid="ignore"):
        ious = counts.right / (counts.predicted + counts.labeled - counts.right)
        accuracies = counts.right / counts.labeled
    return Scores(
        float(np.nanmean(ious)),
        float(counts.right.sum() / total),
        float(np.nanmean(accuracies)),
        _floats(ious),
        _floats(accuracies),
    )


def _floats(values: Sequence[float] | np.ndarray) -> tuple[float, ...]:
    return tuple(map(float, values))
