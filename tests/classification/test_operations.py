"""Each operation of RandAugment against timm's function, on photographs, at many magnitudes."""

import io
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from torch_reference import declare_torchvision_operators

from keras_convnext.classification.operations import FILL, translate_x, translate_y
from keras_convnext.classification.rand_augment import OPERATIONS, apply_operation

declare_torchvision_operators()
from timm.data import auto_augment  # noqa: E402

REPOSITORY = Path(__file__).parents[2]
PHOTOGRAPHS = sorted((REPOSITORY / "examples" / "photos").glob("*.jpg"))
NAMES = [row.name for row in OPERATIONS]
# No round numbers inside: half way between two gray levels, single precision is not double.
LEVELS = (0.0, 0.73, 3.03, 6.21, 8.47, 9.01, 9.55, 10.0)
# Pillow reckons its coordinates in double precision. Elsewhere it is the same to the bit.
TOLERANCE = {"Rotate": 1, "ShearX": 1, "ShearY": 1, "TranslateXRel": 1, "TranslateYRel": 1}


@cache
def photographs(every=3):
    """Crops that are not square, and images that are hard on an operation."""
    images = [np.asarray(Image.open(path))[40:200, 60:250] for path in PHOTOGRAPHS[::every]]
    ramp = np.linspace(30, 200, 64 * 48 * 3).reshape(64, 48, 3).astype("u1")
    even = np.full((32, 40, 3), (9, 120, 255), "u1")
    sharp = np.random.default_rng(0).integers(0, 2, (40, 50, 3)).astype("u1") * 255
    return [*images, ramp, even, sharp]


def reference(name, increasing, image, level, positive, monkeypatch):
    monkeypatch.setattr(auto_augment.random, "random", lambda: 0.1 if positive else 0.9)
    variants = ("Posterize", "Solarize", "Color", "Contrast", "Brightness", "Sharpness")
    # No bits are left at magnitude 10, which Pillow 13 refuses.
    posterize = auto_augment.ImageOps.posterize
    monkeypatch.setattr(
        auto_augment.ImageOps, "posterize",
        lambda image, bits: posterize(image, bits) if bits else Image.new("RGB", image.size),
    )  # fmt: skip
    hparams = {"img_mean": FILL, "interpolation": Image.Resampling.BICUBIC}
    operation = auto_augment.AugmentOp(
        name + "Increasing" if increasing and name in variants else name,
        prob=1.0, magnitude=level, hparams=hparams,
    )  # fmt: skip
    return np.asarray(operation(Image.fromarray(image)))


def difference(name, increasing, image, level, positive, monkeypatch):
    theirs = reference(name, increasing, image, level, positive, monkeypatch).astype(int)
    ours = apply_operation(
        tf.constant(image), NAMES.index(name), tf.constant(level, tf.float32),
        1.0 if positive else -1.0, increasing,
    )  # fmt: skip
    assert ours.dtype == tf.uint8
    assert ours.shape == image.shape
    return np.abs(ours.numpy() - theirs)


def test_table_is_timms():
    names = [name.removesuffix("Increasing") for name in auto_augment._RAND_INCREASING_TRANSFORMS]
    assert names == NAMES
    assert auto_augment._RAND_TRANSFORMS == NAMES


def test_fill_is_the_mean_color():
    assert FILL == (124, 116, 104)


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("increasing", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_equals_timm(name, increasing, every, monkeypatch):
    for image in photographs(every):
        for level in LEVELS:
            for positive in (True, False):
                different = difference(name, increasing, image, level, positive, monkeypatch)
                assert different.max() <= TOLERANCE.get(name, 0), (level, positive)
                # Of a sharp edge in double precision, hardly a pixel falls to the other level.
                assert (different > 0).mean() < 3e-3, (level, positive)


@pytest.mark.parametrize("name", NAMES)
def test_equals_timm_on_imagenet(name, imagenet_jpegs, monkeypatch):
    for encoded in imagenet_jpegs[:8]:
        image = np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB").resize((224, 224)))
        for level in (8.53, 9.31):
            different = difference(name, True, image, level, level > 9, monkeypatch)
            assert different.max() <= TOLERANCE.get(name, 0)
            assert (different > 0).mean() < 3e-3


@pytest.mark.parametrize("translate", [translate_x, translate_y])
@pytest.mark.parametrize("share", [-1.3, -1.0, 1.0, 1.3])
def test_what_is_moved_out_of_sight_leaves_the_mean_color(translate, share):
    moved = translate(tf.constant(photographs()[0]), share)
    np.testing.assert_array_equal(moved, np.broadcast_to(np.uint8(FILL), moved.shape))


def test_in_a_graph_without_static_sides():
    image = photographs()[0]

    @tf.function(input_signature=[tf.TensorSpec((None, None, 3), tf.uint8),
                                  tf.TensorSpec((), tf.int32)])  # fmt: skip
    def graph(image, index):
        return apply_operation(image, index, 9.1, -1.0)

    for index in range(-1, len(OPERATIONS)):
        eager = apply_operation(tf.constant(image), index, 9.1, -1.0)
        assert np.array_equal(graph(image, index), eager)


def test_no_operation():
    image = photographs()[0]
    assert np.array_equal(apply_operation(tf.constant(image), -1, 9.0, 1.0), image)
