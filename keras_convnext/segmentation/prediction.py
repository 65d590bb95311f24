"""Photographs in; the class of each pixel and a picture of them out."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from keras_convnext.feature_maps import with_values
from keras_convnext.pictures import ImageError, below_one_another, read_picture
from keras_convnext.printable import printable
from keras_convnext.segmentation.colors import colors_of_classes, names_of_classes
from keras_convnext.segmentation.inference import CROP, SCALE, STRIDE, predict_classes, with_logits


class Windows(NamedTuple):
    """How images are scaled and cut into windows.

    Args:
        scale: tuple of int or None. As in `predict_classes`. Defaults to (2048, 512).
        crop: int. Side of the windows, in pixels. Defaults to 512.
        stride: int. Distance between two windows, in pixels. Defaults to 341.
    """

    scale: tuple[int, int] | None = SCALE
    crop: int = CROP
    stride: int = STRIDE


PUBLISHED = Windows()


def windows_for(size: int) -> Windows:
    """Returns the windows of the published networks for crops of 512 or 640 px, or any other size.

    Args:
        size: int. Side of the crops in training, in pixels.
    """
    return Windows((4 * size, size), size, 2 * size // 3)


def windows_of(preprocessing: Mapping[str, Any]) -> Windows:
    """Returns the windows that a file of `train` records; the defaults if it records none."""
    window, stride = preprocessing.get("window"), preprocessing.get("stride")
    if not isinstance(window, int) or not isinstance(stride, int):
        return PUBLISHED
    scale = preprocessing.get("scale")
    return Windows((scale[0], scale[1]) if scale else None, window, stride)


class Area(NamedTuple):
    """The part of an image that belongs to a class.

    Args:
        label: int. Number of the class.
        name: str. Its name.
        pixels: int. Number of pixels.
        share: float. Share of the pixels of the image, in 0..1.
    """

    label: int
    name: str
    pixels: int
    share: float


class Segmented(NamedTuple):
    """What a segmenter says of a file.

    Args:
        path: path.
        classes: int32 array (H, W), or None if the file could not be read.
        areas: tuple of Area. The classes found, the largest first.
        error: str or None. Why it could not be read.
        notice: str or None. What was left out or scaled, as the frames of an animation.
    """

    path: Path
    classes: np.ndarray | None
    areas: tuple[Area, ...]
    error: str | None = None
    notice: str | None = None


def predict_files(
    model: keras.Model,
    paths: Sequence[str | Path],
    names: Sequence[str] = (),
    windows: Windows = PUBLISHED,
) -> Iterator[Segmented]:
    """Segments files, one at a time. One that cannot be read is reported, not fatal.

    Example:

    ```python
    for found in predict_files(model, find_images(["photos"])):
        print(found.path, found.error or found.areas[0].name)
    ```

    Args:
        model: keras.Model. Made by `UperNet`; takes pixels in 0..255.
        paths: sequence of str or path.
        names: sequence of str. Names of the classes. Defaults to those of `names_of_classes`.
        windows: Windows. How images are scaled and cut. Defaults to that of the published networks
            for 512 px.

    Returns:
        Iterator of Segmented, in the order of `paths`.
    """
    model = with_values(model)
    predict = with_logits(model)
    shown = names_of_classes(model.output_shape[-1], names)
    for path in map(Path, paths):
        try:
            image, notice = read_picture(path)
        except (ImageError, OSError) as error:
            yield Segmented(path, None, (), str(error))
            continue
        classes = predict_classes(
            predict,
            np.asarray(image),
            scale=windows.scale,
            crop=windows.crop,
            stride=windows.stride,
        )
        yield Segmented(path, classes, areas_of(classes, shown), notice=notice or None)


def areas_of(classes: np.ndarray, names: Sequence[str]) -> tuple[Area, ...]:
    """Returns the area of each class that occurs, the largest first.

    Args:
        classes: int array (H, W).
        names: sequence of str. Names of all classes.
    """
    pixels = np.bincount(classes.ravel(), minlength=len(names))
    order = np.argsort(-pixels, kind="stable")
    return tuple(
        Area(int(index), names[index], int(pixels[index]), float(pixels[index] / classes.size))
        for index in order
        if pixels[index]
    )


def class_map_image(classes: np.ndarray, colors: np.ndarray) -> Image.Image:
    """Returns the classes as an image with a palette, to be saved as PNG.

    Args:
        classes: int array (H, W), of classes below 256.
        colors: uint8 array (classes, 3).

    Raises:
        ValueError: If there are more than 256 classes.
    """
    if len(colors) > 256:
        raise ValueError(f"A palette has at most 256 colors. Received: {len(colors)} classes")
    image = Image.fromarray(classes.astype(np.uint8))
    image.putpalette(colors.astype(np.uint8).tobytes())
    return image


INK, PAPER, FAINT = "#1d2733", "#ffffff", "#6b7785"
OPACITY = 0.6
_MOST_WIDE, _LEAST_WIDE = 1600, 400  # px, of a picture
_LINES = 12  # the legend has so many classes at most, and a line for the others
_LEAST_SHARE = 0.001


def overlay(
    image: Image.Image, classes: np.ndarray, colors: np.ndarray, opacity: float = OPACITY
) -> Image.Image:
    """Returns an image with the color of each pixel's class over it.

    Args:
        image: PIL image in RGB, W x H.
        classes: int array (H, W).
        colors: uint8 array (classes, 3).
        opacity: float in 0..1. Share of the colors. Defaults to 0.6.
    """
    return Image.blend(image, Image.fromarray(colors[classes]), opacity)


def draw_segmentation(
    image: Image.Image,
    classes: np.ndarray,
    areas: Sequence[Area],
    colors: np.ndarray | None = None,
    opacity: float = OPACITY,
) -> Image.Image:
    """Draws an image with the color of each pixel's class over it, and a legend below.

    The text is large enough to be read where the picture is shown 400 px wide.

    Args:
        image: PIL image in RGB, W x H.
        classes: int array (H, W).
        areas: sequence of Area. The classes found, the largest first.
        colors: uint8 array (classes, 3) or None. Defaults to None, for `colors_of_classes`.
        opacity: float in 0..1. Share of the colors. Defaults to 0.6.

    Returns:
        PIL image, 400 to 1600 px wide.
    """
    if colors is None:
        colors = colors_of_classes(max(each.label for each in areas) + 1)
    drawn = overlay(image, classes, colors, opacity)
    width = min(max(image.width, _LEAST_WIDE), _MOST_WIDE)
    drawn = drawn.resize((width, max(1, round(image.height * width / image.width))))
    size = max(13, width * 13 // _LEAST_WIDE)
    lines = _legend(areas)
    columns = 2 if len(lines) > 1 else 1
    height, margin = size * 3 // 2, size // 2
    below = margin * 2 + height * -(-len(lines) // columns)
    sheet = Image.new("RGB", (width, drawn.height + below), PAPER)
    sheet.paste(drawn)
    draw = ImageDraw.Draw(sheet)
    for number, (index, name, share) in enumerate(lines):
        row, column = divmod(number, columns)
        left = margin + column * (width // columns)
        top = drawn.height + margin + row * height
        if index is not None:
            color = tuple(int(level) for level in colors[index])
            draw.rectangle((left, top, left + size, top + size), fill=color, outline=FAINT)
        right = (column + 1) * (width // columns) - margin
        room = right - left - round(4.5 * size)
        draw.text((left + size * 3 // 2, top), _fitted(draw, name, room, size), INK, _font(size))
        draw.text((right, top), f"{share:.1%}", INK, _font(size), anchor="ra")
    return sheet


def _legend(areas: Sequence[Area]) -> list[tuple[int | None, str, float]]:
    """Returns the number, name and share of the classes to list; a row for the others."""
    listed = [each for each in areas if each.share >= _LEAST_SHARE] or list(areas[:1])
    if len(listed) > _LINES:
        listed = listed[: _LINES - 1]
    rows: list[tuple[int | None, str, float]] = [
        (each.label, each.name, each.share) for each in listed
    ]
    if others := areas[len(listed) :]:
        rows.append((None, f"{len(others)} more", sum(each.share for each in others)))
    return rows


def draw_segmentations(
    found: Sequence[Segmented], path: str | Path, colors: np.ndarray | None = None
) -> None:
    """Draws the files below one another, each with its legend.

    Args:
        found: sequence of Segmented. Those that could not be read are left out.
        path: str or path. The picture to write; the suffix tells the format.
        colors: uint8 array (classes, 3) or None. As in `draw_segmentation`.

    Raises:
        OSError: If the picture cannot be written.
        ValueError: If the suffix is no format of a picture, or no file could be read.
    """
    drawn = [
        draw_segmentation(read_picture(each.path).image, each.classes, each.areas, colors)
        for each in found
        if each.classes is not None
    ]
    if not drawn:
        raise ValueError("There is nothing to draw: no file could be read")
    below_one_another(drawn).save(path)


def _fitted(draw: ImageDraw.ImageDraw, text: str, room: int, size: int) -> str:
    """Returns a line, cut with an ellipsis where it is too long."""
    text = printable(text[:200])[:200]
    kept = len(text)
    shown = text
    while kept and draw.textlength(shown, _font(size)) > room:
        kept -= 1
        shown = text[:kept] + "…"
    return shown


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)
