"""Intersections of convex polygons in NumPy, many pairs at a time.

Half-planes are cut off one after another: Sutherland and Hodgman, "Reentrant Polygon Clipping",
Communications of the ACM 17(1), 1974.
"""

import numpy as np

from keras_convnext.detection.rotated.suppression import PAIRS


def signed_area(points: np.ndarray) -> np.ndarray:
    """Returns the areas (...) of polygons (..., K, 2), positive from the x to the y axis."""
    x, y = points[..., 0], points[..., 1]
    return (x * np.roll(y, -1, -1) - np.roll(x, -1, -1) * y).sum(-1) / 2


def clipped(points: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the intersections of pairs of convex polygons.

    Args:
        points: array (P, K, 2). The vertices in order.
        others: array (P, L, 2). Each ordered from the x to the y axis.

    Returns:
        The vertices, float64 array (P, K + L, 2), of which those after the last repeat the first;
        and how many there are, int array (P,).
    """
    points = np.asarray(points, np.float64)
    others = np.asarray(others, np.float64)
    count = np.full(len(points), points.shape[1])
    for side in range(others.shape[1]):
        start, end = others[:, side], others[:, (side + 1) % others.shape[1]]
        points, count = _cut(points, count, start, end - start)
    return points, count


def _cut(
    points: np.ndarray, count: np.ndarray, start: np.ndarray, direction: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Removes what is to the right of a line from each polygon, which may add a vertex."""
    pairs, most, _ = points.shape
    offset = points - start[:, None]
    distance = direction[:, None, 0] * offset[..., 1] - direction[:, None, 1] * offset[..., 0]
    slot = np.arange(most)[None]
    is_vertex = slot < count[:, None]
    after = np.where(slot + 1 < count[:, None], slot + 1, 0)
    next_points = np.take_along_axis(points, after[..., None], 1)
    next_distance = np.take_along_axis(distance, after, 1)
    crosses = is_vertex & (distance * next_distance < 0)
    change = np.where(crosses, distance - next_distance, 1)
    share = np.where(crosses, distance / change, 0)
    crossing = points + share[..., None] * (next_points - points)
    # Each vertex that is kept, followed by where the side after it crosses the line.
    found = np.stack([points, crossing], 2).reshape(pairs, 2 * most, 2)
    kept = np.stack([is_vertex & (distance >= 0), crosses], 2).reshape(pairs, 2 * most)
    order = np.argsort(~kept, axis=1, kind="stable")[:, : most + 1]
    found = np.take_along_axis(found, order[..., None], 1)
    count = kept.sum(1)
    is_vertex = np.arange(most + 1)[None] < count[:, None]
    return np.where(is_vertex[..., None], found, found[:, :1]), np.minimum(count, most + 1)


def polygon_overlaps(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Returns the intersection over union of each convex quadrilateral with each of the others.

    Args:
        points: array (A, 4, 2).
        others: array (B, 4, 2).

    Returns:
        float64 array (A, B). Only pairs whose horizontal bounding boxes overlap are computed.
    """
    points, others = (_ordered(np.asarray(each, np.float64)) for each in (points, others))
    lowest, highest = points.min(1)[:, None], points.max(1)[:, None]
    near = ((lowest < others.max(1)) & (others.min(1) < highest)).all(-1)
    found = np.zeros(near.shape)
    rows, columns = np.nonzero(near)
    for start in range(0, len(rows), PAIRS):
        row, column = rows[start : start + PAIRS], columns[start : start + PAIRS]
        # Relative to a corner, so that large coordinates do not cost precision.
        origin = points[row, :1]
        one, other = points[row] - origin, others[column] - origin
        shared = np.maximum(signed_area(clipped(one, other)[0]), 0)
        union = signed_area(one) + signed_area(other) - shared
        found[row, column] = shared / np.where(union > 0, union, 1)
    return found


def _ordered(points: np.ndarray) -> np.ndarray:
    """Returns polygons (P, K, 2) in the order from the x to the y axis."""
    return np.where((signed_area(points) < 0)[:, None, None], points[:, ::-1], points)
