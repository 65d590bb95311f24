"""Rotated objects in a scene of any size: in tiles, moved back, and merged."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_convnext.detection.rotated.geometry import to_points
from keras_convnext.detection.rotated.scenes import Scene
from keras_convnext.detection.rotated.suppression import suppress_rotated
from keras_convnext.detection.rotated.tiles import tiles_of

TILE, OVERLAP = 1024, 512  # px
SCORE_THRESHOLD, IOU_THRESHOLD, MOST = 0.05, 0.1, 2000
_MULTIPLE = 32  # of the sides of a padded tile

Predict = Callable[[dict[str, np.ndarray]], Mapping[str, Any]]


class RotatedDetections(NamedTuple):
    """The objects in a scene, best first.

    Args:
        boxes: float32 array (D, 5). cx, cy, w, h in pixels of the scene, and the angle in radians.
        scores: float32 array (D,).
        labels: int32 array (D,).
        size: tuple of int. Height and width of the scene.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    size: tuple[int, int]

    def points(self) -> np.ndarray:
        """Returns the corners of the boxes, float32 array (D, 4, 2)."""
        return to_points(self.boxes)

    def above(self, threshold: float) -> "RotatedDetections":
        """Returns the objects with at least this score."""
        keep = self.scores >= threshold
        return RotatedDetections(self.boxes[keep], self.scores[keep], self.labels[keep], self.size)


def detect_rotated(
    model: keras.Model,
    scene: np.ndarray | str | Path,
    *,
    tile: int = TILE,
    overlap: int = OVERLAP,
    score_threshold: float = SCORE_THRESHOLD,
    iou_threshold: float = IOU_THRESHOLD,
    most: int = MOST,
    progress: Callable[[int, int], None] | None = None,
) -> RotatedDetections:
    """Finds the rotated objects in a scene of any size.

    The scene is cut into tiles, and duplicates are suppressed in each tile and then in the scene.

    Example:

    ```python
    found = detect_rotated(model, "harbor.png")
    ships = found.above(0.5)
    ships.points()  # (D, 4, 2)
    ```

    Args:
        model: keras.Model. Made by `RotatedRetinaNet`.
        scene: array (H, W, 3), RGB pixels in 0..255, or the path of an image. Of a PNG file, only
            the rows of a tile are in memory.
        tile: int. Side of a tile in pixels, a multiple of 32. Defaults to 1024.
        overlap: int. Pixels that neighboring tiles share: more than the largest objects have.
            Defaults to 512.
        score_threshold: float. A detection's score is above it. Defaults to 0.05.
        iou_threshold: float. Boxes that overlap more with a better box of the same class are not
            detections. Defaults to 0.1.
        most: int. The most detections of a tile. Defaults to 2000.
        progress: function or None. Called with the number of tiles done, and of all.

    Returns:
        `RotatedDetections`.

    Raises:
        ValueError: If an argument is invalid.
        DataError: If the image is broken.
    """
    thresholds = score_threshold, iou_threshold
    predict = model.predict_on_batch
    return detect_rotated_with(predict, scene, tile, overlap, thresholds, most, progress)


def detect_rotated_with(
    predict: Predict,
    scene: np.ndarray | str | Path,
    tile: int = TILE,
    overlap: int = OVERLAP,
    thresholds: tuple[float, float] = (SCORE_THRESHOLD, IOU_THRESHOLD),
    most: int = MOST,
    progress: Callable[[int, int], None] | None = None,
) -> RotatedDetections:
    """Finds the objects in a scene, as `detect_rotated`, with a function that calls the model."""
    if tile % _MULTIPLE or tile <= 0:
        raise ValueError(f"tile must be a multiple of {_MULTIPLE}. Received: tile={tile}")
    if isinstance(scene, np.ndarray) and (scene.ndim != 3 or scene.shape[-1] != 3):
        raise ValueError(f"scene must have the shape (H, W, 3). Received: shape={scene.shape}")
    parts = []
    with Scene(scene) as source:
        size = source.height, source.width
        rows = list(tiles_of(*size, tile, overlap))
        total = sum(map(len, rows))
        for row in rows:
            band = source.band(row[0].top, tile)
            for each in row:
                pixels = band[:, each.left : each.left + tile]
                boxes, scores, labels = _found_in(predict, pixels, thresholds, most)
                corner = np.array([each.left, each.top, 0, 0, 0], np.float32)
                parts.append((boxes + corner, scores, labels))
                if progress is not None:
                    progress(len(parts), total)
    boxes, scores, labels = (np.concatenate(each) for each in zip(*parts))
    if total > 1:
        best = suppress_rotated(boxes, scores, labels, thresholds[1])
        boxes, scores, labels = boxes[best], scores[best], labels[best]
    return RotatedDetections(boxes, scores, labels, size)


def _found_in(
    predict: Predict, pixels: np.ndarray, thresholds: tuple[float, float], most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns boxes, scores and labels in a tile (H, W, 3)."""
    height, width = pixels.shape[:2]
    padding = [(0, -side % _MULTIPLE) for side in (height, width)]
    padded = np.pad(pixels.astype("float32"), (*padding, (0, 0)))
    found = predict({"images": padded[None], "sizes": np.array([[height, width]], "float32")})
    boxes, scores = (keras.ops.convert_to_numpy(found[name])[0] for name in ("boxes", "scores"))
    rows, labels = np.nonzero(scores > thresholds[0])
    boxes, scores, labels = boxes[rows], scores[rows, labels], labels.astype(np.int32)
    best = suppress_rotated(boxes, scores, labels, thresholds[1])[:most]
    return boxes[best], scores[best], labels[best]
