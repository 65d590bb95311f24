"""Average precision by COCO's rules, computed by pycocotools."""

import contextlib
import io
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_convnext.data.errors import DataError
from keras_convnext.detection.masks import encode_rle
from keras_convnext.detection.objects import Objects, Picture, coco_tools, mask_of
from keras_convnext.detection.prediction import SCALE, Detections, detect
from keras_convnext.detection.weights import classes_of_model
from keras_convnext.pictures import ImageError, open_image
from keras_convnext.printable import printable

FIGURES = (
    "AP", "AP50", "AP75", "AP small", "AP medium", "AP large",
    "AR1", "AR10", "AR100", "AR small", "AR medium", "AR large",
)  # fmt: skip


class Scores(NamedTuple):
    """The standard figures of COCO, in 0..1; NaN if there is nothing to measure.

    Args:
        box: dict from `FIGURES` to float.
        mask: the same for masks, or None without masks.
        box_of_class: dict from class names to the AP of their boxes.
        mask_of_class: the same for masks, or None.
    """

    box: dict[str, float]
    mask: dict[str, float] | None
    box_of_class: dict[str, float]
    mask_of_class: dict[str, float] | None


def evaluate(
    model: keras.Model,
    objects: Objects,
    *,
    scale: tuple[int, int] | None = SCALE,
    results: str | Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> Scores:
    """Measures the average precision of a detector. Needs pycocotools.

    Example:

    ```python
    objects = read_coco("coco/annotations/instances_val2017.json")
    scores = evaluate(model, objects, results="results.json")
    scores.box["AP"], scores.mask["AP"]
    ```

    Args:
        model: keras.Model. Made by `MaskRCNN` or `CascadeMaskRCNN`.
        objects: Objects. The images and their annotations.
        scale: tuple of int or None. As in `detect`. Defaults to (1333, 800).
        results: str, path or None. The file to write the detections to, in the format of COCO's
            server. While it is measured, `results` with the suffix `.partial` has a line per image,
            and the same call continues after the last complete one. Defaults to None.
        progress: function or None. Called with the number of images after each.

    Returns:
        `Scores`.

    Raises:
        DataError: If an image is broken or has another size than its annotation says.
        ImportError: If pycocotools is not installed.
        ValueError: If the model has another number of classes than the data.
    """
    coco_tools("cocoeval", "Scores of detectors")
    classes = classes_of_model(model)
    if classes != len(objects.classes):
        raise ValueError(
            f"The model has {classes} classes, but the data has {len(objects.classes)}. "
            f"Received: {printable(objects.source)}"
        )
    found: list[dict[str, Any]] = []
    partial = None if results is None else Path(results).with_suffix(".partial")
    done = [] if partial is None else _done(partial, objects)
    for own in done:
        found += own
    with contextlib.ExitStack() as stack:
        log = None if partial is None else stack.enter_context(partial.open("a", encoding="utf-8"))
        for number, picture in enumerate(objects.pictures[len(done) :], len(done) + 1):
            detections = detect(model, pixels_of(picture), scale=scale)
            own = results_of(detections, picture, objects)
            found += own
            if log is not None:
                log.write(json.dumps([picture.id, own]) + "\n")
                log.flush()
            if progress is not None:
                progress(number)
    if results is not None and partial is not None:
        partial.write_text(json.dumps(found), encoding="utf-8")
        os.replace(partial, results)
    return scores_of(objects, found)


def pixels_of(picture: Picture) -> np.ndarray:
    """Reads an image.

    Raises:
        DataError: If it is broken or has another size than its annotation says.
    """
    name = picture.title
    try:
        pixels = np.asarray(open_image(picture.source()))
    except (ImageError, OSError) as error:
        raise DataError(f"{error} (file: {name})") from error
    if pixels.shape[:2] != (picture.height, picture.width):
        raise DataError(
            f"The image has {pixels.shape[1]} x {pixels.shape[0]} pixels, but according to its "
            f"annotation {picture.width} x {picture.height} (file: {name})"
        )
    return pixels


def results_of(detections: Detections, picture: Picture, objects: Objects) -> list[dict[str, Any]]:
    """Returns the detections of an image in the format of COCO's server."""
    results = []
    for index, (box, score, label) in enumerate(
        zip(detections.boxes.tolist(), detections.scores.tolist(), detections.labels.tolist())
    ):
        x1, y1, x2, y2 = box
        result = {
            "image_id": picture.id,
            "category_id": objects.category_ids[label],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": score,
        }
        if detections.masks is not None:
            result["segmentation"] = encode_rle(detections.mask(index))
        results.append(result)
    return results


def scores_of(objects: Objects, results: Sequence[dict[str, Any]]) -> Scores:
    """Measures detections in the format of COCO's server.

    Args:
        objects: Objects. The annotations.
        results: sequence of dicts. As returned by `results_of`; masks are measured if they have
            them.

    Raises:
        ImportError: If pycocotools is not installed.
    """
    has_masks = bool(results) and all("segmentation" in each for each in results)
    masks = _measured(objects, results, "segm") if has_masks else (None, None)
    box, box_of_class = _measured(objects, results, "bbox")
    return Scores(box, masks[0], box_of_class, masks[1])


def _measured(
    objects: Objects, results: Sequence[dict[str, Any]], kind: str
) -> tuple[dict[str, float], dict[str, float]]:
    evaluation = coco_tools("cocoeval", "Scores of detectors")
    truth = _as_coco({
        "images": [
            {"id": each.id, "height": each.height, "width": each.width} for each in objects.pictures
        ],
        "annotations": list(_truth(objects, kind)),
        "categories": [
            {"id": number, "name": name}
            for number, name in zip(objects.category_ids, objects.classes)
        ],
    })  # fmt: skip
    with contextlib.redirect_stdout(io.StringIO()):  # it prints
        own = [{key: each[key] for key in each if kind == "segm" or key != "segmentation"}
               for each in results]  # fmt: skip
        if kind == "segm":  # areas are those of the masks
            own = [{key: each[key] for key in each if key != "bbox"} for each in own]
        found = truth.loadRes(own) if own else _as_coco({**truth.dataset, "annotations": []})
        measured = evaluation.COCOeval(truth, found, kind)
        measured.evaluate()
        measured.accumulate()
        measured.summarize()
    figures = {name: _or_nan(value) for name, value in zip(FIGURES, measured.stats.tolist())}
    precision = measured.eval["precision"][:, :, :, 0, -1]  # (IoU, recall, class)
    of_class = {}
    for label, name in enumerate(objects.classes):
        known = precision[:, :, label][precision[:, :, label] > -1]
        of_class[name] = float(known.mean()) if known.size else float("nan")
    return figures, of_class


def _truth(objects: Objects, kind: str) -> Iterable[dict[str, Any]]:
    """Yields the annotations, with their areas: those of the file, or else of the shapes."""
    number = 0
    for picture in objects.pictures:
        for each in picture.annotations:
            if kind == "segm" and each.shape is None:
                continue
            x1, y1, x2, y2 = each.box
            number += 1
            own: dict[str, Any] = {
                "id": number,  # 0 would count as not matched
                "image_id": picture.id,
                "category_id": objects.category_ids[each.label],
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                "iscrowd": int(each.is_crowd),
                "area": each.area if each.area is not None else (x2 - x1) * (y2 - y1),
            }
            if kind == "segm":
                mask = mask_of(each, picture.height, picture.width)
                own["segmentation"] = encode_rle(mask)
                if each.area is None:
                    own["area"] = float(mask.sum())
            yield own


def _as_coco(dataset: dict[str, Any]) -> Any:
    coco = coco_tools("coco", "Scores of detectors").COCO()
    coco.dataset = dataset
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def _or_nan(value: float) -> float:
    return value if value > -1 else float("nan")


def _done(partial: Path, objects: Objects) -> list[list[dict[str, Any]]]:
    """Returns the detections of the images that an interrupted call has finished."""
    if not partial.exists():
        return []
    lines = partial.read_text(encoding="utf-8").splitlines(keepends=True)
    complete = [line for line in lines if line.endswith("\n")]
    done = [json.loads(line) for line in complete]
    expected = [picture.id for picture in objects.pictures[: len(done)]]
    if [number for number, _ in done] != expected:
        raise DataError(
            "These are the detections of other images: delete the file to begin again "
            f"(file: {partial})"
        )
    if len(complete) < len(lines):
        partial.write_text("".join(complete), encoding="utf-8")
    return [own for _, own in done]
