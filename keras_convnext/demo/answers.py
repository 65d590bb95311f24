"""Classifies or segments an uploaded file, or finds its objects. Uploads are untrusted."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from PIL import Image

from keras_convnext.demo.decoder import Squares, squares
from keras_convnext.demo.decoder import UploadError as UploadError
from keras_convnext.detection.drawing import draw_detections
from keras_convnext.detection.names import names_of_classes as names_of_objects
from keras_convnext.detection.prediction import Detections, detect
from keras_convnext.detection.weights import classes_of_model
from keras_convnext.export import Artifact
from keras_convnext.export.artifact import task_of_artifact
from keras_convnext.pictures import name_of
from keras_convnext.preprocessing import WARP_FROM, class_names
from keras_convnext.printable import printable
from keras_convnext.saliency import grad_cam, overlay
from keras_convnext.segmentation.colors import colors_of_classes, names_of_classes
from keras_convnext.segmentation.inference import with_logits

THRESHOLDS = tuple(tenth / 10 for tenth in range(1, 10))  # of the scores of objects
SIZE_OF_DETECTOR = 640  # px


class Classifier(NamedTuple):
    """The network behind the page: a live model or an exported one.

    Args:
        classify: callable. Takes uint8 pixels (N, size, size, 3) and returns probabilities
            (N, classes).
        size: int. Side of the images, in pixels.
        names: sequence of str. Class names, in order.
        saliency: callable or None. Takes the same pixels and one class index per image, and
            returns floats (N, size, size) in 0..1, as `grad_cam` does. Defaults to None: no heat
            maps.
        least_probability: float or None. As in `predict_files`. Defaults to None.
    """

    classify: Callable[[np.ndarray], np.ndarray]
    size: int
    names: Sequence[str]
    saliency: Callable[[np.ndarray, Sequence[int]], np.ndarray] | None = None
    least_probability: float | None = None


class Segmenter(NamedTuple):
    """The network behind a page that shows the class of each pixel.

    Args:
        segment: callable. Takes uint8 pixels (size, size, 3) and returns ints (size, size), the
            class of each pixel.
        size: int. Side of the images, in pixels.
        names: sequence of str. Class names, in order.
        colors: uint8 array (classes, 3). Their colors.
    """

    segment: Callable[[np.ndarray], np.ndarray]
    size: int
    names: Sequence[str]
    colors: np.ndarray


class Detector(NamedTuple):
    """The network behind a page that shows the objects in a picture.

    Args:
        find: callable. Takes uint8 pixels (size, size, 3) and returns `Detections`.
        size: int. Side of the images, in pixels.
        names: sequence of str. Class names, in order.
    """

    find: Callable[[np.ndarray], Detections]
    size: int
    names: Sequence[str]


Served = Classifier | Segmenter | Detector


class Drawn(NamedTuple):
    """A picture with the objects whose scores are at least a threshold.

    Args:
        threshold: float. The least one of `THRESHOLDS` at which these are the objects.
        picture: PIL image.
    """

    threshold: float
    picture: Image.Image


class Answer(NamedTuple):
    """The result for an upload.

    Args:
        labels: dict of str to float. Class names and probabilities, the most probable first; of a
            segmenter, their shares of the picture; of a detector, the best scores.
        seen: PIL image. The pixels that the network received.
        where: PIL image or None. The same part of the picture with a heat map of the most probable
            class, or the color of the class of each pixel of `seen`; None if a classifier has no
            `saliency`.
        seconds: float. Time from the file to the labels and the heat map.
        notice: str. A note if parts of the file were ignored or scaled; usually empty.
        none_of_these: bool. As in `Prediction`.
        drawn: sequence of Drawn. The objects that a detector found, by rising thresholds.
    """

    labels: dict[str, float]
    seen: Image.Image
    where: Image.Image | None
    seconds: float
    notice: str = ""
    none_of_these: bool = False
    drawn: Sequence[Drawn] = ()


def classifier_of(
    model: keras.Model,
    names: Sequence[tuple[str, str]] | None = None,
    least_probability: float | None = None,
) -> Classifier:
    """Creates a classifier with Grad-CAM from a live model.

    Args:
        model: keras.Model. Built by one of the builders, with its head. If it takes any size, the
            page uses 224 px.
        names: sequence of (WordNet identifier, name) or None. The classes of the model, as
            returned by `preprocessing.class_names`. Defaults to None: the names that
            `class_names` returns for the number of classes.
        least_probability: float or None. As in `predict_files`. Defaults to None.
    """

    def classify(pixels: np.ndarray) -> np.ndarray:
        # Called eagerly: images come one at a time, and tracing would delay the first.
        scores = model(pixels.astype("float32"), training=False)
        return keras.ops.convert_to_numpy(scores)

    pairs = names or class_names(model.output_shape[-1])
    return Classifier(
        classify,
        model.input_shape[1] or 224,
        [name for _, name in pairs],
        partial(grad_cam, model),
        least_probability,
    )


def segmenter_of(
    model: keras.Model, names: Sequence[str] = (), colors: np.ndarray | None = None, size: int = 512
) -> Segmenter:
    """Creates a segmenter for the page from a live model.

    Args:
        model: keras.Model. Made by `segmentation.UperNet`.
        names: sequence of str. Class names. Defaults to those of `names_of_classes`.
        colors: uint8 array (classes, 3) or None. Their colors. Defaults to None, for
            `colors_of_classes`.
        size: int. Side of the squares that are segmented, in pixels, for a model of any size.
            Defaults to 512.
    """
    predict, classes = with_logits(model), model.output_shape[-1]
    return Segmenter(
        lambda pixels: predict(pixels[None])[0].argmax(axis=-1),
        model.input_shape[1] or size,
        names_of_classes(classes, names),
        colors_of_classes(classes) if colors is None else colors,
    )


def detector_of(model: keras.Model, names: Sequence[str] = (), size: int | None = None) -> Detector:
    """Creates a detector for the page from a live model.

    Args:
        model: keras.Model. Made by `detection.MaskRCNN` or `detection.CascadeMaskRCNN`.
        names: sequence of str. Class names. Defaults to those of `names_of_classes`.
        size: int or None. Side of the squares in which objects are found, in pixels. Defaults to
            None, for that of the model, or 640 for a model of any size.
    """

    def find(pixels: np.ndarray) -> Detections:
        return detect(model, pixels, scale=None)

    fixed = next(each for each in model.inputs if each.name == "images").shape[1]
    side = size or fixed or SIZE_OF_DETECTOR
    find(np.zeros((side, side, 3), np.uint8))  # tracing takes seconds
    return Detector(find, side, names_of_objects(classes_of_model(model), names))


def network_of_artifact(folder: str | Path) -> Served:
    """Creates the network for the page from an exported one, without Grad-CAM.

    Args:
        folder: str or path. Folder written by `export`.

    Returns:
        Classifier, Segmenter or Detector.

    Raises:
        ImportError: If the runtime of the format is not installed.
        ValueError: If the folder contains no exported network, or one of rotated boxes.
    """
    task = task_of_artifact(folder)
    if task not in _OF_ARTIFACTS:
        raise ValueError(
            f"The page shows networks for {', '.join(_OF_ARTIFACTS)}. "
            f"Received: {printable(folder)}, for {printable(task)}"
        )
    return _OF_ARTIFACTS[task](Artifact(folder))


def _exported_classifier(artifact: Artifact) -> Classifier:
    return Classifier(
        lambda pixels: artifact(pixels)["probabilities"], artifact.size, artifact.names
    )


def _exported_segmenter(artifact: Artifact) -> Segmenter:
    return Segmenter(
        lambda pixels: artifact(pixels[None])["classes"][0],
        artifact.size,
        artifact.names,
        colors_of_classes(len(artifact.names)),
    )


def _exported_detector(artifact: Artifact) -> Detector:
    def find(pixels: np.ndarray) -> Detections:
        found = {name: value[0] for name, value in artifact(pixels[None]).items()}
        count = int(found.pop("num_detections"))
        best = {name: value[:count] for name, value in found.items()}
        return Detections(**{"masks": None, **best}, size=(pixels.shape[0], pixels.shape[1]))

    return Detector(find, min(artifact.size, SIZE_OF_DETECTOR), artifact.names)


_OF_ARTIFACTS: dict[str, Callable[[Artifact], Served]] = {  # by task
    "classification": _exported_classifier,
    "segmentation": _exported_segmenter,
    "detection": _exported_detector,
}


def answer(network: Served, upload: str | Path, top: int = 5) -> Answer:
    """Classifies or segments an uploaded file, or finds its objects.

    Args:
        network: Classifier, Segmenter or Detector.
        upload: str or path. Any file, untrusted.
        top: int. Number of classes to return. Defaults to 5.

    Raises:
        UploadError: If the file is empty, too large in bytes or pixels, damaged, or not a picture.
            The size is checked before any pixel is decoded.
    """
    with Path(upload).open("rb") as file:
        return answered(network, squares(file, name_of(Path(upload).name), network.size), top)


def answered(network: Served, picture: Squares, top: int = 5) -> Answer:
    """Classifies or segments a decoded picture or finds its objects, as `answer` does."""
    if isinstance(network, Detector):
        return _detected(network, picture, top)
    if isinstance(network, Segmenter):
        return _segmented(network, picture, top)
    return _classified(network, picture, top)


def _segmented(segmenter: Segmenter, picture: Squares, top: int) -> Answer:
    started = time.perf_counter()
    seen, _, notice, seconds = picture
    classes = segmenter.segment(seen)
    shares = np.bincount(classes.ravel(), minlength=len(segmenter.names)) / classes.size
    seconds += time.perf_counter() - started
    best = [index for index in np.argsort(-shares, kind="stable")[:top] if shares[index]]
    return Answer(
        {_name(segmenter.names, index): float(shares[index]) for index in best},
        Image.fromarray(seen),
        Image.fromarray(segmenter.colors[classes]),
        seconds,
        notice,
    )


def _detected(detector: Detector, picture: Squares, top: int) -> Answer:
    started = time.perf_counter()
    seen, _, notice, seconds = picture
    image, found = Image.fromarray(seen), detector.find(seen)
    drawn, shown = [], -1
    for threshold in THRESHOLDS:
        count = int((found.scores >= threshold).sum())
        if count != shown:
            drawn.append(Drawn(threshold, draw_detections(image, found, detector.names, threshold)))
        shown = count
    seconds += time.perf_counter() - started
    best: dict[str, float] = {}
    for label, score in zip(found.labels.tolist(), found.scores.tolist()):  # best first
        best.setdefault(_name(detector.names, label), score)
    return Answer(
        dict(list(best.items())[:top]), image, drawn[0].picture, seconds, notice, drawn=drawn
    )


def _classified(classifier: Classifier, picture: Squares, top: int) -> Answer:
    started = time.perf_counter()
    seen, sharp, notice, seconds = picture
    (scores,) = classifier.classify(seen[None])
    best = np.argsort(-scores, kind="stable")[:top]
    heat = classifier.saliency and classifier.saliency(seen[None], best[:1].tolist())[0]
    seconds += time.perf_counter() - started
    times = max(1, WARP_FROM // classifier.size)
    return Answer(
        {_name(classifier.names, index): float(scores[index]) for index in best},
        Image.fromarray(seen.repeat(times, axis=0).repeat(times, axis=1)),
        None if heat is None else overlay(sharp, heat),
        seconds,
        notice,
        bool(scores.max() < (classifier.least_probability or 0)),
    )


def _name(names: Sequence[str], index: int) -> str:
    """Returns the name of a class, with its index if it is not unique: ImageNet has two cranes."""
    name = names[index]
    shown = printable(name.replace("_", " "))
    return shown if names.count(name) == 1 else f"{shown} (class {index})"
