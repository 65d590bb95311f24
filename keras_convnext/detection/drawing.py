"""Draws the objects in an image: outlined, with their masks, names and scores."""

from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from keras_convnext.colors import distinct_colors
from keras_convnext.detection.prediction import Detections
from keras_convnext.printable import printable

OPACITY = 0.45  # of the masks
_COLORS = 24  # then they repeat
_MOST_WIDE, _LEAST_WIDE = 1600, 400  # px, of a picture
_LONGEST = 40  # characters of a name

Rectangle = tuple[int, int, int, int]  # left, top, right, bottom


def draw_detections(
    image: Image.Image, found: Detections, names: Sequence[str], threshold: float = 0.5
) -> Image.Image:
    """Draws the objects in an image, each in a color of its own.

    A name is written where it hides no other name, if there is such a place at its box.

    Args:
        image: PIL image in RGB, W x H.
        found: Detections. The objects in the image.
        names: sequence of str. Names of the classes.
        threshold: float. The lowest score to draw. Defaults to 0.5.

    Returns:
        PIL image, 400 to 1600 px wide.
    """
    width = min(max(image.width, _LEAST_WIDE), _MOST_WIDE)
    factor = width / image.width
    drawn = np.asarray(image).astype(np.float32)
    best = np.flatnonzero(found.scores >= threshold).tolist()
    colors = distinct_colors(_COLORS)
    if found.masks is not None:
        for number, index in reversed(list(enumerate(best))):  # the best on top
            mask = found.mask(index)
            drawn[mask] += OPACITY * (colors[number % _COLORS] - drawn[mask])
    sheet = Image.fromarray(drawn.round().astype(np.uint8))
    sheet = sheet.resize((width, max(1, round(image.height * factor))))
    draw = ImageDraw.Draw(sheet)
    size = max(12, width // 45)
    boxes = (found.boxes * factor).round().astype(int).tolist()
    for number, index in reversed(list(enumerate(best))):
        draw.rectangle(boxes[index], outline=_color(colors, number), width=max(2, size // 6))
    placed: list[Rectangle] = []
    for number, index in enumerate(best):
        name = printable(names[found.labels[index]][:_LONGEST])[:_LONGEST]
        text = f"{name} {found.scores[index]:.0%}"
        sides = round(draw.textlength(text, _font(size))) + size // 2, size * 4 // 3
        place = _place(boxes[index], sides, sheet.size, placed)
        placed.append(place)
        color = _color(colors, number)
        draw.rectangle(place, fill=color)
        ink = "black" if np.dot(color, (0.299, 0.587, 0.114)) > 110 else "white"
        draw.text((place[0] + size // 4, place[1]), text, ink, _font(size))
    return sheet


def _color(colors: np.ndarray, number: int) -> tuple[int, ...]:
    return tuple(int(level) for level in colors[number % len(colors)])


def _place(
    box: Sequence[int], sides: tuple[int, int], size: tuple[int, int], placed: Sequence[Rectangle]
) -> Rectangle:
    """Returns where to write a label: the first place at its box that hides no other label."""
    candidates = list(_candidates(box, sides, size))
    free = (each for each in candidates if not any(_overlap(each, other) for other in placed))
    return next(free, candidates[0])


def _candidates(
    box: Sequence[int], sides: tuple[int, int], size: tuple[int, int]
) -> Iterator[Rectangle]:
    """Yields places above, within, below and beside a box, and further down in it."""
    (left, top, right, bottom), (width, height) = box, sides
    rows = [top - height, top, bottom, bottom - height]
    rows += range(top + height, bottom - height, height)
    for y in rows:
        for x in (left, right - width, right, left - width):
            x0 = min(max(x, 0), max(size[0] - width, 0))
            y0 = min(max(y, 0), max(size[1] - height, 0))
            yield x0, y0, x0 + width, y0 + height


def _overlap(one: Rectangle, other: Rectangle) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)
