"""Photographs in; classes and an annotated picture out."""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from keras_convnext.pictures import ImageError, read_picture
from keras_convnext.preprocessing import class_names, square
from keras_convnext.printable import printable


class Label(NamedTuple):
    """A class and how probable it is.

    Args:
        wnid: str. WordNet identifier; empty for classes that are not ImageNet's.
        name: str.
        probability: float.
    """

    wnid: str
    name: str
    probability: float


class Prediction(NamedTuple):
    """What a model says of a file.

    Args:
        path: path.
        labels: tuple of Label. The most probable first; empty if the file could not be read.
        error: str or None. Why it could not be read.
        notice: str or None. What was left out or scaled, as the frames of an animation.
        none_of_these: bool. Whether the picture seems to show none of the classes, since even the
            most probable one is improbable.
    """

    path: Path
    labels: tuple[Label, ...]
    error: str | None = None
    notice: str | None = None
    none_of_these: bool = False


def predict_files(
    model: keras.Model,
    paths: Sequence[str | Path],
    top: int = 5,
    batch_size: int = 8,
    names: Sequence[tuple[str, str]] | None = None,
    least_probability: float | None = None,
    crop: float | None = None,
) -> Iterator[Prediction]:
    """Classifies files, a batch at a time. One that cannot be read is reported, not fatal.

    Example:

    ```python
    for prediction in predict_files(model, find_images(["photos"])):
        print(prediction.path, prediction.error or prediction.labels[0].name)
    ```

    Args:
        model: keras.Model. Takes pixels in 0..255, of 3 channels or of 1, for which photographs are
            turned gray, and returns probabilities. If it takes any size, it is given 224 px.
        paths: sequence of str or path.
        top: int. How many classes to name. Defaults to 5.
        batch_size: int. How many images go through the network at once. Defaults to 8.
        names: sequence of (WordNet identifier, name) or None. The classes of the model, as
            `preprocessing.class_names` returns them. Defaults to None, those that are told by their
            number alone.
        least_probability: float or None. A picture whose most probable class is less probable is
            flagged as `none_of_these`. `list_weights` has it for weights where it was measured.
            Defaults to None, which flags nothing.
        crop: float in 0..1, or None. As in `preprocessing.load_image`.

    Returns:
        Iterator of Prediction, in the order of `paths`.

    Raises:
        ValueError: If the model takes another number of channels, or images that are not square.
    """
    height, width, channels = model.input_shape[1:]
    if channels not in (1, 3) or height != width:
        raise ValueError(
            "Photographs are cropped to squares of 1 or 3 channels: call the model with images of "
            f"its own kind. Received: a model with the input shape {model.input_shape}"
        )
    size = height or 224
    names = names or class_names(model.output_shape[-1])
    remaining = iter(map(Path, paths))
    while batch := list(itertools.islice(remaining, batch_size)):
        images, errors, notices = [], {}, {}
        for path in batch:
            try:
                image, notices[path] = read_picture(path)
                pixels = square(image, size, crop)
                images.append(pixels if channels == 3 else _gray(pixels))
            except (ImageError, OSError) as error:
                errors[path] = str(error)
        scores = iter(model.predict_on_batch(np.stack(images)) if images else ())
        for path in batch:
            if path in errors:
                yield Prediction(path, (), errors[path])
            else:
                found = next(scores)
                yield Prediction(
                    path,
                    _best(found, names, top),
                    notice=notices[path] or None,
                    none_of_these=bool(found.max() < (least_probability or 0)),
                )


def _gray(pixels: np.ndarray) -> np.ndarray:
    """The luma (H, W, 1) of pixels (H, W, 3), as ITU-R 601 and Keras' loader have it."""
    return np.asarray(Image.fromarray(pixels).convert("L"))[..., None]


def _best(scores: np.ndarray, names: Sequence[tuple[str, str]], top: int) -> tuple[Label, ...]:
    labels = []
    for index in np.argsort(-scores, kind="stable")[:top]:
        wnid, name = names[index]
        labels.append(Label(wnid, name, float(scores[index])))
    return tuple(labels)


CARD_WIDTH, PHOTO_HEIGHT, ROW_HEIGHT, MARGIN, COLUMNS = 320, 240, 26, 14, 3
INK, FAINT, BAR, PAPER, WARNING = "#1d2733", "#6b7785", "#bcd7f5", "#ffffff", "#a33b2a"
UNLIKELY_BAR = "#e4e7eb"
NONE_OF_THESE = "none of its classes"


def draw_predictions(
    predictions: Sequence[Prediction], path: str | Path, caption: str = ""
) -> None:
    """Draws a sheet of the photographs, each with its classes and a bar for each probability.

    Args:
        predictions: sequence of Prediction. Those that could not be read say so, and so do those
            that show none of the classes.
        path: str or path. The picture to write; the suffix tells the format.
        caption: str. A line above the photographs. Defaults to none.

    Raises:
        OSError: If the picture cannot be written.
        ValueError: If the suffix is no format of a picture.
    """
    rows = max((len(each.labels) + each.none_of_these for each in predictions), default=0)
    columns = min(COLUMNS, max(len(predictions), 1))
    card_height = PHOTO_HEIGHT + ROW_HEIGHT * (rows + 1) + MARGIN
    top = MARGIN + (2 * ROW_HEIGHT if caption else 0)
    sheet = Image.new(
        "RGB",
        (
            MARGIN + columns * (CARD_WIDTH + MARGIN),
            top + -(-len(predictions) // columns) * (card_height + MARGIN),
        ),
        PAPER,
    )
    draw = ImageDraw.Draw(sheet)
    if caption:
        _fitted(draw, (MARGIN, MARGIN), caption, sheet.width - 2 * MARGIN, INK)
    for index, prediction in enumerate(predictions):
        row, column = divmod(index, columns)
        corner = (MARGIN + column * (CARD_WIDTH + MARGIN), top + row * (card_height + MARGIN))
        _draw_card(sheet, draw, prediction, corner)
    sheet.save(path)


def _draw_card(
    sheet: Image.Image, draw: ImageDraw.ImageDraw, prediction: Prediction, corner: tuple[int, int]
) -> None:
    left, y = corner
    photo = None
    if prediction.error is None:
        with suppress(ImageError, OSError):  # it may have disappeared since
            photo = read_picture(prediction.path).image
    if photo:
        sheet.paste(ImageOps.fit(photo, (CARD_WIDTH, PHOTO_HEIGHT)), corner)
    else:
        draw.rectangle((left, y, left + CARD_WIDTH, y + PHOTO_HEIGHT), outline=WARNING)
        _fitted(draw, (left + 8, y + 8), "could not be read", CARD_WIDTH - 16, WARNING)
    y += PHOTO_HEIGHT + 4
    _fitted(draw, (left, y), prediction.path.name, CARD_WIDTH, FAINT)
    if prediction.none_of_these:
        y += ROW_HEIGHT
        _fitted(draw, (left, y), f"{NONE_OF_THESE}; closest:", CARD_WIDTH, WARNING)
    bar = UNLIKELY_BAR if prediction.none_of_these else BAR
    for label in prediction.labels:
        y += ROW_HEIGHT
        length = round(CARD_WIDTH * min(max(label.probability, 0.0), 1.0))
        draw.rectangle((left, y, left + length, y + ROW_HEIGHT - 5), fill=bar)
        percent = f"{label.probability:.1%}"
        room = CARD_WIDTH - 62
        _fitted(draw, (left + 4, y + 1), label.name.replace("_", " "), room, INK)
        draw.text((left + CARD_WIDTH, y + 1), percent, INK, _font(), anchor="ra")


def _fitted(
    draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, width: int, color: str
) -> None:
    """Writes a line, cut with an ellipsis where it is too long."""
    text = printable(text[:width])[:width]  # a character takes at least a pixel
    kept = len(text)
    shown = text
    while kept and draw.textlength(shown, _font()) > width:
        kept -= 1
        shown = text[:kept] + "…"
    draw.text(place, shown, color, _font())


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=15)
