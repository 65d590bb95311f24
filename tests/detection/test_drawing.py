"""Pictures of what was found: masks in distinct colors, and names that do not hide one another."""

import itertools

import numpy as np
from PIL import Image

from keras_convnext.colors import distinct_colors
from keras_convnext.detection import Detections, draw_detections
from keras_convnext.detection.drawing import OPACITY, _overlap, _place

NAMES = ("person\x1b[31m", "[bold]dog[/]")


def found(boxes, scores, masks=None):
    boxes = np.array(boxes, "float32")
    labels = np.arange(len(boxes)) % 2
    return Detections(boxes, np.array(scores, "float32"), labels, masks, (200, 300))


def test_masks_and_boxes_above_the_threshold_are_drawn():
    image = Image.new("RGB", (400, 200), (200, 200, 200))
    masks = np.ones((3, 28, 28), "float32")
    objects = found([[20, 60, 120, 190], [200, 60, 290, 190], [300, 60, 390, 190]],
                    [0.9, 0.8, 0.3], masks)._replace(size=(200, 400))  # fmt: skip
    pixels = np.asarray(draw_detections(image, objects, NAMES))
    colors = distinct_colors(24)
    for number, place in enumerate([(150, 70), (150, 245)]):
        expected = 200 + OPACITY * (colors[number] - 200.0)
        np.testing.assert_allclose(pixels[place], expected, atol=1)
        left = (150, [20, 200][number])
        np.testing.assert_array_equal(pixels[left], colors[number])
    np.testing.assert_array_equal(pixels[150, 345], [200] * 3)


def test_without_masks_only_outlines_are_drawn():
    image = Image.new("RGB", (400, 200), (200, 200, 200))
    pixels = np.asarray(draw_detections(image, found([[20, 60, 120, 190]], [0.9]), NAMES))
    np.testing.assert_array_equal(pixels[150, 70], [200] * 3)


def test_names_do_not_hide_one_another():
    boxes = [[100, 100, 220, 220], [102, 101, 222, 221], [98, 99, 219, 225], [101, 98, 260, 230]]
    placed = []
    for box in boxes:
        placed.append(_place(box, (70, 16), (400, 300), placed))
    assert not any(_overlap(*pair) for pair in itertools.combinations(placed, 2))
    for left, top, right, bottom in placed:
        assert 0 <= left < right <= 400
        assert 0 <= top < bottom <= 300
    at_the_edge = _place([380, 0, 400, 20], (70, 16), (400, 300), [])
    assert at_the_edge[2] <= 400
    assert at_the_edge[1] >= 0


def test_small_and_large_pictures_are_readable():
    nothing = found(np.zeros((0, 4)), [])
    for size, width in {(40, 20): 400, (800, 600): 800, (4000, 3000): 1600}.items():
        assert draw_detections(Image.new("RGB", size), nothing, NAMES).width == width
