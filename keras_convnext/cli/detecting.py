"""What `evaluate` does with a detector."""

import math
from pathlib import Path

from keras_convnext.cli.application import Reading
from keras_convnext.cli.loading import load_network
from keras_convnext.cli.terminal import Bar, note, write, write_json, write_table
from keras_convnext.tasks import task_of_file


def is_of_detector(file: Path, reading: Reading) -> bool:
    """Whether a weight file is that of a detector."""
    return task_of_file(file, **reading).__name__.endswith(".detection")


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
    from keras_convnext.detection.prediction import SCALE
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
    scale = tuple(recorded.preprocessing.get("scale") or SCALE)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
    results = None if output is None else output / "results.json"
    total = len(objects.pictures)
    with Bar("Evaluating", "images") as bar:
        scores = evaluate(
            network,
            objects,
            scale=(scale[0], scale[1]),
            results=results,
            progress=lambda done: bar.update(done, total),
        )
    kinds = {"box": scores.box, "mask": scores.mask}
    of_class = {"box": scores.box_of_class, "mask": scores.mask_of_class}
    measured = [kind for kind, figures in kinds.items() if figures is not None]
    if as_json:
        write_json({
            "images": total,
            **{kind: _numbers(kinds[kind] or {}) for kind in measured},
            "classes": [
                {"name": name, **{kind: _number((of_class[kind] or {})[name]) for kind in measured}}
                for name in objects.classes
            ],
        })  # fmt: skip
    else:
        rows = [
            (name, *(_percent((kinds[kind] or {})[name]) for kind in measured)) for name in FIGURES
        ]
        write_table(("", *measured), rows, measured)
        write("")
        by_class = [
            (name, *(_percent((of_class[kind] or {})[name]) for kind in measured))
            for name in objects.classes
        ]
        write_table(("AP of class", *measured), by_class, measured)
    if results is not None:
        note(f"Wrote {results}")


def _numbers(figures: dict[str, float]) -> dict[str, float | None]:
    return {name: _number(value) for name, value in figures.items()}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _percent(value: float) -> str:
    return "" if math.isnan(value) else f"{100 * value:.1f}"
