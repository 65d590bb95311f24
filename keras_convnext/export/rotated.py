"""Compares an exported detector of rotated boxes with the live model."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_convnext.export.detectors import live_detections

_MOST = 500  # best boxes of an image that are compared
_SAME = 1e-2  # of scores, and of boxes as a share of the longest side


def compare_rotated(
    model: keras.Model,
    artifact: Callable[[np.ndarray], Mapping[str, np.ndarray]],
    images: Sequence[np.ndarray],
) -> tuple[float, float, int]:
    """Compares the boxes of an artifact, before suppression, with those of the live model.

    Where two scores are almost equal, rounding decides which box comes first, so each of the best
    boxes of the live model is compared with the nearest one of the artifact.

    Args:
        model: keras.Model. Made by `RotatedRetinaNet`.
        artifact: Artifact.
        images: sequence of uint8 arrays (H, W, C).

    Returns:
        The difference that 95 % of the boxes do not exceed: of their scores, or of their corners'
        coordinates and sides as a share of the longest side of the image. The share of the boxes
        that both have. The number of boxes compared.
    """
    errors: list[float] = []
    for image in images:
        ours, theirs = (
            {name: np.asarray(value)[0] for name, value in found.items()}
            for found in (live_detections(model, image), artifact(image[None]))
        )
        best = np.argsort(-ours["scores"].max(1), kind="stable")[:_MOST]
        factors = np.array([1, 1, 1, 1, 0], np.float32) / max(image.shape[:2])
        # The angle as a direction, for it may be near the end of its range.
        mine, other = (_described(each["boxes"], factors) for each in (ours, theirs))
        for index in best:
            apart = np.abs(other - mine[index]).max(1)
            apart = np.maximum(apart, np.abs(theirs["scores"] - ours["scores"][index]).max(1))
            errors.append(float(apart.min()))
    same = np.array(errors) <= _SAME
    return float(np.quantile(errors, 0.95, method="higher")), float(same.mean()), len(errors)


def _described(boxes: np.ndarray, factors: np.ndarray) -> np.ndarray:
    angle: Any = 2 * boxes[:, 4:]
    return np.concatenate([boxes * factors, np.cos(angle), np.sin(angle)], axis=1)
