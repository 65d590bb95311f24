"""Draws rotated objects in a scene: outlined in the color of their class, with a legend."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from keras_convnext.colors import distinct_colors
from keras_convnext.detection.rotated.prediction import RotatedDetections
from keras_convnext.detection.rotated.scenes import Scene
from keras_convnext.printable import printable

LONGEST = 4000  # px, of a picture
_COLORS = 24  # then they repeat
_LONGEST_NAME = 40  # characters
_LEAST_WIDE = 400  # px


def draw_rotated(
    scene: np.ndarray | str | Path,
    found: RotatedDetections,
    names: Sequence[str],
    threshold: float = 0.5,
) -> Image.Image:
    """Draws the objects in a scene, and a legend with the number of each class.

    Args:
        scene: array (H, W, 3), uint8, or the path of an image.
        found: RotatedDetections. The objects in the scene.
        names: sequence of str. Names of the classes.
        threshold: float. The lowest score to draw. Defaults to 0.5.

    Returns:
        PIL image, whose longer side has at most 4000 px.
    """
    found = found.above(threshold)
    sheet, width = _reduced(scene)
    if sheet.width < _LEAST_WIDE:
        sheet = sheet.resize((_LEAST_WIDE, round(_LEAST_WIDE * sheet.height / sheet.width)))
    factor = sheet.width / width
    draw = ImageDraw.Draw(sheet)
    thickness = max(2, round(max(sheet.size) / 800))
    colors = [tuple(map(int, color)) for color in distinct_colors(_COLORS)]
    for label, points in reversed(list(zip(found.labels.tolist(), found.points() * factor))):
        corners = [tuple(map(float, each)) for each in points]
        around, color = [*corners, *corners[:2]], colors[label % _COLORS]
        # A rim in black or white, so that the outline shows on a ground of its own color.
        rim = "black" if np.dot(color, (0.299, 0.587, 0.114)) > 110 else "white"
        draw.line(around, rim, thickness + 2, joint="curve")
        draw.line(around, color, thickness, joint="curve")
    return _with_legend(sheet, found, names, colors)


def _reduced(scene: np.ndarray | str | Path) -> tuple[Image.Image, int]:
    """Returns a scene, reduced by a whole factor if it is large, and its width in pixels.

    Few rows are read at a time.
    """
    with Scene(scene) as source:
        height, width = source.height, source.width
        step = math.ceil(max(height, width) / LONGEST)
        sheet = Image.new("RGB", (-(-width // step), -(-height // step)))
        rows = 256 * step
        for top in range(0, height, rows):
            band = Image.fromarray(source.band(top, rows))
            sheet.paste(band.reduce(step) if step > 1 else band, (0, top // step))
    return sheet, width


def _with_legend(
    sheet: Image.Image,
    found: RotatedDetections,
    names: Sequence[str],
    colors: Sequence[tuple[int, ...]],
) -> Image.Image:
    counts = np.bincount(found.labels, minlength=len(names))
    shown = [label for label in np.argsort(-counts, kind="stable").tolist() if counts[label]]
    if not shown:
        return sheet
    size = max(14, sheet.width // 70)
    font = ImageFont.load_default(size=size)
    draw = ImageDraw.Draw(sheet)
    entries, x, y = [], size, size // 2
    for label in shown:
        name = printable(names[label][:_LONGEST_NAME])[:_LONGEST_NAME]
        text = f"{name}: {counts[label]:,}"
        length = 2 * size + round(draw.textlength(text, font))
        if x > size and x + length > sheet.width:
            x, y = size, y + 2 * size
        entries.append((x, y, label, text))
        x += length + size
    whole = Image.new("RGB", (sheet.width, sheet.height + y + 2 * size), "white")
    whole.paste(sheet)
    draw = ImageDraw.Draw(whole)
    for x, y, label, text in entries:
        top = sheet.height + y
        draw.rectangle((x, top, x + size, top + size), fill=colors[label % len(colors)])
        draw.text((x + 3 * size // 2, top - size // 8), text, "black", font)
    return whole
