"""What `predict` and `evaluate` do with a detector of rotated boxes."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from keras_convnext.cli.application import Reading
from keras_convnext.cli.detecting import numbers, percent, save_drawn
from keras_convnext.cli.loading import load_network
from keras_convnext.cli.terminal import Bar, note, track, write, write_json, write_table


def detect_rotated_objects(
    paths: Sequence[Path],
    weights: str,
    model: str | None,
    file: Path,
    reading: Reading,
    shown: Callable[[Path], Path],
    threshold: float,
    as_json: bool,
    picture: Path | None,
    submission: Path | None,
    most: int,
) -> bool:
    """Finds the rotated objects in files, and prints, draws or submits them.

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
        submission: path or None. Folder for files of DOTA's server, with all detections.
        most: int. Number of files in the picture, at most.

    Returns:
        Whether all files could be read.
    """
    from PIL import Image

    from keras_convnext.data.errors import DataError
    from keras_convnext.detection.rotated.drawing import draw_rotated
    from keras_convnext.detection.rotated.evaluation import write_submission
    from keras_convnext.detection.rotated.prediction import RotatedDetections, detect_rotated
    from keras_convnext.pretrained.record import read_record

    network = load_network(weights, model, {}, reading)
    names = _names_of(network, read_record(file).classes)
    tile, overlap = _tiles_of(file)
    results: list[dict[str, object]] = []
    drawn: list[Image.Image] = []
    submitted: list[tuple[str, RotatedDetections]] = []
    is_whole = True
    for path in track(paths, "Detecting", "images", len(paths)):
        try:
            every = detect_rotated(network, path, tile=tile, overlap=overlap)
        except DataError as error:
            note(str(error).replace(str(path), str(shown(path))), "red")
            is_whole = False
            continue
        if submission is not None:
            submitted.append((shown(path).stem, every))
        if picture and len(drawn) < most:
            drawn.append(draw_rotated(path, every, names, threshold))
        found = every.above(threshold)
        objects: list[dict[str, Any]] = [
            {"name": names[label], "score": score, "box": box, "points": points}
            for label, score, box, points in zip(
                found.labels.tolist(), found.scores.tolist(), found.boxes.tolist(),
                found.points().tolist(),
            )
        ]  # fmt: skip
        if as_json:
            results.append({"file": str(shown(path)), "objects": objects})
            continue
        write(str(shown(path)))
        for each in objects:
            cx, cy, w, h, angle = each["box"]
            place = f"({cx:.0f}, {cy:.0f}) {w:.0f} x {h:.0f} px, {math.degrees(angle):.0f}°"
            write(f"  {100 * each['score']:5.1f}%  {each['name']}  {place}")
    if as_json:
        write_json(results)
    if picture and drawn:
        save_drawn(drawn, picture, len(paths) > most)
    if submission is not None:
        images, detections = [name for name, _ in submitted], [each for _, each in submitted]
        write_submission(submission, images, detections, names)
        note(f"Wrote {submission}")
    return is_whole


def evaluate_rotated_detector(
    data: str,
    split: str | None,
    weights: str,
    model: str | None,
    file: Path,
    reading: Reading,
    output: Path | None,
    as_json: bool,
) -> None:
    """Measures the average precision by DOTA's rule, and prints it with that of each class.

    Args:
        data: str. As in `open_rotated`.
        split: str or None. Split of the data.
        weights: str. The option --weights.
        model: str or None. The option --model.
        file: path. The file of the weights.
        reading: Reading. The options that select weights in a file.
        output: path or None. Folder for the detections.
        as_json: bool. Whether to print JSON.
    """
    from keras_convnext.detection.rotated.evaluation import evaluate_rotated
    from keras_convnext.detection.rotated.folders import open_rotated
    from keras_convnext.detection.rotated.scores import FIGURES
    from keras_convnext.pretrained.record import read_record

    network = load_network(weights, model, {}, reading)
    names = _names_of(network, read_record(file).classes)
    objects = open_rotated(data, split or "validation", names)
    note(f"{data}: {objects.summary()}")
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
    tile, overlap = _tiles_of(file)
    with Bar("Evaluating", "images") as bar:
        scores = evaluate_rotated(
            network, objects, tile=tile, overlap=overlap,
            results=None if output is None else output / "detections.jsonl",
            progress=bar.update,
        )  # fmt: skip
    if as_json:
        write_json({
            "images": len(objects.pictures),
            "eleven_points": numbers(scores.eleven_points),
            "area": numbers(scores.area),
            "classes": numbers(scores.of_class),
        })  # fmt: skip
        return
    rows = [
        (name, percent(scores.eleven_points[name]), percent(scores.area[name])) for name in FIGURES
    ]
    write_table(("", "11 points", "area"), rows, ("11 points", "area"))
    write("")
    by_class = [(name, percent(value)) for name, value in scores.of_class.items()]
    write_table(("AP50 of class", "11 points"), by_class, ("11 points",))


def _names_of(network: Any, recorded: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of the classes: those that a file records, or else DOTA's."""
    from keras_convnext.detection.rotated.objects import names_of_rotated
    from keras_convnext.detection.weights import classes_of_model

    return names_of_rotated(classes_of_model(network), recorded)


def _tiles_of(file: Path) -> tuple[int, int]:
    """Returns the side and the overlap of tiles that a file records, or those published."""
    from keras_convnext.detection.rotated.prediction import OVERLAP, TILE
    from keras_convnext.pretrained.record import read_record

    own = read_record(file).preprocessing
    return own.get("tile", TILE), own.get("overlap", OVERLAP)
