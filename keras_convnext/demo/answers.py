"""An uploaded file in; its classes and where the network looked out. Uploads are from strangers."""

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from PIL import Image

from keras_convnext.export import Artifact
from keras_convnext.pictures import ImageError, Picture, TooManyPixelsError, name_of, read_picture
from keras_convnext.preprocessing import WARP_FROM, class_names, square
from keras_convnext.saliency import grad_cam, overlay

MOST_BYTES = 20 * 2**20
MOST_PIXELS = 50_000_000  # each takes 12 bytes while it is decoded and turned, 19 if of 16 bits


class UploadError(ValueError):
    """An upload that is not answered; the message is for the person who sent it."""


class Classifier(NamedTuple):
    """What the page asks: a live network, or one that was exported.

    Args:
        classify: callable. Takes uint8 pixels (N, size, size, 3) and returns probabilities
            (N, classes).
        size: int. Side of the images, in pixels.
        names: sequence of str. The classes, in order.
        saliency: callable or None. Takes the same pixels and one class index for each image, and
            returns floats (N, size, size) in 0..1, as `grad_cam` does. Defaults to None, for what
            cannot tell.
    """

    classify: Callable[[np.ndarray], np.ndarray]
    size: int
    names: Sequence[str]
    saliency: Callable[[np.ndarray, Sequence[int]], np.ndarray] | None = None


class Answer(NamedTuple):
    """What is shown of an upload.

    Args:
        labels: dict of str to float. Names and probabilities, the most probable first.
        seen: PIL image. The pixels that the network was given.
        where: PIL image or None. The same part of the picture, with heat where the network looked
            for its first class; None if the classifier cannot tell.
        seconds: float. From the file to the labels and the heat.
        notice: str. What of the file was left out or scaled; empty for almost all.
    """

    labels: dict[str, float]
    seen: Image.Image
    where: Image.Image | None
    seconds: float
    notice: str = ""


def classifier_of(model: keras.Model, names: Sequence[tuple[str, str]] | None = None) -> Classifier:
    """Makes a classifier, with Grad-CAM, of a live network.

    Args:
        model: keras.Model. Made by one of the builders, with its head. If it takes any size, it is
            given 224 px.
        names: sequence of (WordNet identifier, name) or None. The classes of the model, as
            `preprocessing.class_names` returns them. Defaults to None, those that are told by their
            number alone.
    """

    def classify(pixels: np.ndarray) -> np.ndarray:
        # One image at a time comes, and the first is not to wait for a graph to be traced.
        scores = model(pixels.astype("float32"), training=False)
        return keras.ops.convert_to_numpy(scores)

    pairs = names or class_names(model.output_shape[-1])
    return Classifier(
        classify,
        model.input_shape[1] or 224,
        [name for _, name in pairs],
        partial(grad_cam, model),
    )


def classifier_of_artifact(folder: str | Path) -> Classifier:
    """Makes a classifier, without Grad-CAM, of what `export` wrote.

    Args:
        folder: str or path. Of the artifact.

    Raises:
        ImportError: If its runtime is not installed.
        ValueError: If the folder holds no artifact.
    """
    artifact = Artifact(folder)
    return Classifier(
        lambda pixels: artifact(pixels)["probabilities"], artifact.size, artifact.names
    )


def answer(classifier: Classifier, upload: str | Path, top: int = 5) -> Answer:
    """Classifies an uploaded file.

    Args:
        classifier: Classifier.
        upload: str or path. Any file at all.
        top: int. How many classes to name. Defaults to 5.

    Raises:
        UploadError: If the file is empty, too large in bytes or in pixels, damaged or no picture.
            None of its pixels is decoded before its size is known to be modest.
    """
    started = time.perf_counter()
    picture, notice = _opened(Path(upload))
    seen = square(picture, classifier.size)
    (scores,) = classifier.classify(seen[None])
    best = np.argsort(-scores, kind="stable")[:top]
    heat = classifier.saliency and classifier.saliency(seen[None], best[:1].tolist())[0]
    seconds = time.perf_counter() - started
    # What a network of a few pixels sees is shown in squares, but the heat on a sharp picture.
    times = max(1, WARP_FROM // classifier.size)
    sharp = seen if times == 1 else square(picture, WARP_FROM - 1)
    return Answer(
        {_name(classifier.names, index): float(scores[index]) for index in best},
        Image.fromarray(seen.repeat(times, axis=0).repeat(times, axis=1)),
        None if heat is None else overlay(sharp, heat),
        seconds,
        notice,
    )


def _name(names: Sequence[str], index: int) -> str:
    """The name of a class; ImageNet has two cranes, which are told apart by their number."""
    name = names[index]
    shown = name.replace("_", " ")
    return shown if names.count(name) == 1 else f"{shown} (class {index})"


def _opened(path: Path) -> Picture:
    """Decodes an upload, once it has passed all checks."""
    name = name_of(path.name)
    size = path.stat().st_size
    if size == 0:
        raise UploadError(f"{name} is empty. Choose another picture.")
    if size > MOST_BYTES:
        raise UploadError(
            f"{name} is too large: {MOST_BYTES >> 20} MB are the most, and "
            f"{math.ceil(size / 2**20 * 10) / 10:,} MB came. Choose a smaller picture."
        )
    try:
        return read_picture(path, name, MOST_PIXELS)
    except TooManyPixelsError as error:
        raise UploadError(
            f"{name} has too many pixels: {MOST_PIXELS // 10**6} million are the most. Choose a "
            "smaller picture."
        ) from error
    except (ImageError, OSError) as error:
        raise UploadError(str(error)) from error
