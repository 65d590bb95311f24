"""The command `evaluate`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keras_convnext.cli.application import (
    DATA_HELP,
    BatchSize,
    Entry,
    Ignore,
    Json,
    Model,
    Prefix,
    Size,
    Weights,
    checked_picture,
    reading,
    shape_of,
)
from keras_convnext.cli.detecting import evaluate_detector
from keras_convnext.cli.loading import crop_of, file_of, import_backend, load_classifier
from keras_convnext.cli.rotated import evaluate_rotated_detector
from keras_convnext.cli.segmenting import evaluate_segmenter
from keras_convnext.cli.terminal import Bar, note, write, write_facts, write_json, write_table
from keras_convnext.tasks import task_name

if TYPE_CHECKING:
    import keras

    from keras_convnext.pretrained.catalog_row import Checkpoint

_MOST_SHOWN = 5  # classes in a message


def evaluate_network(
    weights: Weights,
    data: Annotated[str | None, typer.Argument(help=DATA_HELP, show_default=False)] = None,
    suite: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=FOLDER",
            help="Evaluate a set that measures robustness by its own rule, instead of DATA: "
            "imagenet, imagenet_a, imagenet_r, imagenet_sketch, imagenet_v2, imagenet_real, "
            "imagenet_c or imagenet_c_bar. NAME alone takes it from TensorFlow Datasets. "
            "Repeatable.",
        ),
    ] = None,
    output_folder: Annotated[
        Path | None,
        typer.Option(
            "--output",
            help="Folder for the results of --suite, or of a segmenter or detector. An "
            "interrupted evaluation is resumed.",
        ),
    ] = None,
    model: Model = None,
    entry: Entry = None,
    prefix: Prefix = None,
    ignore: Ignore = None,
    split: Annotated[
        str | None,
        typer.Option(help="Split of the data.", show_default="the only one, or validation"),
    ] = None,
    size: Size = None,
    batch_size: BatchSize = 32,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Evaluate a random sample of this many images.")
    ] = None,
    as_json: Json = False,
    confusion: Annotated[
        Path | None,
        typer.Option(callback=checked_picture, help="Plot the confusion matrix to this file."),
    ] = None,
    scale: Annotated[
        str | None,
        typer.Option(
            metavar="LONGEST,SHORTEST",
            help="With a segmenter: sides that images are scaled to fit into, or 'own' for none.",
            show_default="as in training, or as published",
        ),
    ] = None,
    first_label: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="With a segmenter: label of the first class in the masks.",
            show_default="as in training, or inferred",
        ),
    ] = None,
    ignored_label: Annotated[
        list[int] | None,
        typer.Option(
            help="With a segmenter: label of pixels without a class, besides 255. Repeatable.",
            show_default="as in training",
        ),
    ] = None,
    multi_scale: Annotated[
        bool,
        typer.Option(
            "--multi-scale", help="With a segmenter: average six scales, each with a flip."
        ),
    ] = False,
) -> None:
    """Measure accuracy with the protocol of the published figures.

    With --suite, figures are printed beside the published ones of the same weights. With the
    weights of a segmenter, DATA is a folder of images with masks, and the mean intersection over
    union is measured; with --output, an interrupted evaluation is resumed, and the figures of each
    class are written to files. With the weights of a detector, the average precision is measured by
    COCO's rule, and for rotated boxes by that of DOTA's tools; with --output, an interrupted
    evaluation is resumed, and the detections are kept, in the format of COCO's server or as JSON
    lines.
    """
    if suite:
        _refuse("with --suite", DATA=data, split=split, confusion=confusion)
    elif data is None:
        raise typer.BadParameter("is missing: pass DATA, or --suite", param_hint="DATA")
    suites = _suites_of(suite or ())
    import_backend()
    from keras_convnext.classification import draw_confusion
    from keras_convnext.classification import evaluate as evaluate_classifier
    from keras_convnext.preprocessing import class_names
    from keras_convnext.pretrained.record import recorded_names

    selected = reading(entry, prefix, ignore)
    file = file_of(weights, model)
    task = task_name(file, **selected)
    if task == "segmentation":
        if data is None:
            raise typer.BadParameter("needs the weights of a classifier", param_hint="--suite")
        _refuse("with a segmenter", size=size, confusion=confusion)
        evaluate_segmenter(
            data, split, weights, model, file, selected,
            scale=scale, labels=(first_label, ignored_label), limit=limit,
            multi_scale=multi_scale, output=output_folder, as_json=as_json,
        )  # fmt: skip
        return
    if task in ("detection", "detection.rotated"):
        if data is None:
            raise typer.BadParameter("needs the weights of a classifier", param_hint="--suite")
        _refuse(
            "with a detector",
            size=size, confusion=confusion, limit=limit, multi_scale=multi_scale or None,
        )  # fmt: skip
        evaluate_boxes = evaluate_detector if task == "detection" else evaluate_rotated_detector
        evaluate_boxes(
            data, split, weights, model, file, selected, output=output_folder, as_json=as_json
        )
        return
    if not suite:
        _refuse("without --suite", output=output_folder)
    _refuse(
        "with a classifier",
        multi_scale=multi_scale or None,
        scale=scale,
        first_label=first_label,
        ignored_label=ignored_label,
    )
    shape = shape_of(None if weights.endswith(".keras") else size)
    network = load_classifier(weights, model, shape, selected)
    names, outputs = recorded_names(file), network.output_shape[-1]
    if data is None:
        _evaluate_suites(
            network,
            suites,
            output_folder,
            names if len(names) == outputs else None,
            _published_row(weights, model),
            size=size,
            batch_size=batch_size,
            limit=limit,
            as_json=as_json,
        )
        return
    with Bar("Evaluating", "images") as bar:
        accuracy = evaluate_classifier(
            network,
            data,
            split,
            size=size,
            batch_size=batch_size,
            limit=limit,
            classes=names if len(names) == outputs else None,
            progress=bar.update,
            crop=crop_of(weights, model),
        )
    if confusion:
        shown = [name for _, name in class_names(outputs, names)]
        draw_confusion(accuracy.guesses, shown, confusion)
        note(f"Wrote {confusion}")
    if accuracy.missing:
        note(_about_missing(accuracy.missing, accuracy.excluded), "yellow")
    if as_json:
        figures = accuracy._asdict()
        write_json({name: value for name, value in figures.items() if name != "guesses"})
        return
    row = {
        "images": f"{accuracy.images:,}",
        **({"excluded": f"{accuracy.excluded:,}"} if accuracy.missing else {}),
        "top-1": f"{accuracy.top1:.2%}",
        "top-5": f"{accuracy.top5:.2%}",
        "cross entropy": f"{accuracy.loss:.4f}",
        "images/s": f"{accuracy.images_per_second:,.1f}",
    }
    write_table(list(row), [list(row.values())], list(row))


def _refuse(where: str, **given: object) -> None:
    """Refuses arguments that have no meaning here."""
    for name, value in given.items():
        if value is not None:
            hint = name if name.isupper() else f"--{name.replace('_', '-')}"
            raise typer.BadParameter(f"has no meaning {where}. Received: {value}", param_hint=hint)


def _about_missing(missing: Sequence[str], excluded: int) -> str:
    from keras_convnext.preprocessing import class_labels

    known = dict(class_labels(21841)) | dict(class_labels(1000))
    shown = [f"{name} ({known[name]})" if name in known else name for name in missing[:_MOST_SHOWN]]
    more = f" and {len(missing) - _MOST_SHOWN:,} more" if len(missing) > _MOST_SHOWN else ""
    return (
        f"Excluded {excluded:,} images of classes that the model does not have: "
        f"{', '.join(shown)}{more}"
    )


def _suites_of(pairs: Sequence[str]) -> dict[str, str | None]:
    """Parses NAME=FOLDER, or NAME for the set's name in TensorFlow Datasets.

    Raises:
        ValueError: If a set is unknown, named twice, or has no data after "=".
    """
    from keras_convnext.classification.suites import SUITES

    suites: dict[str, str | None] = {}
    for pair in pairs:
        name, sign, data = pair.partition("=")
        if sign and not data:
            raise ValueError(
                "A suite must be NAME=FOLDER, or NAME for TensorFlow Datasets. "
                f"Received: --suite {pair}"
            )
        if name not in SUITES:
            raise ValueError(
                f"A suite must be one of {', '.join(SUITES)}. Received: --suite {pair}"
            )
        if name in suites:
            raise ValueError(f"{name} is given twice. Received: --suite {pair}")
        suites[name] = data or None
    return suites


def _published_row(weights: str, model: str | None) -> "Checkpoint | None":
    """Returns the row of the catalog of published weights, given by name or as a local file."""
    from keras_convnext.pretrained.catalog import find
    from keras_convnext.pretrained.digests import row_of_file

    path = Path(weights)
    if not os.path.exists(path):
        return find(model, weights)[0]
    return row_of_file(path) if path.is_file() else None


def _evaluate_suites(
    network: "keras.Model",
    suites: dict[str, str | None],
    output: Path | None,
    names: Sequence[str] | None,
    published: "Checkpoint | None",
    *,
    size: int | None,
    batch_size: int,
    limit: int | None,
    as_json: bool,
) -> None:
    """Evaluates the sets, and prints the results beside the published ones."""
    from keras_convnext import classification
    from keras_convnext.classification.robustness_report import as_json as report
    from keras_convnext.classification.robustness_report import table
    from keras_convnext.preprocessing import WARP_FROM

    with Bar("Evaluating", "images") as bar:
        measured = classification.evaluate_suites(
            network,
            suites,
            output,
            size=size,
            batch_size=batch_size,
            limit=limit,
            classes=names,
            published=published,
            progress=lambda name, done, total: bar.update(done, total, name),
        )
    for result in measured.results:
        for each in result.notes:
            note(f"{result.title}: {each}", "yellow")
    if output is not None:
        note(f"Wrote {output}")
    if as_json:
        write_json(report(measured))
        return
    headings, rows = table(measured)
    write_table(headings, rows, headings[2:])
    write("", "Figures are in percent. Rules:")
    write_facts({result.title: result.rule for result in measured.results})
    if len(headings) > 4 and published is not None:
        write("", f"Published figures are of {published.model}, {published.tag}.")
        if "paper" in headings and published.size >= WARP_FROM:
            write(f"The paper does not say how it prepared images of {published.size} px.")
