"""Rotated boxes: geometry, overlaps on three backends, and suppression."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rotated_parts
from other_backends import environment
from rotated_parts import exact_iou, random_boxes

from keras_convnext.detection import from_points, suppress_rotated, to_convention, to_points
from keras_convnext.detection.rotated.geometry import (
    flipped,
    half_extents,
    resized,
    turned,
)
from keras_convnext.detection.rotated.suppression import overlaps

RANDOM = np.random.default_rng(0)


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(check, marks=pytest.mark.slow) if check in rotated_parts.SLOW else check
        for check in rotated_parts.CHECKS
    ],
)
def test_with_tensorflow(check):
    check()


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_with(backend):
    done = subprocess.run(
        [sys.executable, rotated_parts.__file__],
        env={**environment(backend), "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert f"{len(rotated_parts.CHECKS)} checks on {backend}" in done.stdout


@pytest.mark.parametrize(
    ("box", "convention", "expected"),
    [
        ([9, 9, 2, 6, 0], "le135", [9, 9, 6, 2, math.pi / 2]),
        ([9, 9, 6, 2, 3 * math.pi / 4], "le135", [9, 9, 6, 2, -math.pi / 4]),
        ([9, 9, 6, 2, -math.pi / 4], "le135", [9, 9, 6, 2, -math.pi / 4]),
        ([9, 9, 6, 2, math.pi / 2], "le90", [9, 9, 6, 2, -math.pi / 2]),
        ([9, 9, 2, 6, 0.2], "le90", [9, 9, 6, 2, 0.2 - math.pi / 2]),
        ([9, 9, 6, 2, 0], "oc", [9, 9, 2, 6, math.pi / 2]),
        ([9, 9, 6, 2, math.pi / 2], "oc", [9, 9, 6, 2, math.pi / 2]),
        ([9, 9, 6, 2, -0.3], "oc", [9, 9, 2, 6, math.pi / 2 - 0.3]),
        ([9, 9, 6, 2, 0.3 + math.pi], "oc", [9, 9, 6, 2, 0.3]),
    ],
)
def test_conventions(box, convention, expected):
    found = to_convention(np.array(box, np.float64), convention)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_boxes_of_quadrilaterals():
    # The first two edges are 10 and 4 px long; the rest need not fit.
    points = [[0, 0], [10, 0], [10, 4], [1, 5]]
    np.testing.assert_allclose(from_points(points), [5, 2, 10, 4, 0])
    # From the second point on, the longer of the first two edges leads from (10, 4) to (1, 5).
    found = from_points(points[1:] + points[:1])
    np.testing.assert_allclose(found[2:], [82**0.5, 4, -math.atan(1 / 9)])


@pytest.mark.parametrize("axis", ["horizontal", "vertical", "diagonal"])
def test_flips_move_the_corners(axis):
    boxes = random_boxes(20).astype("float64")
    points = to_points(boxes)
    if axis != "vertical":
        points[..., 0] = 120 - points[..., 0]
    if axis != "horizontal":
        points[..., 1] = 80 - points[..., 1]
    found = flipped(boxes, (80, 120), axis)
    np.testing.assert_allclose(to_convention(found), from_points(points), atol=1e-9)


def test_resizing_and_turning_move_the_corners():
    boxes = random_boxes(20).astype("float64")
    points = to_points(boxes)
    np.testing.assert_allclose(to_points(resized(boxes, 1.5, 1.5)), 1.5 * points)
    np.testing.assert_allclose(
        resized(boxes, 1.5, 0.7), from_points(points * [1.5, 0.7]), atol=1e-9
    )
    cos, sin = math.cos(0.6), math.sin(0.6)
    around = (points - [30, 40]) @ np.array([[cos, sin], [-sin, cos]]) + [30, 40]
    np.testing.assert_allclose(to_points(turned(boxes, 0.6, (30, 40))), around, atol=1e-9)
    halves = half_extents(boxes)
    np.testing.assert_allclose(np.ptp(points, axis=1).T / 2, halves)


def suppressed_by_loop(boxes, scores, labels, threshold):
    left, kept = list(np.argsort(-scores, kind="stable")), []
    while left:
        best = left.pop(0)
        kept.append(best)
        ious = exact_iou(boxes[best], boxes[left]) if left else []
        left = [
            index
            for index, iou in zip(left, ious)
            if labels[index] != labels[best] or iou <= threshold
        ]
    return kept


def test_suppression_is_the_greedy_rule():
    boxes, scores = random_boxes(300, 150.0), RANDOM.random(300).round(2)  # with ties
    labels = RANDOM.integers(0, 3, 300)
    found = suppress_rotated(boxes, scores, labels, 0.1)
    np.testing.assert_array_equal(found, suppressed_by_loop(boxes, scores, labels, 0.1))
    assert 3 < len(found) < 100
    assert suppress_rotated(boxes[:0], scores[:0], labels[:0]).tolist() == []
    expected = exact_iou(boxes[:40, None], boxes[None])
    np.testing.assert_allclose(overlaps(boxes[:40], boxes), expected, atol=1e-9)
    # A chain, in which every other box is kept.
    chain = np.array([[x, 5, 10, 10, 0] for x in range(0, 2000, 4)], np.float64)
    found = suppress_rotated(chain, -np.arange(500), np.zeros(500, int), 0.4)
    np.testing.assert_array_equal(found, np.arange(0, 500, 2))
