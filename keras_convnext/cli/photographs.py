"""The command `predict`."""

import glob
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from keras_convnext.cli.application import (
    WEIGHTS_HELP,
    BatchSize,
    Entry,
    Ignore,
    Json,
    Model,
    Prefix,
    Reading,
    Shape,
    Size,
    checked_picture,
    reading,
    shape_of,
)
from keras_convnext.cli.detecting import detect_objects
from keras_convnext.cli.loading import crop_of, file_of, import_backend, load_classifier
from keras_convnext.cli.rotated import detect_rotated_objects
from keras_convnext.cli.segmenting import segment
from keras_convnext.cli.terminal import note, track, write, write_json
from keras_convnext.pretrained.catalog import list_weights
from keras_convnext.tasks import task_name

if TYPE_CHECKING:
    import keras

    from keras_convnext.classification.prediction import Prediction

STANDARD_INPUT = "-"
RANDOM_WEIGHTS = "Random weights: these labels mean nothing. Name a checkpoint with --weights."
MOST_IN_PICTURE = 60
SHIPPED = next(row for row in list_weights() if row.source == "shipped")
DEMONSTRATION = (
    f"A demo: {SHIPPED.classes} classes at {SHIPPED.size} px. "
    "For 1,000: --model convnext_tiny --weights imagenet"
)
WeightsOrShipped = Annotated[
    str | None,
    typer.Option(
        "--weights",
        help=WEIGHTS_HELP,
        show_default=f"those shipped with the package, for {SHIPPED.model}",
    ),
]


def predict(
    images: Annotated[
        list[str],
        typer.Argument(help="Files, folders, patterns such as '*.jpg', or - for standard input."),
    ],
    model: Model = None,
    weights: WeightsOrShipped = None,
    entry: Entry = None,
    prefix: Prefix = None,
    ignore: Ignore = None,
    size: Size = None,
    top: Annotated[int, typer.Option(min=1, help="Number of classes to show per image.")] = 5,
    batch_size: BatchSize = 8,
    as_json: Json = False,
    picture: Annotated[
        Path | None,
        typer.Option(
            callback=checked_picture, help="Draw the images with their classes to this file."
        ),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="With a segmenter: write the class of each pixel to PNG files in this folder.",
        ),
    ] = None,
    threshold: Annotated[
        float,
        typer.Option(min=0, max=1, help="With a detector: show objects with at least this score."),
    ] = 0.5,
    submission: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="With a detector of rotated boxes: write the files of task 1 of DOTA's server.",
        ),
    ] = None,
) -> None:
    """Classify images, or segment them or find objects, depending on the weights.

    The exit code is 1 if an image is unreadable; the others are predicted.
    """
    with _files(images) as (files, standard_input):
        import_backend()
        from keras_convnext.classification.prediction import draw_predictions, predict_files
        from keras_convnext.picture_files import find_images

        paths = find_images(files)
        selected = reading(entry, prefix, ignore)
        file = file_of(weights, model) if weights is not None else None
        task = task_name(file, **selected) if file else None
        if weights and file and task == "segmentation":
            is_whole = segment(
                paths, weights, model, file, selected,
                shown=lambda path: Path(STANDARD_INPUT) if path == standard_input else path,
                as_json=as_json, picture=picture, masks=masks, most=MOST_IN_PICTURE,
            )  # fmt: skip
            if not is_whole:
                raise typer.Exit(1)
            return
        if masks is not None:
            raise typer.BadParameter("needs the weights of a segmenter", param_hint="--masks")
        if weights and file and task == "detection.rotated":
            is_whole = detect_rotated_objects(
                paths, weights, model, file, selected,
                shown=lambda path: Path(STANDARD_INPUT) if path == standard_input else path,
                threshold=threshold, as_json=as_json, picture=picture, submission=submission,
                most=MOST_IN_PICTURE,
            )  # fmt: skip
            if not is_whole:
                raise typer.Exit(1)
            return
        if submission is not None:
            raise typer.BadParameter(
                "needs the weights of a detector of rotated boxes", param_hint="--submission"
            )
        if weights and file and task == "detection":
            is_whole = detect_objects(
                paths, weights, model, file, selected,
                shown=lambda path: Path(STANDARD_INPUT) if path == standard_input else path,
                threshold=threshold, as_json=as_json, picture=picture, most=MOST_IN_PICTURE,
            )  # fmt: skip
            if not is_whole:
                raise typer.Exit(1)
            return
        chosen = chosen_network(model, weights, size, selected)
        found = track(
            predict_files(
                chosen.network,
                paths,
                top,
                batch_size,
                chosen.names,
                chosen.least_probability,
                chosen.crop,
            ),
            "Classifying",
            "images",
            len(paths),
        )
        predictions = [_renamed(each) if each.path == standard_input else each for each in found]
        if as_json:
            write_json([_as_json(prediction) for prediction in predictions])
        else:
            _write(predictions)
        if chosen.caution:
            note(chosen.caution, "yellow")
        for prediction in predictions:
            if prediction.error:
                note(prediction.error, "red")
            elif prediction.notice:
                note(f"{prediction.path}: {prediction.notice}")
        if picture:
            drawn = [prediction._replace(path=path) for prediction, path in zip(predictions, paths)]
            draw_predictions(drawn[:MOST_IN_PICTURE], picture, chosen.caution)
            more = f" (the first {MOST_IN_PICTURE})" if len(paths) > MOST_IN_PICTURE else ""
            note(f"Wrote {picture}{more}")
    if any(prediction.error for prediction in predictions):
        raise typer.Exit(1)


@contextmanager
def _files(images: Sequence[str]) -> Iterator[tuple[list[str], Path | None]]:
    """Yields the files and folders to read, and the temporary file of standard input, if used."""
    with tempfile.TemporaryDirectory() as folder:
        standard_input = None
        files = []
        for image in images:
            if image == STANDARD_INPUT:
                if standard_input is None:
                    standard_input = Path(folder) / "standard input"
                    with open(standard_input, "wb") as file:
                        shutil.copyfileobj(sys.stdin.buffer, file)
                files.append(str(standard_input))
            elif os.path.exists(image) or not glob.has_magic(image):
                files.append(image)
            else:
                found = sorted(glob.glob(image, recursive=True))
                if not found:
                    raise FileNotFoundError(f"No file matches this pattern. Received: {image}")
                files += found
        yield files, standard_input


def _renamed(prediction: "Prediction") -> "Prediction":
    """Replaces the temporary file of standard input by "-" in a prediction."""
    error = prediction.error and prediction.error.replace(str(prediction.path), STANDARD_INPUT)
    return prediction._replace(path=Path(STANDARD_INPUT), error=error)


class Chosen(NamedTuple):
    """The network for a prediction.

    Args:
        network: keras.Model.
        names: sequence of (WordNet identifier, name). Its classes.
        caution: str. A warning about the predictions; empty for most networks.
        least_probability: float or None. As in `predict_files`.
        crop: float or None. As in `predict_files`.
    """

    network: "keras.Model"
    names: Sequence[tuple[str, str]]
    caution: str = ""
    least_probability: float | None = None
    crop: float | None = None


def chosen_network(
    model: str | None, weights: str | None, size: int | None, reading: Reading
) -> Chosen:
    """Returns the network of --weights, or by default the one shipped with the package."""
    import_backend()
    from keras_convnext.preprocessing import class_names
    from keras_convnext.pretrained.record import recorded_names

    shape, caution = shape_of(size), ""
    if weights is None:
        model = model or SHIPPED.model
        if model != SHIPPED.model:
            return Chosen(_random_network(model, shape), class_names(1000), RANDOM_WEIGHTS)
        weights, caution = SHIPPED.tag, DEMONSTRATION
    network = load_classifier(weights, model, shape, reading)
    file = file_of(weights, model)
    names = class_names(network.output_shape[-1], recorded_names(file))
    least = _least_probability(file, network.input_shape[1])
    return Chosen(network, names, caution, least, crop_of(weights, model))


def _least_probability(file: Path, size: int | None) -> float | None:
    """Returns the threshold measured for published weights, if the file is a copy of them."""
    from keras_convnext.pretrained.digests import file_digest

    for row in list_weights():
        if row.least_probability is None or row.size != size or not file.is_file():
            continue
        if file.stat().st_size == row.bytes and f"sha256:{file_digest(file)}" == row.digest:
            return row.least_probability
    return None


def _random_network(model: str, shape: Shape) -> "keras.Model":
    """Builds the network with random weights, saved to and loaded from an official-layout file."""
    import keras

    from keras_convnext.builders import BUILDERS
    from keras_convnext.pretrained.writing import save_checkpoint

    keras.utils.set_random_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / f"{model}_random.pth"
        save_checkpoint(BUILDERS[model](weights=None), checkpoint)
        note(f"No --weights given: created {checkpoint.name} with random weights.")
        return BUILDERS[model](weights=checkpoint, **shape)


def _write(predictions: Sequence["Prediction"]) -> None:
    from keras_convnext.classification.prediction import NONE_OF_THESE

    blocks = []
    for prediction in predictions:
        if prediction.labels:
            lines = [str(prediction.path)]
            if prediction.none_of_these:
                lines.append(f"{NONE_OF_THESE}; closest:")
            for label in prediction.labels:
                identifier = f"  {label.wnid}" if label.wnid else ""
                lines.append(
                    f"{label.probability:6.1%}  {label.name.replace('_', ' ')}{identifier}"
                )
            blocks.append(lines)
    for number, lines in enumerate(blocks):
        write(*([""] if number else []), *lines)


def _as_json(prediction: "Prediction") -> dict[str, object]:
    return {
        "file": str(prediction.path),
        "error": prediction.error,
        "notice": prediction.notice,
        "none_of_these": prediction.none_of_these,
        "predictions": [label._asdict() for label in prediction.labels],
    }
