"""Runs an exported network in its target runtime, and compares it with the live model."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_convnext.call_graph import call_at_inference, graph_of, logits_of
from keras_convnext.detection.weights import is_detector, is_rotated
from keras_convnext.export.detectors import compare_detections
from keras_convnext.export.formats import FORMATS, missing_packages
from keras_convnext.export.rotated import compare_rotated
from keras_convnext.printable import printable

MANIFEST = "export.json"


class Artifact:
    """An exported network, loaded in its target runtime.

    Example:

    ```python
    artifact = keras_convnext.export.Artifact("served/tiny")
    artifact(load_images(["cat.jpg"], artifact.size))["probabilities"]  # (1, 1000)
    ```

    Args:
        folder: str or path. Folder written by `export`.

    Raises:
        ValueError: If the folder contains no exported network.
        ImportError: If the runtime is not installed; the message says how to install it.
    """

    def __init__(self, folder: str | Path) -> None:
        self.manifest = _manifest_of(folder)
        chosen = FORMATS[self.manifest["format"]]
        require(self.manifest["format"])
        self._run = chosen.load(Path(folder) / chosen.file, self.manifest["dtype"])

    @property
    def size(self) -> int:
        """Side of its square images, in pixels.

        Raises:
            ValueError: If the images are not square. Use `image_size` instead.
        """
        height, width = self.image_size
        if height != width:
            raise ValueError(
                "The images are not square: use image_size instead of size. "
                f"Received: image_size={self.image_size}"
            )
        return height

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of its images, in pixels."""
        size = self.manifest["size"]
        height, width = (size, size) if isinstance(size, int) else size
        return height, width

    @property
    def names(self) -> list[str]:
        """Class names, in order."""
        return self.manifest["classes"]

    def __call__(self, pixels: np.ndarray) -> dict[str, np.ndarray]:
        """Classifies or segments a batch, or finds the objects in it.

        Args:
            pixels: array (N, H, W, C), in 0..255.

        Returns:
            dict of arrays: of a classifier `probabilities` and `logits`, each (N, classes), among
            others; of a segmenter `classes` (N, H, W) and `logits` (N, H, W, classes); of a
            detector those that the detector returns.
        """
        return self._run(np.ascontiguousarray(pixels, self.manifest["pixels"]))


def task_of_artifact(folder: str | Path) -> str:
    """Returns the task of an exported network: a name in `tasks.TASKS`.

    Raises:
        ValueError: If the folder contains no exported network.
    """
    return _manifest_of(folder).get("task", "classification")


def _manifest_of(folder: str | Path) -> dict[str, Any]:
    try:
        manifest = json.loads((Path(folder) / MANIFEST).read_text("utf-8"))
        FORMATS[manifest["format"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"The folder contains no exported network: pass a folder with {MANIFEST}, written "
            f"by `keras-convnext export`. Received: {printable(folder)}"
        ) from error
    return manifest


class Difference(NamedTuple):
    """The difference between the outputs of an exported network and of the live model.

    Args:
        error: float. The largest difference, relative to the largest logit or probability. Of a
            detector, the difference that 95 % of the detections do not exceed: of scores, of pixels
            of masks, or of boxes as a share of the longest side.
        same_top1: float in 0..1. Fraction of images with the same most probable class; of a
            segmenter, of pixels; of a detector, of the detections that both have.
        same_top5: float in 0..1 or None. Fraction of images with the same five most probable
            classes, in the same order; None for a segmenter or a detector.
        images: int. Number of images compared.
    """

    error: float
    same_top1: float
    same_top5: float | None
    images: int


def require(name: str) -> None:
    """Checks that the packages of a format are installed.

    Raises:
        ImportError: If not; the message says how to install them.
    """
    if missing := missing_packages(FORMATS[name]):
        raise ImportError(
            f'The format {name} needs {", ".join(missing)}: pip install "keras-convnext[export]"',
            name=missing[0],
        )


def compare(model: keras.Model, artifact: Artifact, images: Sequence[np.ndarray]) -> Difference:
    """Compares the logits of an artifact with those of the live model, called layer by layer.

    On the first batch, the probabilities are also compared with the output of the model itself.

    Args:
        model: keras.Model. A classifier, a segmenter or a detector.
        artifact: Artifact.
        images: sequence of uint8 arrays (H, W, C), of one size unless it is a detector.

    Raises:
        ValueError: If a detector finds nothing in the images.
    """
    if is_detector(model):
        compared = compare_rotated if is_rotated(model) else compare_detections
        error, same, count = compared(model, artifact, images)
        if not count:
            raise ValueError(
                "The detector finds no objects to compare: pass a folder of images with objects "
                f"that it knows. Received: {len(images)} images"
            )
        return Difference(error, same, None, len(images))
    return _compare_batches(model, artifact, np.stack(images))


def _compare_batches(model: keras.Model, artifact: Artifact, images: np.ndarray) -> Difference:
    """Compares a classifier or a segmenter."""
    graph = logits_of(graph_of(model))

    def live(batch: np.ndarray) -> np.ndarray:
        pixels = keras.ops.convert_to_tensor(batch, graph.inputs[0].dtype)
        found = graph.run({graph.inputs[0]: pixels}, call_at_inference)
        return np.asarray(found[graph.outputs[0]])

    if len(graph.outputs[0].shape) == 4:
        return _compare_maps(live, artifact, images)
    batches = [images[start : start + 3] for start in range(0, len(images), 3)]
    ours = np.concatenate([live(batch) for batch in batches])
    answers = [artifact(batch) for batch in batches]
    theirs = np.concatenate([answer["logits"] for answer in answers])
    if not np.isfinite(theirs).all():
        return Difference(float("inf"), 0.0, 0.0, len(images))
    outputs = np.asarray(model(batches[0].astype(graph.inputs[0].dtype), training=False))
    apart = np.abs(outputs - answers[0]["probabilities"]).max() / np.abs(outputs).max()
    same = np.argsort(-ours, kind="stable")[:, :5] == np.argsort(-theirs, kind="stable")[:, :5]
    return Difference(
        float(max(np.abs(ours - theirs).max() / np.abs(ours).max(), apart)),
        float(same[:, 0].mean()),
        float(same.all(axis=1).mean()),
        len(images),
    )


def _compare_maps(
    live: Callable[[np.ndarray], np.ndarray], artifact: Artifact, images: np.ndarray
) -> Difference:
    """Compares a segmenter, one image at a time: the logits of one take up to a gigabyte."""
    errors, same = [], []
    for image in images:
        ours, found = live(image[None]), artifact(image[None])
        theirs = found["logits"]
        if not np.isfinite(theirs).all():
            return Difference(float("inf"), 0.0, None, len(images))
        errors.append(np.abs(ours - theirs).max() / np.abs(ours).max())
        same.append((ours.argmax(axis=-1) == found["classes"]).mean())
    return Difference(float(max(errors)), float(np.mean(same)), None, len(images))
