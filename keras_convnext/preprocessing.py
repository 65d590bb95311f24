"""Image loading as in the published evaluation, and the class names of ImageNet.

Normalization is not part of this module: the models do it themselves.
"""

import os
import warnings
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import resources
from math import ceil, floor
from operator import index as whole_number
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from keras_convnext.normalization import CROPPED_SHARE, WARP_FROM, crop_share
from keras_convnext.pictures import (
    ImageError,
    ImageSource,
    ImageWarning,
    name_of,
    open_image,
    read_picture,
)
from keras_convnext.resizing import Box, resized

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

_LARGEST_SIZE = 16_384  # of a side in pixels: a square takes 0.8 GB

Pixels = TypeVar("Pixels")  # an array or a tensor

_LONGEST = 16  # times the short side: in a longer image, only the crop is resized

# Number of classes, and the file with their names in the order of the checkpoints: sorted by
# WordNet identifier. The names are the first lemmas in WordNet 3.0.
_LABELS = {1000: "imagenet_1k.tsv", 21841: "imagenet_22k.tsv"}


def load_image(source: ImageSource, size: int = 224, crop: float | None = None) -> np.ndarray:
    """Loads, resizes and crops an image as in the published evaluation.

    The short side is resized to `size / crop` and the center is cropped, or the whole image is
    warped to the square. Resizing is bicubic and antialiased, first
    along the width and then along the height, as in Pillow up to version 12.1. The pixels do
    not depend on the installed version.

    Example:

    ```python
    image = keras_convnext.preprocessing.load_image("cat.jpg", size=224)
    model.predict(image[None])
    ```

    Args:
        source: str, path, bytes, open binary file, PIL image or array. The path of a file, its
            contents, or the pixels as a uint8 array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4). All
            modes are converted to RGB. Transparency is dropped as in Pillow's `convert("RGB")`, and
            the EXIF orientation is applied. Only the first frame of an animation is used, and
            floating-point pixels are scaled to 0..255, both with an `ImageWarning`.
        size: int. Side of the square, in pixels. Defaults to 224.
        crop: float in 0..1, or None. Side of the crop divided by the resized short side; 0 warps
            the whole image. Other weights than the official ones may need their own, which
            `list_weights` has as `crop_share`. Defaults to None, for the official evaluation: 0.875
            below 384 px, and else 0.

    Returns:
        uint8 array (size, size, 3), RGB in 0..255.

    Raises:
        ImageError: If `source` is not an image, is damaged, or has too many pixels.
        FileNotFoundError: If the file does not exist.
        ValueError: If `size` is not a positive integer, or `crop` is not in 0..1.

    References:
        facebookresearch/ConvNeXt, datasets.py, `build_transform`.
    """
    _check_size(size)
    crop_share(size, crop)
    image, notice = read_picture(source)
    if notice:
        warnings.warn(f"{notice} Received: {name_of(source)}", ImageWarning, stacklevel=2)
    return square(image, size, crop)


def square(image: Image.Image, size: int, crop: float | None = None) -> np.ndarray:
    """Resizes and crops an upright RGB image as in `load_image`.

    Memory use depends only on the size of the square, whatever the shape of the image.

    Args:
        image: PIL image in RGB.
        size: int. Side of the square, in pixels.
        crop: as in `load_image`.

    Returns:
        uint8 array (size, size, 3).
    """
    share = crop_share(size, crop)
    if not share:
        return np.asarray(resized(image, (size, size)))
    short = int(size / share)
    # The long side is truncated to whole pixels and the offsets are rounded, as in torchvision.
    width, height = (short * side // min(image.size) for side in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    if max(image.size) > _LONGEST * min(image.size):
        across, down = image.width / width, image.height / height
        box = (left * across, top * down, (left + size) * across, (top + size) * down)
        return _resized_box(image, (width, height), box, size)
    image = resized(image, (width, height))
    return np.asarray(image.crop((left, top, left + size, top + size)))


def _resized_box(image: Image.Image, sides: tuple[int, int], box: Box, size: int) -> np.ndarray:
    """Returns the square that a box becomes if the image is resized to `sides`.

    Only the pixels in the box are resized.
    """
    left, top, right, bottom = box
    across, down = (2 * max(side / new, 1) + 1 for side, new in zip(image.size, sides))  # reach
    x, y = max(floor(left - across), 0), max(floor(top - down), 0)
    ends = min(ceil(right + across), image.width), min(ceil(bottom + down), image.height)
    part = image.crop((x, y, *ends))
    box = left - x, top - y, right - x, bottom - y
    return np.asarray(resized(part, (size, size), box))


def _check_size(size: int) -> None:
    try:
        wrong = whole_number(size) < 1
    except TypeError:
        wrong = True
    if wrong:
        raise ValueError(
            f"size must be the side of the square in pixels, a positive integer. "
            f"Received: size={size}"
        )
    if size > _LARGEST_SIZE:
        raise ValueError(
            f"size must be at most {_LARGEST_SIZE:,}, because larger images take gigabytes. "
            f"Received: size={size}"
        )


def load_images(
    sources: Iterable[ImageSource], size: int = 224, crop: float | None = None
) -> np.ndarray:
    """Loads several images with `load_image` and stacks them into a batch.

    Args:
        sources: iterable of sources, each as in `load_image`.
        size: int. Side of the squares, in pixels. Defaults to 224.
        crop: as in `load_image`.

    Returns:
        uint8 array (N, size, size, 3), RGB in 0..255.

    Raises:
        ImageError: If a source is not an image; the message names it.
        FileNotFoundError: If a file does not exist.
        ValueError: If `sources` is a single image, or as in `load_image`.
    """
    _check_size(size)
    crop_share(size, crop)
    one = isinstance(sources, str | bytes | os.PathLike | Image.Image) or hasattr(sources, "read")
    if one or (isinstance(sources, np.ndarray) and _is_one_image(sources)):
        raise ValueError(
            "load_images expects several images: wrap a single image in a list, or call "
            "load_image. "
            f"Received: {name_of(sources)}"  # type: ignore[arg-type]
        )
    images = []
    for source in sources:
        image, notice = read_picture(source)
        if notice:
            warnings.warn(f"{notice} Received: {name_of(source)}", ImageWarning, stacklevel=2)
        images.append(square(image, size, crop))
    return np.stack(images) if images else np.empty((0, size, size, 3), np.uint8)


def _is_one_image(array: np.ndarray) -> bool:
    return array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))


def decode_predictions(predictions: ArrayLike, top: int = 5) -> list[list[tuple[str, str, float]]]:
    """Returns the names of the most probable classes of ImageNet-1K or ImageNet-22K.

    Example:

    ```python
    for wnid, name, probability in decode_predictions(model.predict(images), top=3)[0]:
        print(f"{probability:6.1%}  {name}")
    ```

    Args:
        predictions: array (N, 1000) or (N, 21841). Probabilities or logits, in the order of the
            official checkpoints.
        top: int. Number of classes to return per image. Defaults to 5.

    Returns:
        For each image, a list of (WordNet identifier, name, score), highest score first.

    Raises:
        ValueError: If `predictions` has another shape, or `top` is less than 1.
    """
    rows = np.asarray(predictions)
    if rows.ndim != 2 or rows.shape[1] not in _LABELS:
        raise ValueError(
            "decode_predictions only knows the classes of ImageNet-1K and ImageNet-22K: "
            "predictions must have the shape (N, 1000) or (N, 21841). "
            f"Received: shape={rows.shape}"
        )
    if top < 1:
        raise ValueError(f"top must be at least 1. Received: top={top}")
    labels = class_labels(rows.shape[1])
    best = np.argsort(-rows, axis=1, kind="stable")[:, :top]
    return [
        [(*labels[index], float(scores[index])) for index in indices]
        for scores, indices in zip(rows, best)
    ]


@cache
def class_labels(classes: int) -> tuple[tuple[str, str], ...]:
    """Returns (WordNet identifier, name) for each of the 1,000 or 21,841 classes, in order.

    Raises:
        ValueError: If `classes` is neither number.
    """
    if classes not in _LABELS:
        raise ValueError(f"classes must be one of {sorted(_LABELS)}. Received: classes={classes}")
    text = (resources.files("keras_convnext") / "labels" / _LABELS[classes]).read_text("utf-8")
    rows = (line.split("\t") for line in text.splitlines())
    return tuple((wnid, name.replace(" ", "_")) for wnid, name in rows)


def class_names(classes: int, names: Sequence[str] = ()) -> tuple[tuple[str, str], ...]:
    """Returns (WordNet identifier, name) for each class of a classifier, in order.

    These are `names`, if their number matches; else those of `class_labels`; else "class 0",
    "class 1" and so on. The identifier is "" for a class without one.

    Args:
        classes: int. Number of classes.
        names: sequence of str. Names or WordNet identifiers. Defaults to none.
    """
    if len(names) == classes:
        known = dict(class_labels(21841)) | dict(class_labels(1000))
        return tuple((name, known[name]) if name in known else ("", name) for name in names)
    if classes in _LABELS:
        return class_labels(classes)
    return tuple(("", f"class {index}") for index in range(classes))


def prepared(size: int) -> dict[str, Any]:
    """Returns how `load_image` prepares images of this size, as values for JSON."""
    return {
        "size": size,
        "crop": None if size >= WARP_FROM else CROPPED_SHARE,
        "interpolation": "bicubic",
        "pixels": "RGB in 0..255",
    }


def preprocess_input(x: Pixels, data_format: str | None = None) -> Pixels:
    """Returns `x` unchanged, because the model normalizes; for code using `keras.applications`.

    Args:
        x: array or tensor. Pixels in 0..255.
        data_format: ignored.

    Returns:
        `x`.
    """
    return x
