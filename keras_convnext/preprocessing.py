"""Pixels in, labels out: the rule by which the published accuracies were measured, and its classes.

This is the part of preprocessing that is not in the model. The model normalises by itself.
"""

import os
import warnings
from collections.abc import Iterable
from functools import cache
from importlib import resources
from math import ceil, floor
from operator import index as whole_number
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from keras_convnext.pictures import (
    ImageError,
    ImageSource,
    ImageWarning,
    name_of,
    open_image,
    read_picture,
)

__all__ = [
    "ImageError",
    "ImageWarning",
    "class_labels",
    "class_names",
    "decode_predictions",
    "load_image",
    "load_images",
    "open_image",
    "preprocess_input",
]

Pixels = TypeVar("Pixels")  # an array or a tensor

WARP_FROM = 384  # px: from here on the whole image is warped to the square, nothing is cropped
CROPPED_SHARE = 0.875  # of the short side, below it
_BICUBIC = Image.Resampling.BICUBIC
_LONGEST = 16  # times the short side: of a longer picture only the crop is resized

# Number of classes, and the file that names them in the order of the checkpoints: that of sorted
# WordNet identifiers. The names are the first lemmas of WordNet 3.0.
_LABELS = {1000: "imagenet_1k.tsv", 21841: "imagenet_22k.tsv"}


def load_image(source: ImageSource, size: int = 224) -> np.ndarray:
    """Makes of an image what the published evaluation feeds the network.

    Below 384 px the short side is resized to `size / 0.875` and the centre cropped; from 384 px on
    the whole image is warped to the square. Both resize as Pillow does: bicubic, antialiased.

    Example:

    ```python
    image = keras_convnext.preprocessing.load_image("cat.jpg", size=224)
    model.predict(image[None])
    ```

    Args:
        source: str, path, bytes, open binary file, PIL image or array. The name of a file, the
            file itself, or the pixels: a uint8 array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4).
            All that Pillow reads becomes RGB. Transparency is dropped as by Pillow's
            `convert("RGB")`; a photograph is turned upright by its EXIF orientation; of an
            animation the first frame is used, and floating-point pixels are scaled, both with an
            `ImageWarning`.
        size: int. Side of the square, in pixels. Defaults to 224.

    Returns:
        uint8 array (size, size, 3), RGB in 0..255.

    Raises:
        ImageError: If `source` is no image, or a damaged or a monstrously large one.
        FileNotFoundError: If `source` names no file.
        ValueError: If `size` is no whole number from 1 up.

    References:
        facebookresearch/ConvNeXt, datasets.py, `build_transform`.
    """
    _check_size(size)
    image, notice = read_picture(source)
    if notice:
        warnings.warn(f"{notice} Received: {name_of(source)}", ImageWarning, stacklevel=2)
    return square(image, size)


def square(image: Image.Image, size: int) -> np.ndarray:
    """Resizes and crops an upright RGB image by the rule of `load_image`.

    The memory is that of the square, whatever the shape of the image.

    Args:
        image: PIL image, in RGB.
        size: int. Side of the square, in pixels.

    Returns:
        uint8 array (size, size, 3).
    """
    if size >= WARP_FROM:
        if _is_long(image):
            return _resized_box(image, (size, size), (0, 0, image.width, image.height), size)
        return np.asarray(image.resize((size, size), _BICUBIC))
    short = int(size / CROPPED_SHARE)
    # The long side is cut to whole pixels, and the offsets are rounded, as torchvision does.
    width, height = (short * side // min(image.size) for side in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    if _is_long(image):
        across, down = image.width / width, image.height / height
        box = (left * across, top * down, (left + size) * across, (top + size) * down)
        return _resized_box(image, (width, height), box, size)
    image = image.resize((width, height), _BICUBIC)
    return np.asarray(image.crop((left, top, left + size, top + size)))


def _is_long(image: Image.Image) -> bool:
    return max(image.size) > _LONGEST * min(image.size)


def _resized_box(
    image: Image.Image, sides: tuple[int, int], box: tuple[float, float, float, float], size: int
) -> np.ndarray:
    """Resizes to `sides` what lies in a box, which becomes a square, and nothing else.

    The axes take turns as in Pillow 13 when it resizes the whole.
    """
    left, top, right, bottom = box
    across, down = (2 * max(side / new, 1) + 1 for side, new in zip(image.size, sides))  # reach
    x, y = max(floor(left - across), 0), max(floor(top - down), 0)
    ends = min(ceil(right + across), image.width), min(ceil(bottom + down), image.height)
    part = image.crop((x, y, *ends))
    left, top, right, bottom = left - x, top - y, right - x, bottom - y
    goes_across, goes_down = (side - new for side, new in zip(image.size, sides))
    if goes_down > 0 and goes_down > 2 * goes_across:
        part = part.resize((part.width, size), _BICUBIC, (0, top, part.width, bottom))
        return np.asarray(part.resize((size, size), _BICUBIC, (left, 0, right, size)))
    part = part.resize((size, part.height), _BICUBIC, (left, 0, right, part.height))
    return np.asarray(part.resize((size, size), _BICUBIC, (0, top, size, bottom)))


def _check_size(size: int) -> None:
    try:
        wrong = whole_number(size) < 1
    except TypeError:
        wrong = True
    if wrong:
        raise ValueError(
            f"size is the side of the square, a whole number of pixels from 1 up. "
            f"Received: size={size}"
        )


def load_images(sources: Iterable[ImageSource], size: int = 224) -> np.ndarray:
    """Stacks `load_image` of several images into a batch.

    Args:
        sources: iterable of what `load_image` takes.
        size: int. Side of the squares, in pixels. Defaults to 224.

    Returns:
        uint8 array (N, size, size, 3), RGB in 0..255.

    Raises:
        ImageError: If one of them is no image; the message names it.
        FileNotFoundError: If one of them names no file.
        ValueError: If `sources` is one image, or `size` no whole number from 1 up.
    """
    _check_size(size)
    one = isinstance(sources, str | bytes | os.PathLike | Image.Image) or hasattr(sources, "read")
    if one or (isinstance(sources, np.ndarray) and _is_one_image(sources)):
        raise ValueError(
            "load_images takes several images: put the one into a list, or call load_image. "
            f"Received: {name_of(sources)}"  # type: ignore[arg-type]
        )
    images = []
    for source in sources:
        image, notice = read_picture(source)
        if notice:
            warnings.warn(f"{notice} Received: {name_of(source)}", ImageWarning, stacklevel=2)
        images.append(square(image, size))
    return np.stack(images) if images else np.empty((0, size, size, 3), np.uint8)


def _is_one_image(array: np.ndarray) -> bool:
    return array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))


def decode_predictions(predictions: ArrayLike, top: int = 5) -> list[list[tuple[str, str, float]]]:
    """Names the most probable classes of ImageNet-1K or ImageNet-22K.

    Example:

    ```python
    for wnid, name, probability in decode_predictions(model.predict(images), top=3)[0]:
        print(f"{probability:6.1%}  {name}")
    ```

    Args:
        predictions: array (N, 1000) or (N, 21841). Probabilities or logits, in the order of the
            official checkpoints.
        top: int. How many classes to name for each image. Defaults to 5.

    Returns:
        For each image a list of (WordNet identifier, name, score), the highest score first.

    Raises:
        ValueError: If the shape is neither, or `top` is less than 1.
    """
    rows = np.asarray(predictions)
    if rows.ndim != 2 or rows.shape[1] not in _LABELS:
        raise ValueError(
            "Only the classes of ImageNet-1K and ImageNet-22K have names here: the shape is "
            f"(N, 1000) or (N, 21841). Received: shape {rows.shape}"
        )
    if top < 1:
        raise ValueError(f"top is a whole number from 1 up. Received: top={top}")
    labels = class_labels(rows.shape[1])
    best = np.argsort(-rows, axis=1, kind="stable")[:, :top]
    return [
        [(*labels[index], float(scores[index])) for index in indices]
        for scores, indices in zip(rows, best)
    ]


@cache
def class_labels(classes: int) -> tuple[tuple[str, str], ...]:
    """Returns (WordNet identifier, name) of each of the 1,000 or the 21,841 classes, in order.

    Raises:
        ValueError: If `classes` is neither number.
    """
    if classes not in _LABELS:
        raise ValueError(f"Names are known for {sorted(_LABELS)} classes. Received: {classes}")
    text = (resources.files("keras_convnext") / "labels" / _LABELS[classes]).read_text("utf-8")
    rows = (line.split("\t") for line in text.splitlines())
    return tuple((wnid, name.replace(" ", "_")) for wnid, name in rows)


def class_names(classes: int, checkpoint: str | Path | None = None) -> tuple[tuple[str, str], ...]:
    """Returns (WordNet identifier, name) of each class of a checkpoint, in order.

    They are the lines of the `classes.txt` that lies beside the file, as beside what `train` made,
    if it has as many; else those of `class_labels`; else "class 0" and so on. The identifier is
    empty where a class has none.

    Args:
        classes: int. How many it has.
        checkpoint: str, path or None. The file of weights. Defaults to None.
    """
    beside = checkpoint and Path(checkpoint).with_name("classes.txt")
    if beside and beside.is_file():
        names = beside.read_text("utf-8").splitlines()
        if len(names) == classes:
            known = dict(class_labels(21841)) | dict(class_labels(1000))
            return tuple((name, known[name]) if name in known else ("", name) for name in names)
    if classes in _LABELS:
        return class_labels(classes)
    return tuple(("", f"class {index}") for index in range(classes))


def preprocess_input(x: Pixels, data_format: str | None = None) -> Pixels:
    """Returns `x` as it is, for code written for `keras.applications`: the model normalises.

    Args:
        x: array or tensor. Pixels in 0..255.
        data_format: ignored.
    """
    return x
