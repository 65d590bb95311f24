"""Mixup, CutMix and label smoothing against timm's formulas."""

import numpy as np
import pytest
import tensorflow as tf
import torch
from torch_reference import declare_torchvision_operators

from keras_convnext.classification.mixing import (
    draw,
    group_sizes,
    mix,
    smoothed_targets,
    weights_of_images,
)

declare_torchvision_operators()
from timm.data import mixup as timm_mixup  # noqa: E402

HEIGHT, WIDTH, CLASSES = 24, 32, 10
LABELS = np.array([3, 1, 4, 1, 5, 9])


@pytest.fixture
def images():
    generator = np.random.default_rng(0)
    return generator.uniform(0, 255, (len(LABELS), HEIGHT, WIDTH, 3)).astype("float32")


def timms(images, monkeypatch, cuts, share, center):
    """What timm's Mixup makes of the batch, with the draws that are given."""
    mixup = timm_mixup.Mixup(0.8, 1.0, label_smoothing=0.1, num_classes=CLASSES)
    middles = iter([int(center[0] * HEIGHT), int(center[1] * WIDTH)])
    monkeypatch.setattr(mixup, "_params_per_batch", lambda: (share, cuts))
    monkeypatch.setattr(timm_mixup.np.random, "randint", lambda *_, **__: next(middles))
    x = torch.from_numpy(images.copy()).movedim(-1, 1).contiguous()
    x, targets = mixup(x, torch.from_numpy(LABELS))
    return x.movedim(1, -1).numpy(), targets.numpy()


def test_smoothing():
    theirs = timm_mixup.mixup_target(torch.from_numpy(LABELS), CLASSES, 1.0, 0.1).numpy()
    assert np.allclose(smoothed_targets(LABELS, CLASSES, 0.1), theirs, atol=1e-7)
    assert np.array_equal(smoothed_targets(LABELS, CLASSES, 0.0), np.eye(CLASSES)[LABELS])
    assert smoothed_targets(3, CLASSES).shape == (CLASSES,)


@pytest.mark.parametrize("seed", range(12))
def test_equals_timm_with_the_same_draws(images, seed, monkeypatch):
    seed = tf.constant([seed, 1])
    cuts, share, center = (part.numpy() for part in draw(seed, 0.8, 1.0, 1.0, 0.5))
    expected = timms(images, monkeypatch, bool(cuts), float(share), center)
    ours = mix(tf.constant(images), smoothed_targets(LABELS, CLASSES, 0.1), seed)
    for our, their in zip(ours, expected):
        assert np.allclose(our, their, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("center", [(0.0, 0.0), (0.5, 0.5), (0.99, 0.3), (0.1, 0.99)])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.43, 0.9, 0.9999, 1.0])
def test_boxes_equal_timms(center, share, monkeypatch):
    middles = iter([int(center[0] * HEIGHT), int(center[1] * WIDTH)])
    monkeypatch.setattr(timm_mixup.np.random, "randint", lambda *_, **__: next(middles))
    (top, bottom, left, right), expected = timm_mixup.cutmix_bbox_and_lam((HEIGHT, WIDTH), share)
    weights, kept = weights_of_images(
        tf.constant((HEIGHT, WIDTH)), tf.constant(True), tf.constant(share), tf.constant(center)
    )
    box = np.ones((HEIGHT, WIDTH, 1))
    box[top:bottom, left:right] = 0
    assert np.array_equal(weights, box)
    assert kept.numpy() == pytest.approx(expected, abs=1e-6)


def many(count, *options):
    dataset = tf.data.Dataset.range(count).map(lambda i: draw(tf.stack([9, i]), *options))
    return [part.numpy() for part in dataset.batch(count).get_single_element()]


def test_draws():
    count = 4000
    cuts, shares, centers = many(count, 0.8, 1.0, 1.0, 0.5)
    assert abs(cuts.mean() - 0.5) < 4 * 0.5 / np.sqrt(count)
    assert abs(centers.mean() - 0.5) < 4 * 0.289 / np.sqrt(2 * count)
    # Quantiles of Beta(0.8, 0.8), by a great many draws, and of Beta(1, 1), which is uniform.
    generator = np.random.default_rng(0)
    for drawn, alpha in ((shares[~cuts], 0.8), (shares[cuts], 1.0)):
        expected = generator.beta(alpha, alpha, 400_000)
        for level in (0.05, 0.25, 0.5, 0.75, 0.95):
            below = (drawn < np.quantile(expected, level)).mean()
            assert abs(below - level) < 4 * np.sqrt(level * (1 - level) / len(drawn))


def test_probability_and_switch():
    count = 1500
    cuts, shares, _ = many(count, 0.8, 1.0, 0.3, 0.8)
    assert abs((shares < 1).mean() - 0.3) < 4 * np.sqrt(0.21 / count)
    assert abs(cuts.mean() - 0.8) < 4 * np.sqrt(0.16 / count)
    assert not many(20, 0.8, 0.0, 1.0, 0.5)[0].any()
    assert many(20, 0.0, 1.0, 1.0, 0.5)[0].all()
    assert np.isfinite(many(500, 0.001, 0.0, 1.0, 0.5)[1]).all()


def test_not_mixed(images):
    targets = smoothed_targets(LABELS, CLASSES)
    for options in ({"mixup": 0.0, "cutmix": 0.0}, {"probability": 0.0}):
        for seed in range(4):
            same = mix(tf.constant(images), targets, (seed, 2), **options)
            assert np.array_equal(same[0], images)
            assert np.array_equal(same[1], targets)


def test_same_in_a_dataset(images):
    targets = smoothed_targets(LABELS, CLASSES)
    dataset = tf.data.Dataset.from_tensors((images, targets)).repeat(6).enumerate()
    dataset = dataset.map(lambda i, batch: mix(*batch, seed=tf.stack([4, i])))
    for number, graph in enumerate(dataset):
        eager = mix(tf.constant(images), targets, tf.constant([4, number], tf.int64))
        assert np.array_equal(graph[0], eager[0])
        assert np.array_equal(graph[1], eager[1])


@pytest.mark.parametrize("count", [2, 3, 4, 5, 33])
@pytest.mark.parametrize("mixing", [mix, tf.function(mix, reduce_retracing=True)])
def test_each_image_is_mixed_with_one_other_image(count, mixing):
    marks = np.eye(count, dtype="float32")
    images = np.broadcast_to(marks[:, None, None], (count, 4, 4, count))
    mixed, targets = mixing(
        tf.constant(images), tf.constant(marks), tf.constant([0, 3]), cutmix=0.0
    )
    mixed, targets = mixed.numpy(), targets.numpy()
    own = np.diagonal(targets)
    assert 0.05 < own[0] < 0.95
    partners = np.where(np.eye(count, dtype=bool), 0, targets)
    np.testing.assert_allclose(own, own[0])
    np.testing.assert_allclose(partners.max(axis=1), 1 - own, rtol=1e-6)
    # Each image is the partner of one other image.
    np.testing.assert_allclose(partners.sum(axis=0), 1 - own, rtol=1e-6)
    np.testing.assert_allclose(mixed, np.broadcast_to(targets[:, None, None], mixed.shape))
    if count % 2 == 0:
        np.testing.assert_array_equal(partners.argmax(axis=1), np.arange(count)[::-1])


@pytest.mark.parametrize(
    ("images", "most", "sizes"),
    [
        (1024, 128, (128,) * 8),
        (33, 128, (33,)),
        (126, 128, (126,)),
        (130, 128, (128, 2)),
        (129, 128, (129,)),
        (257, 128, (128, 129)),
        (66, 33, (33, 33)),
        (5, 2, (2, 3)),
        (2, 2, (2,)),
    ],
)
def test_groups_are_full_and_the_last_has_the_rest(images, most, sizes):
    assert group_sizes(images, most) == sizes


def test_a_single_image_cannot_be_mixed():
    for images, most in ((1, 128), (64, 1)):
        with pytest.raises(ValueError, match=f"=0. Received: mixing_batch={most}, with {images} "):
            group_sizes(images, most)
    one = np.zeros((1, 4, 4, 3), "float32")
    with pytest.raises(ValueError, match="no partner"):
        mix(tf.constant(one), tf.zeros((1, 2)), (0, 3))
    assert mix(tf.constant(one), tf.zeros((1, 2)), (0, 3), mixup=0.0, cutmix=0.0)[0].shape[0] == 1


def test_refusal(images):
    with pytest.raises(ValueError, match="Received: mixup=-1, cutmix=0"):
        mix(images, images, (1, 2), mixup=-1, cutmix=0)
