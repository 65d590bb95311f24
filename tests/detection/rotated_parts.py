"""Checks of rotated boxes against shapely and finite differences, on the backend of the process.

`test_rotated_parts.py` calls them, and runs this file with the other backends.
"""

import math
import os
import time

import keras
import numpy as np
import shapely
from detection_parts import array, tensor
from keras import ops

from keras_convnext.detection import (
    from_points,
    pairwise_rotated_iou,
    rotated_iou,
    to_convention,
    to_points,
)
from keras_convnext.detection.rotated import assigners, coder, losses

RANDOM = np.random.default_rng(0)
PI = math.pi


def exact_iou(boxes, others):
    one, other = (
        shapely.polygons(to_points(np.asarray(each, np.float64))) for each in (boxes, others)
    )
    shared = shapely.area(shapely.intersection(one, other))
    return shared / (shapely.area(one) + shapely.area(other) - shared)


def random_boxes(count, side=100.0, least=1.0):
    return np.stack([
        RANDOM.uniform(0, side, count), RANDOM.uniform(0, side, count),
        RANDOM.uniform(least, side, count), RANDOM.uniform(least, side, count),
        RANDOM.uniform(-PI, PI, count),
    ], axis=-1).astype("float32")  # fmt: skip


# Pairs (cx, cy, w, h, angle) whose corners or sides meet, or that are extreme.
HARD = {
    "identical": ([50, 50, 40, 20, 0.3], [50, 50, 40, 20, 0.3]),
    "identical, half a turn apart": ([50, 50, 40, 20, 0.3], [50, 50, 40, 20, 0.3 + PI]),
    "a square, a quarter turn apart": ([9, 9, 8, 8, 0], [9, 9, 8, 8, PI / 2]),
    "touching along a side": ([0, 0, 10, 10, 0], [10, 0, 10, 10, 0]),
    "touching at a corner": ([0, 0, 10, 10, 0], [10, 10, 10, 10, 0]),
    "touching, turned": ([0, 0, 10, 4, 0.7], [10 * math.cos(0.7), 10 * math.sin(0.7), 10, 4, 0.7]),
    "contained": ([50, 50, 80, 60, 0.2], [52, 47, 10, 5, 1.1]),
    "contained, with a common side": ([50, 50, 40, 20, 0], [50, 45, 10, 10, 0]),
    "contained, with a common corner": ([50, 50, 40, 20, 0], [35, 45, 10, 10, 0]),
    "shifted along a side": ([0, 0, 40, 20, PI / 4], [5, 5, 40, 20, PI / 4]),
    "crossed": ([50, 50, 60, 10, 0], [50, 50, 60, 10, PI / 2]),
    "crossed slivers": ([50, 50, 1000, 1, 0.4], [50, 50, 1000, 1, 0.4 + PI / 2]),
    "slivers, almost parallel": ([50, 50, 1000, 1, 0.4], [50, 50, 1000, 1, 0.401]),
    "equal slivers": ([50, 50, 1000, 1, 0.4], [50, 50, 1000, 1, 0.4]),
    "a corner on a side": ([0, 0, 20, 20, 0], [10 + 5 * 2**0.5, 0, 10, 10, PI / 4]),
    "far from the origin": ([1e5, 1e5, 40, 20, 0.3], [1e5 + 3, 1e5 - 2, 35, 25, 0.5]),
    "apart": ([0, 0, 10, 10, 0.1], [1e5, 0, 10, 10, 0.2]),
    "apart across a corner": ([0, 0, 10, 10, 0], [10.2, 10.2, 10, 10, PI / 4]),
    "tiny": ([5, 5, 1e-3, 1e-3, 0.3], [5, 5, 1e-3, 1e-3, 0.5]),
    "tiny in large": ([5, 5, 1e-3, 1e-3, 0.3], [5, 5, 50, 50, 0.5]),
}  # fmt: skip
WITHOUT_AREA = [
    ([5, 5, 0, 0, 0.3], [5, 5, 0, 0, 0.3]),
    ([5, 5, 0, 7, 0.3], [5, 5, 0, 7, 0.3]),
    ([5, 5, 0, 7, 0.3], [5, 5, 7, 7, 0.3]),
    ([5, 5, -3, 7, 0.3], [5, 5, 7, 7, 0.3]),
    ([5, 5, 1e-20, 1e-20, 0.3], [5, 5, 1e-20, 1e-20, 0.9]),
]


def check_overlaps_equal_shapely():
    boxes, others = random_boxes(10_000), random_boxes(10_000)
    expected = exact_iou(boxes, others)
    assert (expected > 0).mean() > 0.5
    np.testing.assert_allclose(array(rotated_iou(boxes, others)), expected, rtol=0, atol=1e-6)
    pairs = array(pairwise_rotated_iou(tensor(boxes[:7]), tensor(others[:5])))
    expected = exact_iou(boxes[:7, None], others[None, :5])
    np.testing.assert_allclose(pairs, expected, rtol=0, atol=1e-6)


def check_hard_cases_equal_shapely():
    boxes, others = (np.float32(each) for each in zip(*HARD.values()))
    found, swapped = (array(rotated_iou(*pair)) for pair in ((boxes, others), (others, boxes)))
    expected = exact_iou(boxes, others)
    for name, one, other, exact in zip(HARD, found, swapped, expected):
        # Of slivers, float32 itself moves the corners of one by 4e-5 of the width of the other.
        tolerance = 2e-5 if "parallel" in name or "crossed sl" in name else 1e-6
        assert abs(one - exact) <= tolerance, (name, one, exact)
        assert abs(other - exact) <= tolerance, (name, other, exact)
    found = array(rotated_iou(*map(np.float32, zip(*WITHOUT_AREA))))
    np.testing.assert_allclose(found, 0, atol=1e-12)


def gradients(boxes, others, **options):
    """Of the sum of overlaps, with respect to both, in the precision of the boxes."""
    backend = keras.config.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        pair = [tf.constant(each) for each in (boxes, others)]
        with tf.GradientTape() as tape:
            tape.watch(pair)
            total = tf.reduce_sum(rotated_iou(*pair, **options))
        return [each.numpy() for each in tape.gradient(total, pair)]
    if backend == "torch":
        import torch

        pair = [torch.tensor(each, requires_grad=True) for each in (boxes, others)]
        rotated_iou(*pair, **options).sum().backward()
        return [each.grad.numpy() for each in pair]
    import jax

    found = jax.grad(lambda *pair: ops.sum(rotated_iou(*pair, **options)), (0, 1))(boxes, others)
    return [np.asarray(each) for each in found]


def check_gradients_equal_finite_differences():
    boxes, others = random_boxes(300), random_boxes(300)
    near = others[:100] + RANDOM.normal(0, 0.05, (100, 5)).astype("float32")
    boxes = np.concatenate([boxes[:200], near])
    found = gradients(boxes, others)
    for own, (first, second) in zip(found, ((boxes, others), (others, boxes))):
        for index in range(5):
            step = np.zeros(5)
            step[index] = 1e-5
            first, second = (np.asarray(each, np.float64) for each in (first, second))
            rise = exact_iou(first + step, second) - exact_iou(first - step, second)
            np.testing.assert_allclose(own[:, index], rise / 2e-5, rtol=1e-3, atol=3e-5)


def check_gradients_are_finite():
    pairs = [*HARD.values(), *WITHOUT_AREA]
    boxes, others = (np.float32(each) for each in zip(*pairs))
    for each in gradients(boxes, others):
        assert np.isfinite(each).all()
    apart = list(HARD).index("apart across a corner")
    assert not gradients(boxes, others)[0][apart].any()


def check_equal_boxes_have_no_gradient_of_the_angle():
    boxes = np.float32([[50, 50, 8, 4, 0.3], [50, 50, 4, 8, -2], [0, 0, 6, 6, 0]])
    found = gradients(boxes, boxes)[0]
    np.testing.assert_array_equal(found[:, [0, 1, 4]], 0)
    np.testing.assert_allclose(found[:, 2:4], 0, atol=1e-6)
    # What mmcv's implementation gives for an 8 x 4 box.
    one_sided = gradients(boxes, boxes, one_sided=True)[0]
    np.testing.assert_allclose(one_sided[:2, 4], -2.5, rtol=1e-6)


def check_overlaps_are_computed_in_float32():
    boxes, others = random_boxes(20), random_boxes(20)
    keras.config.set_dtype_policy("mixed_float16")
    try:
        found = rotated_iou(tensor(boxes), tensor(others))
    finally:
        keras.config.set_dtype_policy("float32")
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    half = rotated_iou(*(ops.cast(tensor(each), "float16") for each in (boxes, others)))
    assert keras.backend.standardize_dtype(half.dtype) == "float32"
    np.testing.assert_allclose(array(found), exact_iou(boxes, others), atol=1e-6)


def check_deltas_decode_to_the_boxes():
    for convention, own in coder.CODERS.items():
        boxes = to_convention(random_boxes(200, least=5.0), convention).astype("float32")
        anchors = random_boxes(200, least=5.0)
        if not own.swaps:  # the angles of anchors are 0, unless tests have others
            anchors[::2, 4] = 0
        deltas = coder.encoded(tensor(boxes), tensor(anchors), own)
        back = array(coder.decoded(deltas, tensor(anchors), own))
        np.testing.assert_allclose(
            to_points(to_convention(back, "oc")), to_points(to_convention(boxes, "oc")), atol=2e-3
        )
        if convention == "le135":
            index = 3
            cos, sin = math.cos(anchors[index, 4]), math.sin(anchors[index, 4])
            shift = boxes[index, :2] - anchors[index, :2]
            expected = (cos * shift[0] + sin * shift[1]) / anchors[index, 2]
            np.testing.assert_allclose(array(deltas)[index, 0], expected, rtol=1e-4, atol=1e-5)
            turn = (boxes[:, 4] - anchors[:, 4] + PI / 4) % PI - PI / 4
            np.testing.assert_allclose(array(deltas)[:, 4], turn / PI, atol=1e-5)
    far = array(coder.decoded(tensor([[0, 0, 9.0, -9, 0]]), tensor([[0, 0, 1.0, 1, 0]]), own))
    np.testing.assert_allclose(far[0, 2:4], [62.5, 1 / 62.5], rtol=1e-5)


def check_losses():
    boxes = random_boxes(50)
    others = (boxes + RANDOM.normal(0, 3, (50, 5))).astype("float32")
    others[:, 2:4] = np.abs(others[:, 2:4]) + 1
    exact = np.maximum(exact_iou(boxes, others), 1e-6)
    iou = rotated_iou(boxes, others)
    for kind, expected in (
        ("log", -np.log(exact)), ("linear", 1 - exact), ("square", 1 - exact**2)
    ):  # fmt: skip
        found = array(losses.iou_loss(iou, kind))
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        array(losses.kld_loss(tensor(boxes), tensor(others))), kld(boxes, others), atol=1e-5
    )
    logits = RANDOM.normal(size=(40, 3)).astype("float32")
    targets = RANDOM.integers(0, 2, (40, 3)).astype("float32")
    chance = 1 / (1 + np.exp(-logits.astype("float64")))
    expected = np.where(
        targets, -0.25 * (1 - chance) ** 2 * np.log(chance),
        -0.75 * chance**2 * np.log(1 - chance),
    )  # fmt: skip
    np.testing.assert_allclose(
        array(losses.focal_loss(tensor(logits), tensor(targets))), expected, atol=1e-5
    )


def kld(boxes, others):
    """By the formula of the divergence of two Gaussians, with matrices."""
    found = []
    for own, their in zip(np.float64(boxes), np.float64(others)):
        gaussians = []
        for cx, cy, w, h, angle in (own, their):
            turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            gaussians.append((np.array([cx, cy]), turn @ np.diag([w**2 / 4, h**2 / 4]) @ turn.T))
        (mean, matrix), (to_mean, to_matrix) = gaussians
        inverse, shift = np.linalg.inv(matrix), to_mean - mean
        divergence = (
            shift @ inverse @ shift + np.trace(inverse @ to_matrix) - 2
            + np.log(np.linalg.det(matrix) / np.linalg.det(to_matrix))
        ) / 2  # fmt: skip
        found.append(1 - 1 / (1 + np.log1p(divergence)))
    return np.array(found)


def check_assignment_by_overlap():
    anchors, boxes = random_boxes(60, least=20.0), random_boxes(8, least=20.0).reshape(2, 4, 5)
    is_box = np.array([[True] * 4, [True, True, False, False]])
    is_anchor = RANDOM.random((2, 60)) > 0.1
    found = array(assigners.assigned_by_iou(*map(tensor, (boxes, is_box, anchors, is_anchor))))
    for n in range(2):
        count = is_box[n].sum()
        ious = exact_iou(boxes[n, :count, None], anchors[None])
        ious[:, ~is_anchor[n]] = -1
        best = ious.max(0)
        expected = np.where(best >= 0.5, ious.argmax(0), np.where(best < 0.4, -1, -2))
        for row in range(count):
            expected[ious[row] == ious[row].max()] = row
        expected[~is_anchor[n]] = -2
        np.testing.assert_array_equal(found[n], expected)


def check_corners():
    boxes = random_boxes(50).astype("float64")
    points = to_points(boxes)
    x, y, w, h, angle = boxes[7]
    along = np.array([math.cos(angle), math.sin(angle)])
    across = np.array([-math.sin(angle), math.cos(angle)])
    np.testing.assert_allclose(points[7, 2], [x, y] + w / 2 * along + h / 2 * across)
    for convention in ("le135", "le90", "oc"):
        back = from_points(points, convention)
        np.testing.assert_allclose(back, to_convention(boxes, convention), atol=1e-9)
        np.testing.assert_allclose(exact_iou(back, boxes), 1)


CHECKS = [check for name, check in list(globals().items()) if name.startswith("check_")]
SLOW = (check_assignment_by_overlap,)  # test_rotated_network.py compares its effect with mmrotate

if __name__ == "__main__":
    for check in CHECKS:
        begun = time.perf_counter()
        check()
        print(f"{check.__name__}: {time.perf_counter() - begun:.2f} s")
    print(f"{len(CHECKS)} checks on {os.environ['KERAS_BACKEND']}")
