"""Measures a detector of rotated boxes, and writes what it finds for DOTA's server."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np

from keras_convnext.data.errors import DataError
from keras_convnext.detection.rotated.objects import RotatedObjects, RotatedPicture
from keras_convnext.detection.rotated.prediction import (
    OVERLAP,
    TILE,
    RotatedDetections,
    detect_rotated,
)
from keras_convnext.detection.rotated.scores import RotatedScores, scores_of_rotated
from keras_convnext.detection.weights import classes_of_model
from keras_convnext.printable import printable


def evaluate_rotated(
    model: keras.Model,
    objects: RotatedObjects,
    *,
    tile: int = TILE,
    overlap: int = OVERLAP,
    results: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> RotatedScores:
    """Measures the average precision of a detector of rotated boxes by DOTA's rule.

    The figures of the published tables are measured by DOTA's server on the test images, whose
    labels are not public. Figures on the validation images are another quantity.

    Example:

    ```python
    scores = evaluate_rotated(model, open_rotated("DOTA", "validation"))
    scores.eleven_points["AP50"]
    ```

    Args:
        model: keras.Model. Made by `RotatedRetinaNet`.
        objects: RotatedObjects. The scenes and their objects.
        tile: int. As in `detect_rotated`. Defaults to 1024.
        overlap: int. As in `detect_rotated`. Defaults to 512.
        results: str, path or None. A file for the detections of each image, in lines of JSON. The
            same call continues after the last complete line. Defaults to None.
        progress: function or None. Called with the number of images done, and of all.

    Returns:
        `RotatedScores`.

    Raises:
        DataError: If an image is broken, or `results` is of other images.
        ValueError: If the model has another number of classes than the data.
    """
    classes = classes_of_model(model)
    if classes != len(objects.classes):
        raise ValueError(
            f"The model has {classes} classes, but the data has {len(objects.classes)}. "
            f"Received: {printable(objects.source)}"
        )
    path = None if results is None else Path(results)
    found = [] if path is None else _done(path, objects)
    for picture in objects.pictures[len(found) :]:
        found.append(detect_rotated(model, picture.path, tile=tile, overlap=overlap))
        if path is not None:
            with path.open("a", encoding="utf-8") as file:
                file.write(_as_line(picture, found[-1]))
        if progress is not None:
            progress(len(found), len(objects.pictures))
    return scores_of_rotated(objects, found)


def write_submission(
    folder: str | Path,
    names: Sequence[str],
    found: Sequence[RotatedDetections],
    classes: Sequence[str],
) -> list[Path]:
    """Writes detections in the format of task 1 of DOTA's server.

    Args:
        folder: str or path. Gets a file `Task1_{class}.txt` for each class, with a line
            `image score x1 y1 x2 y2 x3 y3 x4 y4` for each detection. Characters other than those
            of DOTA's names become `_`, and names that are the same by then are numbered.
        names: sequence of str. Names of the images, without suffixes.
        found: sequence of RotatedDetections. Of these images.
        classes: sequence of str. Names of the classes.

    Returns:
        List of the paths of the files.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for label, name in enumerate(classes):
        lines = []
        for image, own in zip(names, found):
            of_class = own.labels == label
            for score, points in zip(own.scores[of_class], own.points()[of_class]):
                numbers = " ".join(f"{value:.2f}" for value in points.ravel())
                lines.append(f"{image} {score:.6f} {numbers}\n")
        # Names may come from strangers.
        stem = f"Task1_{re.sub(r'[^A-Za-z0-9-]+', '_', name)[:80]}"
        path = folder / f"{stem}.txt"
        paths.append(path if path not in paths else folder / f"{stem}_{label}.txt")
        paths[-1].write_text("".join(lines), encoding="utf-8")
    return paths


def _as_line(picture: RotatedPicture, found: RotatedDetections) -> str:
    own = [each.tolist() for each in (found.boxes, found.scores, found.labels)]
    return json.dumps([picture.name, *found.size, *own]) + "\n"


def _done(path: Path, objects: RotatedObjects) -> list[RotatedDetections]:
    """Returns the detections of the images that an interrupted call has finished."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    done = [json.loads(line) for line in whole]
    names = [picture.name for picture in objects.pictures]
    if [each[0] for each in done] != names[: len(done)]:
        raise DataError(
            f"These are the detections of other images: delete the file (file: {printable(path)})"
        )
    if len(whole) < len(lines):
        path.write_text("".join(whole), encoding="utf-8")
    return [
        RotatedDetections(
            np.array(boxes, np.float32).reshape(-1, 5), np.array(scores, np.float32),
            np.array(labels, np.int32), (height, width),
        )
        for _, height, width, boxes, scores, labels in done
    ]  # fmt: skip
