"""Every version of Pillow, and TensorFlow, resizes to the same pixels.

`.ci/run` repeats these tests with the oldest Pillow.
"""

import io
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from pillow_reference import height_first, width_first

from keras_convnext.data.images import evaluation_image, training_crop
from keras_convnext.export.saved_model import decode
from keras_convnext.preprocessing import load_image
from keras_convnext.resizing import TALLEST, resized

# Width, height and new width and height. Pillow 13 resizes the first four along the height first.
SHAPES = [
    (480, 640, 384, 384),
    (300, 1200, 384, 384),
    (60, 450, 32, 32),
    (101, 233, 100, 57),
    (640, 480, 384, 384),
    (375, 500, 256, 341),
    (90, 61, 377, 256),
    (57, 41, 57, 90),
]


def sharp(width, height):
    """Black and white squares, whose edges overshoot."""
    squares = np.random.default_rng(0).integers(0, 2, (height // 3 + 1, width // 3 + 1, 3))
    return Image.fromarray((squares * 255).astype("u1").repeat(3, 0).repeat(3, 1)[:height, :width])


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_width_is_resized_first(shape):
    width, height, *sides = shape
    image = sharp(width, height)
    expected = np.asarray(width_first(image, sides))
    np.testing.assert_array_equal(resized(image, tuple(sides)), expected)
    if shape in SHAPES[:4]:  # where the order shows
        difference = np.abs(expected.astype(int) - height_first(image, sides))
        assert difference.max() > 5


@pytest.mark.parametrize("sides", [(480, 640), (300, 1200), (400, 3000), (640, 480)])
@pytest.mark.parametrize("size", [224, 384])
def test_a_tall_image_has_the_same_pixels_everywhere(sides, size):
    image = sharp(*sides)
    file = io.BytesIO()
    image.save(file, "PNG")
    data = tf.constant(file.getvalue())
    pixels = load_image(image, size).astype(int)
    if size == 384:
        np.testing.assert_array_equal(pixels, width_first(image, (size, size)))
    whole = training_crop(data, (1, 2), 384, (1.0, 1.0), (0.1, 10.0))
    crop = (whole, np.asarray(width_first(image, (384, 384))).astype(int))
    served = decode(data[None], size)[0][0]
    for ours, theirs in ((evaluation_image(data, size), pixels), (served, pixels), crop):
        difference = np.abs(ours.numpy() - theirs)
        assert difference.max() <= 2
        assert (difference > 0).mean() < 0.01


@pytest.mark.parametrize("extra", [0, 1])
def test_the_height_of_very_tall_and_narrow_images_is_resized_first(extra):
    size, height = 384, TALLEST * 384 + extra
    image = sharp(5, height)
    expected = (height_first if extra else width_first)(image, (size, size))
    np.testing.assert_array_equal(load_image(image, size), expected)
    file = io.BytesIO()
    image.save(file, "PNG")
    difference = np.abs(evaluation_image(file.getvalue(), size).numpy() - np.asarray(expected, int))
    assert difference.max() <= 2
    assert (difference > 0).mean() < 0.01


def test_a_part_is_resized_as_in_one_call():
    # Wide, so that all versions of Pillow resize the width first.
    image, box = sharp(300, 100), (20.5, 3.25, 170.0, 60.0)
    expected = image.resize((40, 30), Image.Resampling.BICUBIC, box)
    np.testing.assert_array_equal(resized(image, (40, 30), box), expected)


def test_no_other_module_leaves_the_order_to_pillow():
    package = Path(__file__).parents[1] / "keras_convnext"
    callers = {path.name for path in package.rglob("*.py") if "Resampling." in path.read_text()}
    assert callers == {"resizing.py", "saliency.py"}  # heat maps are not rounded
