"""Non-maximum suppression of rotated boxes, by the exact greedy rule, in NumPy.

A box is suppressed if its intersection over union with a better box of its class that is kept is
above the threshold. Equal scores are taken in the order of the boxes.
"""

import numpy as np

from keras_convnext.detection.rotated.geometry import half_extents
from keras_convnext.detection.rotated.intersection import iou_of

_BLOCK = 64  # best boxes that are compared with all others at a time
PAIRS = 8192  # compared at a time: their arrays fit in the cache of a core


def suppress_rotated(
    boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray, threshold: float = 0.1
) -> np.ndarray:
    """Returns the indices of the boxes that are kept, best first.

    Args:
        boxes: array (K, 5).
        scores: array (K,).
        labels: int array (K,).
        threshold: float. Of the intersection over union. Defaults to 0.1.

    Returns:
        int array of indices.
    """
    order = np.argsort(-np.asarray(scores), kind="stable")
    of_class = (order[labels[order] == label] for label in np.unique(labels))
    kept = [_kept(boxes, own, threshold) for own in of_class]
    found = np.concatenate([*kept, np.zeros(0, np.intp)]).astype(np.intp)
    rank = np.empty(len(order), np.intp)
    rank[order] = np.arange(len(order))
    return found[np.argsort(rank[found])]


def _kept(boxes: np.ndarray, left: np.ndarray, threshold: float) -> np.ndarray:
    """Returns which boxes of a class are kept, of indices that are sorted by score."""
    kept = []
    while len(left):
        block, left = left[:_BLOCK], left[_BLOCK:]
        every = np.concatenate([block, left])
        suppresses = overlaps(boxes[block], boxes[every]) > threshold
        gone = np.zeros(len(every), bool)
        for row in range(len(block)):
            if not gone[row]:
                kept.append(block[row])
                gone |= suppresses[row]
        left = left[~gone[len(block) :]]
    return np.array(kept, np.intp)


def overlaps(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns the intersection over union of each box (A, 5) with each of the others (B, 5).

    Computed in float64, of the pairs whose horizontal bounding boxes overlap.
    """
    boxes, others = np.asarray(boxes, np.float64), np.asarray(others, np.float64)
    near = np.ones((len(boxes), len(others)), bool)
    for axis, (own, their) in enumerate(zip(half_extents(boxes), half_extents(others))):
        distance = np.abs(boxes[:, None, axis] - others[None, :, axis])
        near &= distance < own[:, None] + their[None, :]
    found = np.zeros(near.shape)
    rows, columns = np.nonzero(near)
    for start in range(0, len(rows), PAIRS):
        some = slice(start, start + PAIRS)
        pair = rows[some], columns[some]
        found[pair] = iou_of(boxes[pair[0]], others[pair[1]], np)
    return found
