"""Pixels in, labels out: the rule by which the published accuracies were measured, and its classes.

This is the part of preprocessing that is not in the model. The model normalises by itself.
"""

import io
from collections.abc import Iterable
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageOps

ImageSource = str | Path | bytes | Image.Image | np.ndarray
Pixels = TypeVar("Pixels")  # an array or a tensor

WARP_FROM = 384  # px: from here on the whole image is warped to the square, nothing is cropped
CROPPED_SHARE = 0.875  # of the short side, below it

# Number of classes, and the file that names them in the order of the checkpoints: that of sorted
# WordNet identifiers. The names are the first lemmas of WordNet 3.0.
_LABELS = {1000: "imagenet_1k.tsv", 21841: "imagenet_22k.tsv"}


class ImageError(ValueError):
    """A file or an array is not an image that can be read."""


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
        source: str, path, bytes, PIL image or array. The name of a file, the bytes of one, or the
            pixels: a uint8 array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4). Grey, palette, CMYK
            and 16-bit files become RGB, transparency is dropped as by Pillow's `convert("RGB")`,
            and a photograph is turned upright by its EXIF orientation.
        size: int. Side of the square, in pixels. Defaults to 224.

    Returns:
        uint8 array (size, size, 3), RGB in 0..255.

    Raises:
        ImageError: If `source` is no image, or a damaged or a monstrously large one.
        FileNotFoundError: If `source` names no file.

    References:
        facebookresearch/ConvNeXt, datasets.py, `build_transform`.
    """
    if size < 1:
        raise ValueError(f"size is a number of pixels from 1 up. Received: size={size}")
    image = open_image(source)
    if size >= WARP_FROM:
        return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))
    short = int(size / CROPPED_SHARE)
    # The long side is cut to whole pixels, and the offsets are rounded, as torchvision does.
    width, height = (short * side // min(image.size) for side in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image.crop((left, top, left + size, top + size)))


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
    """
    images = [load_image(source, size) for source in sources]
    return np.stack(images) if images else np.empty((0, size, size, 3), np.uint8)


def open_image(source: ImageSource) -> Image.Image:
    """Opens what `load_image` takes, upright and in RGB, at its own size.

    Raises:
        ImageError: As `load_image` does.
        FileNotFoundError: As `load_image` does.
    """
    if isinstance(source, np.ndarray):
        return _image_of_array(source)
    opened: Image.Image | io.BytesIO | Path
    if isinstance(source, Image.Image):
        name, opened = "a PIL image", source
    elif isinstance(source, bytes):
        name, opened = f"{len(source)} bytes", io.BytesIO(source)
    else:
        name, opened = str(source), Path(source)
        if not opened.is_file():
            raise FileNotFoundError(f"There is no such file. Received: {name}")
    try:
        image = opened if isinstance(opened, Image.Image) else Image.open(opened)
        image = ImageOps.exif_transpose(image)
        if image.mode == "I" or image.mode.startswith("I;16"):
            image = Image.fromarray((np.asarray(image, np.float64) / 257).clip(0, 255).astype("u1"))
        return image.convert("RGB")
    except Image.DecompressionBombError as error:
        raise ImageError(f"The image is too large to be one: {error}. Received: {name}") from error
    # Pillow's decoders let many kinds of error out at a damaged file.
    except Exception as error:
        raise ImageError(f"Not an image, or a damaged one: {error}. Received: {name}") from error


def _image_of_array(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or 0 in array.shape:
        raise ImageError(
            "An array is an image if it is uint8 in 0..255, of shape (H, W) or (H, W, channels). "
            f"Received: dtype {array.dtype}, shape {array.shape}"
        )
    if array.ndim == 3 and array.shape[2] not in (1, 3, 4):
        raise ImageError(f"An image has 1, 3 or 4 channels, last. Received: shape {array.shape}")
    return Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else array).convert("RGB")


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
