"""What `predict` and `evaluate` do with a detector."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_convnext.cli.application import Reading
from keras_convnext.cli.loading import load_network
from keras_convnext.cli.terminal import Bar, note, number, track, write, write_json, write_table

if TYPE_CHECKING:
    from PIL.Image import Image

    from keras_convnext.demo.answers import Detector


def detect_objects(
    paths: Sequence[Path],
    weights: str,
    model: str | None,
    file: Path,
    reading: Reading,
    shown: Callable[[Path], Path],
    threshold: float,
    as_json: bool,
    picture: Path | None,
    most: int,
) -> bool:
    """Finds the objects in files, and prints or draws them.

    Args:
        paths: sequence of path.
        weights: str. The option --weights.
        model: str or None. The option --model.
        file: path. The file of the weights.
        reading: Reading. The options that select weights in a file.
        shown: function. Returns the path to show for a file.
        threshold: float. The lowest score to show.
        as_json: bool. Whether to print JSON.
        picture: path or None. Where to draw the first files.
        most: int. Number of files in the picture, at most.

    Returns:
        Whether all files could be read.
    """
    import numpy as np
    from PIL.Image import Image, fromarray

    from keras_convnext.detection.drawing import draw_detections
    from keras_convnext.detection.masks import encode_rle
    from keras_convnext.detection.names import names_of_classes
    from keras_convnext.detection.prediction import detect
    from keras_convnext.detection.weights import classes_of_model
    from keras_convnext.pictures import ImageError, open_image
    from keras_convnext.pretrained.record import read_record

    network = load_network(weights, model, {}, reading)
    names = names_of_classes(classes_of_model(network), read_record(file).classes)
    scale = scale_of(file)
    results: list[dict[str, object]] = []
    drawn: list[Image] = []
    is_whole = True
    for path in track(paths, "Detecting", "images", len(paths)):
        try:
            pixels = np.asarray(open_image(path))
        except (ImageError, OSError) as error:
            note(str(error).replace(str(path), str(shown(path))), "red")
            is_whole = False
            continue
        found = detect(network, pixels, scale=scale)
        if picture and len(drawn) < most:
            drawn.append(draw_detections(fromarray(pixels), found, names, threshold))
        objects: list[dict[str, Any]] = [
            {
                "name": names[found.labels[index]],
                "score": float(found.scores[index]),
                "box": [float(value) for value in found.boxes[index]],
                **({"mask": encode_rle(found.mask(index))} if found.masks is not None else {}),
            }
            for index in np.flatnonzero(found.scores >= threshold).tolist()
        ]
        if as_json:
            results.append({"file": str(shown(path)), "objects": objects})
            continue
        write(str(shown(path)))
        for each in objects:
            corners = ", ".join(f"{value:.0f}" for value in each["box"])
            write(f"  {100 * each['score']:5.1f}%  {each['name']}  ({corners})")
    if as_json:
        write_json(results)
    if picture and drawn:
        save_drawn(drawn, picture, len(paths) > most)
    return is_whole


def save_drawn(drawn: Sequence["Image"], picture: Path, are_first: bool) -> None:
    """Saves pictures below one another, and says whether they are only those of the first files."""
    from keras_convnext.pictures import below_one_another

    below_one_another(drawn).save(picture)
    more = f" (the first {len(drawn)})" if are_first else ""
    note(f"Wrote {picture}{more}")


def served_detector(
    weights: str, model: str | None, file: Path, size: int | None, reading: Reading
) -> "Detector":
    """Returns a detector for the page, as `served_segmenter` does a segmenter."""
    from keras_convnext.demo.answers import SIZE_OF_DETECTOR, detector_of
    from keras_convnext.pretrained.record import recorded_names

    network = load_network(weights, model, {}, reading)
    side = size or min(SIZE_OF_DETECTOR, *scale_of(file))
    return detector_of(network, recorded_names(file), side)


def scale_of(file: Path) -> tuple[int, int]:
    """Returns the longest and shortest side of images that a file records, or the published."""
    from keras_convnext.detection.prediction import SCALE
    from keras_convnext.pretrained.record import read_record

    longest, shortest = read_record(file).preprocessing.get("scale") or SCALE
    return longest, shortest


def evaluate_detector(
    data: str,
    split: str | None,
    weights: str,
    model: str | None,
    file: Path,
    reading: Reading,
    output: Path | None,
    as_json: bool,
) -> None:
    """Measures the average precision, and prints it with that of each class.

    Args:
        data: str. As in `open_objects`.
        split: str or None. Split of the data.
        weights: str. The option --weights.
        model: str or None. The option --model.
        file: path. The file of the weights.
        reading: Reading. The options that select weights in a file.
        output: path or None. Folder for the detections.
        as_json: bool. Whether to print JSON.
    """
    from keras_convnext.data.errors import DataError
    from keras_convnext.detection.evaluation import FIGURES, evaluate
    from keras_convnext.detection.splits import open_objects
    from keras_convnext.pretrained.record import read_record

    is_file = Path(data).is_file()
    objects = open_objects(data, split or ("train" if is_file else "validation"))
    note(f"{data}: {objects.summary()}")
    recorded = read_record(file)
    if recorded.classes and recorded.classes != objects.classes:
        raise DataError(
            "The data must have the categories that the detector was trained on. "
            f"Received: {', '.join(objects.classes[:5])} ({objects.source}), but the weights have "
            f"{', '.join(recorded.classes[:5])}"
        )
    network = load_network(weights, model, {}, reading)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
    results = None if output is None else output / "results.json"
    total = len(objects.pictures)
    with Bar("Evaluating", "images") as bar:
        scores = evaluate(
            network,
            objects,
            scale=scale_of(file),
            results=results,
            progress=lambda done: bar.update(done, total),
        )
    kinds = {"box": scores.box, "mask": scores.mask}
    of_class = {"box": scores.box_of_class, "mask": scores.mask_of_class}
    measured = [kind for kind, figures in kinds.items() if figures is not None]
    if as_json:
        write_json({
            "images": total,
            **{kind: numbers(kinds[kind] or {}) for kind in measured},
            "classes": [
                {"name": name, **{kind: number((of_class[kind] or {})[name]) for kind in measured}}
                for name in objects.classes
            ],
        })  # fmt: skip
    else:
        rows = [
            (name, *(percent((kinds[kind] or {})[name]) for kind in measured)) for name in FIGURES
        ]
        write_table(("", *measured), rows, measured)
        write("")
        by_class = [
            (name, *(percent((of_class[kind] or {})[name]) for kind in measured))
            for name in objects.classes
        ]
        write_table(("AP of class", *measured), by_class, measured)
    if results is not None:
        note(f"Wrote {results}")


def numbers(figures: dict[str, float]) -> dict[str, float | None]:
    """Returns figures for JSON."""
    return {name: number(value) for name, value in figures.items()}


def percent(value: float) -> str:
    """Returns a figure in percent, or nothing for one that is not defined."""
    return "" if math.isnan(value) else f"{100 * value:.1f}"
