"""Average precision of rotated boxes by DOTA's rule.

A detection is compared with the object of its class in its image that it overlaps most. If they
overlap by more than the threshold, it is right the first time that the object is found, and wrong
later; if the object is difficult, it is neither. All others are wrong.

References:
    CAPTAIN-WHU/DOTA_devkit, dota_evaluation_task1.py.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from keras_convnext.detection.rotated.objects import RotatedObjects
from keras_convnext.detection.rotated.polygons import polygon_overlaps
from keras_convnext.detection.rotated.prediction import RotatedDetections

THRESHOLDS = tuple(index / 100 for index in range(50, 100, 5))
FIGURES = ("AP50", "AP75", "AP")


class RotatedScores(NamedTuple):
    """Average precision, in 0..1; NaN if there is nothing to measure.

    Args:
        eleven_points: dict from `FIGURES` to float. Means over classes with objects, by the 11
            points of VOC 2007, as DOTA's tools and published figures use. "AP" is the mean over the
            thresholds .5, .55, ..., .95.
        area: dict from `FIGURES` to float. The same by the area under the curve.
        of_class: dict from class names to the AP50 by 11 points.
    """

    eleven_points: dict[str, float]
    area: dict[str, float]
    of_class: dict[str, float]


def scores_of_rotated(objects: RotatedObjects, found: Sequence[RotatedDetections]) -> RotatedScores:
    """Measures detections.

    Args:
        objects: RotatedObjects. The images and their objects.
        found: sequence of RotatedDetections. Of each of the images.
    """
    eleven = np.full((len(objects.classes), len(THRESHOLDS)), np.nan)
    area = np.full_like(eleven, np.nan)
    for label in range(len(objects.classes)):
        required, matches = _matches(objects, found, label)
        if not required:
            continue
        for index, threshold in enumerate(THRESHOLDS):
            recall, precision = _curve(matches, threshold, required)
            eleven[label, index] = _eleven_points(recall, precision)
            area[label, index] = _area(recall, precision)
    return RotatedScores(
        _figures(eleven), _figures(area), dict(zip(objects.classes, eleven[:, 0].tolist()))
    )


class _Matches(NamedTuple):
    """The detections of a class in all images, best first.

    Args:
        overlaps: array (D,). With the object that each overlaps most; -1 without objects.
        nearest: int array (D,). Number of that object, or -1.
        difficult: bool array (M,). Of the objects.
    """

    overlaps: np.ndarray
    nearest: np.ndarray
    difficult: np.ndarray


def _matches(
    objects: RotatedObjects, found: Sequence[RotatedDetections], label: int
) -> tuple[int, _Matches]:
    """Returns how many objects must be found, and the detections."""
    scores, overlaps, nearest, difficult = [], [], [], []
    first = 0
    for picture, own in zip(objects.pictures, found):
        is_class = np.array([each.label == label for each in picture.objects], bool)
        points = picture.points()[is_class]
        hard = [each.difficulty > 0 for each in picture.objects if each.label == label]
        detected = own.points()[own.labels == label]
        scores.append(own.scores[own.labels == label])
        if len(points) and len(detected):
            ious = polygon_overlaps(detected, points)
            overlaps.append(ious.max(1))
            nearest.append(ious.argmax(1) + first)
        else:
            overlaps.append(np.full(len(detected), -1.0))
            nearest.append(np.full(len(detected), -1))
        difficult += hard
        first += len(points)
    order = np.argsort(-np.concatenate(scores), kind="stable")
    hard_ones = np.array(difficult, bool)
    matches = _Matches(np.concatenate(overlaps)[order], np.concatenate(nearest)[order], hard_ones)
    return int((~hard_ones).sum()), matches


def _curve(matches: _Matches, threshold: float, required: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns recall and precision after each detection."""
    hits = matches.overlaps > threshold
    # For a detection without objects, -1 is the last one; it is no hit.
    hard = hits & (matches.difficult[matches.nearest] if len(matches.difficult) else False)
    taken = np.where(hits, matches.nearest, -1)
    _, first = np.unique(taken, return_index=True)
    is_first = np.zeros(len(hits), bool)
    is_first[first] = True
    right = hits & ~hard & is_first
    wrong = ~right & ~hard
    rights, wrongs = np.cumsum(right), np.cumsum(wrong)
    return rights / required, rights / np.maximum(rights + wrongs, 1)


def _eleven_points(recall: np.ndarray, precision: np.ndarray) -> float:
    best = [precision[recall >= point].max(initial=0) for point in np.arange(0, 1.1, 0.1)]
    return float(np.mean(best))


def _area(recall: np.ndarray, precision: np.ndarray) -> float:
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0) * envelope).sum())


def _figures(values: np.ndarray) -> dict[str, float]:
    """Returns the means over classes."""
    known = values[~np.isnan(values[:, 0])]
    if not len(known):
        return dict.fromkeys(FIGURES, float("nan"))
    means = known.mean(0)
    own = (means[0], means[THRESHOLDS.index(0.75)], means.mean())
    return dict(zip(FIGURES, map(float, own)))
