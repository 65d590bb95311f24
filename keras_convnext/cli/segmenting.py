"""What `predict`, `evaluate` and `demo` do with a segmenter."""

import csv
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from keras_convnext.cli.application import Reading
from keras_convnext.cli.loading import load_network
from keras_convnext.cli.terminal import (
    Bar,
    note,
    number,
    track,
    write,
    write_facts,
    write_json,
    write_table,
)
from keras_convnext.pretrained.catalog import CATALOG

if TYPE_CHECKING:
    import numpy as np

    from keras_convnext.demo.answers import Segmenter
    from keras_convnext.segmentation.prediction import Segmented, Windows
    from keras_convnext.segmentation.recipes import Labels


def served_segmenter(
    weights: str, model: str | None, file: Path, size: int | None, reading: Reading
) -> "Segmenter":
    """Returns a segmenter for the page.

    Args:
        weights: str. The option --weights.
        model: str or None. The option --model.
        file: path. The file of the weights.
        size: int or None. The option --size.
        reading: Reading. The options that select weights in a file.
    """
    from keras_convnext.demo.answers import segmenter_of
    from keras_convnext.pretrained.record import recorded_names

    network = load_network(weights, model, {}, reading)
    colors = _colors(network.output_shape[-1], file)
    return segmenter_of(network, recorded_names(file), colors, size or windows_of_file(file).crop)


def _colors(classes: int, file: Path) -> "np.ndarray":
    """Returns the colors of the classes: those that the file records, or the usual ones."""
    from keras_convnext.pretrained.record import read_record
    from keras_convnext.segmentation.colors import colors_of_classes

    return colors_of_classes(classes, read_record(file).preprocessing.get("colors") or ())


def segment(
    paths: Sequence[Path],
    weights: str,
    model: str | None,
    file: Path,
    reading: Reading,
    shown: Callable[[Path], Path],
    as_json: bool,
    picture: Path | None,
    masks: Path | None,
    most: int,
) -> bool:
    """Segments files, and writes what was asked for.

    Args:
        paths: sequence of path.
        weights: str. The option --weights.
        model: str or None. The option --model.
        file: path. The file of the weights.
        reading: Reading. The options that select weights in a file.
        shown: function. Returns the path to show for a file.
        as_json: bool. Whether to print JSON.
        picture: path or None. Where to draw the first files.
        masks: path or None. Folder for the class maps.
        most: int. Number of files in the picture, at most.

    Returns:
        Whether all files could be read.
    """
    from keras_convnext.pretrained.record import recorded_names
    from keras_convnext.segmentation.prediction import (
        class_map_image,
        draw_segmentations,
        predict_files,
    )

    network = load_network(weights, model, {}, reading)
    colors = _colors(network.output_shape[-1], file)
    targets = _targets(paths, masks) if masks else {}
    kept: list[Segmented] = []
    results: list[dict[str, object]] = []
    is_whole = True
    found = predict_files(network, paths, recorded_names(file), windows_of_file(file))
    for each in track(found, "Segmenting", "images", len(paths)):
        path = shown(each.path)
        is_whole &= each.error is None
        if as_json:
            results.append(_as_json(each, path))
        elif each.areas:
            _write(each, path)
        if each.error:
            note(each.error.replace(str(each.path), str(path)), "red")
        elif each.notice:
            note(f"{path}: {each.notice}")
        if each.classes is not None and masks:
            masks.mkdir(parents=True, exist_ok=True)
            class_map_image(each.classes, colors).save(targets[each.path])
        if picture and len(kept) < most:
            kept.append(each)
    if as_json:
        write_json(results)
    if masks:
        note(f"Wrote {len(targets):,} class maps to {masks}")
    if picture and any(each.classes is not None for each in kept):
        draw_segmentations(kept, picture, colors)
        more = f" (the first {most})" if len(paths) > most else ""
        note(f"Wrote {picture}{more}")
    return is_whole


def evaluate_segmenter(
    data: str,
    split: str | None,
    weights: str,
    model: str | None,
    file: Path,
    reading: Reading,
    scale: str | None,
    labels: tuple[int | None, Sequence[int] | None],
    limit: int | None,
    multi_scale: bool,
    output: Path | None,
    as_json: bool,
) -> None:
    """Measures the mean intersection over union, and prints it with that of each class.

    Args:
        data: str. Folder of images with masks.
        split: str or None. Split of the data.
        weights: str. The option --weights.
        model: str or None. The option --model.
        file: path. The file of the weights.
        reading: Reading. The options that select weights in a file.
        scale: str or None. The option --scale.
        labels: tuple of int or None and ints or None. The options --first-label and
            --ignored-label, which replace what the file records.
        limit: int or None. Number of images.
        multi_scale: bool. Whether to average several scales and flips.
        output: path or None. Folder for the state and the figures.
        as_json: bool. Whether to print JSON.
    """
    from keras_convnext.pretrained.record import recorded_names
    from keras_convnext.segmentation.colors import names_of_classes
    from keras_convnext.segmentation.evaluation import evaluate
    from keras_convnext.segmentation.inference import RATIOS
    from keras_convnext.segmentation.source import open_pairs

    with Bar("Checking the masks", "masks") as bar:
        source = open_pairs(data, split, labels=_labels(file, *labels), progress=bar.update)
    note(f"{data}: {source.meaning.report}")
    network = load_network(weights, model, {}, reading)
    recorded = recorded_names(file)
    windows = windows_of_file(file)
    if scale is not None:
        windows = windows._replace(scale=_scale_of(scale))
    started = time.perf_counter()
    with Bar("Evaluating", "images") as bar:
        scores = evaluate(
            network, source,
            scale=windows.scale, crop=windows.crop, stride=windows.stride,
            ratios=RATIOS if multi_scale else (),
            limit=limit,
            names=recorded if len(recorded) == network.output_shape[-1] else (),
            output=output,
            progress=lambda done, total: bar.update(done, total or done),
        )  # fmt: skip
    seconds = time.perf_counter() - started
    names = names_of_classes(network.output_shape[-1], recorded)
    images = min(source.size, limit or source.size)
    figures = {
        "images": images,
        "mean_iou": scores.mean_iou,
        "pixel_accuracy": scores.pixel_accuracy,
        "class_accuracy": scores.class_accuracy,
        "images_per_second": images / seconds,
        "classes": [
            {"name": name, "iou": number(iou), "accuracy": number(accuracy)}
            for name, iou, accuracy in zip(names, scores.ious, scores.accuracies)
        ],
    }
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        (output / "scores.json").write_text(json.dumps(figures, indent=2) + "\n", "utf-8")
        with open(output / "classes.csv", "w", encoding="utf-8", newline="") as table:
            writer = csv.writer(table)
            writer.writerow(("class", "iou", "accuracy"))
            for label, (iou, accuracy) in enumerate(zip(scores.ious, scores.accuracies)):
                writer.writerow((label, iou, accuracy))
    if as_json:
        write_json(figures)
        return
    rows = [
        (name, *("" if math.isnan(each) else f"{each:.2%}" for each in (iou, accuracy)))
        for name, iou, accuracy in zip(names, scores.ious, scores.accuracies)
    ]
    write_table(("class", "IoU", "accuracy"), rows, ("IoU", "accuracy"))
    write("")
    write_facts({
        "images": f"{images:,}",
        "mIoU": f"{scores.mean_iou:.2%}",
        "pixel accuracy (aAcc)": f"{scores.pixel_accuracy:.2%}",
        "class accuracy (mAcc)": f"{scores.class_accuracy:.2%}",
        "images/s": f"{images / seconds:,.1f}",
    })  # fmt: skip
    if output is not None:
        note(f"Wrote {output / 'scores.json'} and {output / 'classes.csv'}")


def _scale_of(text: str) -> tuple[int, int] | None:
    """Parses the option --scale.

    Raises:
        typer.BadParameter: If it is neither two sides nor "own".
    """
    if text == "own":
        return None
    sides = text.split(",")
    if len(sides) != 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise typer.BadParameter(
            f"must be two sides in pixels, such as 2048,512, or own. Received: {text}",
            param_hint="--scale",
        )
    return int(sides[0]), int(sides[1])


def _labels(file: Path, first: int | None, ignored: Sequence[int] | None) -> "Labels":
    """Returns what the labels of masks mean: what is given, or else what the file records."""
    from keras_convnext.pretrained.record import read_record
    from keras_convnext.segmentation.labels import recorded_labels

    recorded = recorded_labels(read_record(file).preprocessing)
    return replace(
        recorded,
        first_label=recorded.first_label if first is None else first,
        ignored=recorded.ignored if ignored is None else tuple(ignored),
    )


def windows_of_file(file: Path) -> "Windows":
    """Returns how a segmenter scales and cuts images, as its file records or as published."""
    from keras_convnext.pretrained.record import read_record
    from keras_convnext.segmentation.prediction import windows_for, windows_of

    for row in CATALOG:
        if row.file == file.name and row.head:
            return windows_for(row.size)
    return windows_of(read_record(file).preprocessing)


def _targets(paths: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Returns the path of each class map.

    Raises:
        typer.BadParameter: If two files have the same name, or a map would replace a file.
    """
    targets = {path: folder / f"{path.stem}.png" for path in paths}
    seen: dict[Path, Path] = {}
    for path, target in targets.items():
        if target in seen:
            raise typer.BadParameter(
                f"{seen[target]} and {path} have the same name. Segment them separately",
                param_hint="--masks",
            )
        if target.exists():
            raise typer.BadParameter(f"{target} exists. Name a new folder", param_hint="--masks")
        seen[target] = path
    return targets


def _write(found: "Segmented", path: Path) -> None:
    write(str(path), *(f"{area.share:6.1%}  {area.name}" for area in found.areas))


def _as_json(found: "Segmented", path: Path) -> dict[str, object]:
    height, width = (None, None) if found.classes is None else found.classes.shape
    return {
        "file": str(path),
        "error": found.error,
        "notice": found.notice,
        "height": height,
        "width": width,
        "areas": [area._asdict() for area in found.areas],
    }
