"""Checks of the parts of detectors against direct computations, on the backend of the process.

`test_detection_parts.py` calls them, and runs this file with the other backends.
"""

import math
import os
import time

import keras
import numpy as np
from keras import ops

from keras_convnext.detection import anchors, assigner, boxes, nms, proposals, roi_align, sampler

RANDOM = np.random.default_rng(0)


def tensor(values):
    return ops.convert_to_tensor(values)


def array(tensor):
    return np.asarray(ops.convert_to_numpy(tensor))


def random_boxes(*shape, width=160, height=96, outside=0):
    corners = RANDOM.uniform(-outside, 1 + outside, (*shape, 2, 2)) * (width, height)
    return np.sort(corners, axis=-2).reshape(*shape, 4).astype("float32")


def iou_of(one, other):
    sides = np.minimum(one[2:], other[2:]) - np.maximum(one[:2], other[:2])
    shared = max(sides[0], 0) * max(sides[1], 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared / (sum(areas) - shared) if sum(areas) > shared else 0


def check_boxes():
    some, others = random_boxes(7), random_boxes(5)
    some[0, 2:] = some[0, :2]  # without area
    others[0] = some[0]
    expected = np.array([[iou_of(one, other) for other in others] for one in some])
    found = array(boxes.pairwise_iou(tensor(some), tensor(others)))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    found = array(boxes.iou(tensor(some[:5]), tensor(others)))
    np.testing.assert_allclose(found, np.diag(expected), atol=1e-6)

    references, targets = random_boxes(2, 50) + np.float32([0, 0, 1, 1])
    stds = (0.1, 0.1, 0.2, 0.2)
    deltas = boxes.encoded(tensor(targets), tensor(references), stds)
    w, h = references[:, 2] - references[:, 0], references[:, 3] - references[:, 1]
    np.testing.assert_allclose(
        array(deltas)[:, 1],
        (targets[:, [1, 3]].mean(1) - references[:, [1, 3]].mean(1)) / h / 0.1, rtol=1e-4, atol=1e-5
    )  # fmt: skip
    np.testing.assert_allclose(
        array(deltas)[:, 2], np.log((targets[:, 2] - targets[:, 0]) / w) / 0.2, atol=1e-5
    )
    back = boxes.decoded(deltas, tensor(references), stds)
    np.testing.assert_allclose(array(back), targets, atol=1e-3)
    far = array(boxes.decoded(tensor([[0, 0, 9.0, 9.0]]), tensor([[0, 0, 1.0, 1.0]])))
    np.testing.assert_allclose(far[0, 2] - far[0, 0], 62.5, rtol=1e-5)
    clipped = boxes.clipped(tensor([[[-5.0, -5, 200, 200]]] * 2), tensor([[96.0, 160], [8, 9]]))
    np.testing.assert_array_equal(array(clipped)[:, 0], [[0, 0, 160, 96], [0, 0, 9, 8]])


def check_anchors():
    found = array(anchors.anchors_of_level(2, 3, 16))
    assert found.shape == (18, 4)
    expected = [
        (16 * x - w / 2, 16 * y - h / 2, 16 * x + w / 2, 16 * y + h / 2)
        for y in range(2)
        for x in range(3)
        for w, h in ((128 * 2**0.5, 128 / 2**0.5), (128, 128), (128 / 2**0.5, 128 * 2**0.5))
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    is_inside = array(anchors.inside(tensor([[0.0, 0, 9, 9], [1, 1, 4, 8]]), tensor([[9.0, 8]])))
    np.testing.assert_array_equal(is_inside, [[False, True]])
    maps = [ops.zeros((2, 64 // stride, 96 // stride, 1)) for stride in (4, 32)]
    valid = array(anchors.at_valid_positions(maps, tensor([[64.0, 96], [20, 50]]), (4, 32)))
    assert valid.shape == (2, 3 * (16 * 24 + 2 * 3))
    assert valid[0].all()
    assert valid[1].sum() == 3 * (8 * 16 + 1 * 2)


def assigned_by_loop(ious, is_box, is_candidate, overlaps):
    # NumPy 1 would compare with Python's floats in double precision.
    overlaps = overlaps._make(None if each is None else np.float32(each) for each in overlaps)
    found = np.full(len(is_candidate), assigner.IGNORED)
    for k in np.flatnonzero(is_candidate):
        own = np.where(is_box, ious[:, k], -1)
        if own.max() >= overlaps.positive:
            found[k] = own.argmax()
        elif own.max() < overlaps.negative:
            found[k] = assigner.NEGATIVE
    for m in np.flatnonzero(is_box) if overlaps.rescue is not None else ():
        own = np.where(is_candidate, ious[m], -1)
        if own.max() >= overlaps.rescue:
            found[own == own.max()] = m
    return found


def check_assigner():
    ious = RANDOM.integers(0, 11, (6, 5, 40)).astype("float32") / 10  # with ties
    is_box, is_candidate = RANDOM.random((6, 5)) > 0.3, RANDOM.random((6, 40)) > 0.2
    is_box[0] = False
    for overlaps in (
        assigner.Overlaps(0.7, 0.3, 0.3),
        assigner.Overlaps(0.5, 0.5, 0.5),
        assigner.Overlaps(0.95, 0.6, None),
    ):
        found = array(assigner.assigned(*map(tensor, (ious, is_box, is_candidate)), overlaps))
        for own in zip(found, ious, is_box, is_candidate):
            np.testing.assert_array_equal(own[0], assigned_by_loop(*own[1:], overlaps))


def check_sampler():
    assigned = RANDOM.integers(-2, 3, (4, 60)).astype("int32")
    assigned[0] = -2
    assigned[1, 5:] = -1  # few positives
    assigned[2] = np.abs(assigned[2])  # no negatives
    draws = RANDOM.random((4, 60)).astype("float32")
    found = sampler.sampled(tensor(assigned), tensor(draws), 16, 0.25)
    for row, draw, *own in zip(assigned, draws, *map(array, found)):
        indices, matched, is_positive, is_sample = own
        order = np.argsort(-draw)
        positive = [k for k in order if row[k] >= 0][:4]
        negative = [k for k in order if row[k] == -1][: 16 - len(positive)]
        assert is_positive.sum() == len(positive)
        np.testing.assert_array_equal(indices[is_sample], positive + negative)
        np.testing.assert_array_equal(matched[is_positive], row[positive])
        np.testing.assert_array_equal(is_sample, np.arange(16) < len(positive + negative))


def kept_by_loop(candidates, scores, threshold):
    left, kept = list(np.argsort(-scores, kind="stable")), []
    while left:
        best = left.pop(0)
        kept.append(best)
        left = [k for k in left if iou_of(candidates[best], candidates[k]) <= threshold]
    return kept


def check_suppression():
    candidates = random_boxes(2, 60)
    scores = np.sort(RANDOM.random((2, 60)).astype("float32"))[:, ::-1].copy()
    is_box = np.arange(60) < np.array([[60], [33]])
    found = array(nms.kept(tensor(candidates), tensor(is_box), 0.3))
    for n, count in enumerate((60, 33)):
        expected = kept_by_loop(candidates[n, :count], scores[n, :count], 0.3)
        np.testing.assert_array_equal(np.flatnonzero(found[n]), expected)
    # A chain, in which every other box is kept.
    chain = np.float32([[x, 0, x + 10, 10] for x in range(0, 120, 4)])
    expected = np.arange(30) % 2 == 0
    found = nms.kept(tensor(chain[None]), tensor(np.ones((1, 30), bool)), 0.4)
    np.testing.assert_array_equal(array(found)[0], expected)


def check_best_of_classes():
    candidates = random_boxes(2, 30, 3)
    candidates[0, 3] = candidates[0, 4] = 5  # without area
    scores = RANDOM.random((2, 30, 3)).astype("float32")
    scores[1] *= 0.3
    found = nms.best_of_classes(tensor(candidates), tensor(scores), 0.25, 0.3, 12)
    for n in range(2):
        pairs = []
        for label in range(3):
            above = np.flatnonzero(scores[n, :, label] > 0.25)
            own = kept_by_loop(candidates[n, above, label], scores[n, above, label], 0.3)
            pairs += [(scores[n, above[k], label], above[k], label) for k in own]
        pairs = sorted(pairs, reverse=True)[:12]
        count = int(array(found.count)[n])
        assert count == len(pairs)
        np.testing.assert_array_equal(array(found.labels)[n, :count], [p[2] for p in pairs])
        np.testing.assert_array_equal(array(found.scores)[n, :count], [p[0] for p in pairs])
        expected = [candidates[n, region, label] for _, region, label in pairs]
        np.testing.assert_array_equal(array(found.boxes)[n, :count], expected)
        assert (array(found.labels)[n, count:] == -1).all()
        assert not array(found.boxes)[n, count:].any()


def check_proposals():
    logits = [RANDOM.normal(size=(2, side, side, 3)).astype("float32") for side in (8, 4)]
    deltas = [RANDOM.normal(0, 0.3, (2, side, side, 12)).astype("float32") for side in (8, 4)]
    sizes = np.float32([[32, 32], [20, 28]])
    found = proposals.proposed(
        [tensor(x) for x in logits], [tensor(x) for x in deltas], tensor(sizes), 40, 100
    )
    for n in range(2):
        expected = []
        for level, stride in enumerate((4, 8)):
            best = np.argsort(-logits[level][n].ravel(), kind="stable")[:40]
            own = boxes.decoded(
                tensor(deltas[level][n].reshape(-1, 4)[best]),
                tensor(array(anchors.anchors_of_level(*(32 // stride,) * 2, stride))[best]),
            )
            own = array(boxes.clipped(own[None], tensor(sizes[n : n + 1])))[0]
            scores = 1 / (1 + np.exp(-logits[level][n].ravel()[best]))
            has_area = (own[:, 2:] > own[:, :2]).all(1)
            kept = kept_by_loop(own[has_area], scores[has_area], 0.7)
            expected += [(scores[has_area][k], tuple(own[has_area][k])) for k in kept]
        expected.sort(reverse=True)
        scores = array(found.scores)[n]
        assert (scores >= 0).sum() == len(expected) < 100
        np.testing.assert_allclose(scores[: len(expected)], [e[0] for e in expected], rtol=1e-5)
        np.testing.assert_allclose(
            array(found.boxes)[n, : len(expected)], [e[1] for e in expected], atol=1e-4
        )
        assert not array(found.boxes)[n, len(expected) :].any()


def interpolated(feature_map, y, x):
    height, width, _ = feature_map.shape
    if not (-1 <= y <= height and -1 <= x <= width):
        return np.zeros_like(feature_map[0, 0])
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    top = feature_map[y0, x0] * (1 - x + x0) + feature_map[y0, x1] * (x - x0)
    bottom = feature_map[y1, x0] * (1 - x + x0) + feature_map[y1, x1] * (x - x0)
    return top * (1 - y + y0) + bottom * (y - y0)


def aligned_by_loop(feature_map, box, size, scale):
    """Sample by sample, in float64."""
    x1, y1, x2, y2 = (float(value) * scale - 0.5 for value in box)
    rows, columns = math.ceil((y2 - y1) / size), math.ceil((x2 - x1) / size)
    result = np.zeros((size, size, feature_map.shape[-1]))
    for i, j, a, b in np.ndindex(size, size, max(rows, 0), max(columns, 0)):
        y = y1 + (i + (a + 0.5) / rows) * (y2 - y1) / size
        x = x1 + (j + (b + 0.5) / columns) * (x2 - x1) / size
        result[i, j] += interpolated(feature_map, y, x) / (rows * columns)
    return result


def check_roi_align():
    maps = [
        RANDOM.uniform(-1, 1, (2, 96 // s, 160 // s, 3)).astype("float32") for s in (4, 8, 16, 32)
    ]
    regions = random_boxes(2, 12, outside=0.2)
    regions[0, :7] = [
        [0, 0, 160, 96], [10, 10, 10, 10], [-300, -300, -200, -250], [5, 5, 6, 95],
        [0, 50, 160, 53], [-60, -60, 240, 160], [3.1, 3.2, 3.4, 3.5],
    ]  # fmt: skip
    levels = array(roi_align.levels_of(tensor(regions)))
    sides = np.sqrt((regions[..., 2] - regions[..., 0]) * (regions[..., 3] - regions[..., 1]))
    np.testing.assert_array_equal(levels, np.digitize(sides, [112, 224, 448]))
    for size in (7, 14):
        found = array(roi_align.roi_align([tensor(each) for each in maps], tensor(regions), size))
        for n, r in np.ndindex(2, 12 if size == 7 else 1):
            level = levels[n, r]
            own = maps[level][n].astype("float64")
            expected = aligned_by_loop(own, regions[n, r], size, 0.25 / 2**level)
            # float32 rounds a position within a long region to 2e-6.
            length = np.max(regions[n, r, 2:] - regions[n, r, :2]) / (4 * 2**level)
            np.testing.assert_allclose(found[n, r], expected, atol=max(1e-6, 2e-7 * length))


def check_cropped_masks():
    masks = (RANDOM.random((4, 30, 40)) > 0.5).astype("uint8")
    regions = random_boxes(4, width=40, height=30)
    found = array(
        roi_align.crop_masks(tensor(masks), ops.arange(4, dtype="int32"), tensor(regions), 14)
    )
    for mask, region, own in zip(masks, regions, found):
        covered = aligned_by_loop(mask[..., None].astype("float64"), region, 14, 1)[..., 0]
        clear = np.abs(covered - 0.5) > 1e-5
        np.testing.assert_array_equal(own[clear], (covered >= 0.5)[clear])


def check_gradient_of_roi_align():
    """RoIAlign is linear in the maps: its gradient is exact against finite differences."""
    maps = [RANDOM.normal(size=(1, 24 // s, 32 // s, 1)).astype("float32") for s in (4, 8)]
    regions = np.float32([[[1, 2, 30, 21], [3, 3, 9, 20], [-9, -9, 40, 40]]])
    weights = RANDOM.normal(size=(1, 3, 7, 7, 1)).astype("float32")

    def total(fine, coarse):
        pooled = roi_align.roi_align([fine, coarse], tensor(regions), 7, (4, 8))
        return ops.sum(pooled * tensor(weights))

    gradient = gradient_of(total, maps)
    direction = RANDOM.normal(size=maps[0].shape).astype("float32")
    high, low = (
        float(total(tensor(maps[0] + sign * direction), tensor(maps[1]))) for sign in (1, -1)
    )
    np.testing.assert_allclose((high - low) / 2, (gradient * direction).sum(), rtol=1e-4)


def gradient_of(function, inputs):
    """With respect to the first input."""
    tensors = [tensor(each) for each in inputs]
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        with tf.GradientTape() as tape:
            tape.watch(tensors[0])
            total = function(*tensors)
        return array(tape.gradient(total, tensors[0]))
    if keras.config.backend() == "torch":
        tensors[0].requires_grad_(True)
        function(*tensors).backward()
        return array(tensors[0].grad)
    import jax

    return array(jax.grad(function)(*tensors))


CHECKS = [check for name, check in list(globals().items()) if name.startswith("check_")]

if __name__ == "__main__":
    for check in CHECKS:
        begun = time.perf_counter()
        check()
        print(f"{check.__name__}: {time.perf_counter() - begun:.2f} s")
    print(f"{len(CHECKS)} checks on {os.environ['KERAS_BACKEND']}")
