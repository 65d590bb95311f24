"""`predict`: photographs."""

import glob
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from keras_convnext.cli.loading import file_of, import_backend, load_classifier
from keras_convnext.cli.terminal import note, track, write, write_json
from keras_convnext.pretrained.catalog import list_weights

if TYPE_CHECKING:
    import keras

    from keras_convnext.prediction import Prediction

STANDARD_INPUT = "-"
RANDOM_WEIGHTS = "Random weights: these labels mean nothing. Name a checkpoint with --weights."
MOST_IN_PICTURE = 60
SHIPPED = next(row for row in list_weights() if row.source == "shipped")
WeightsOrShipped = Annotated[
    str | None,
    typer.Option(
        "--weights",
        help=f"{WEIGHTS_HELP}  (default: those that come with the package, of {SHIPPED.model})",
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
    top: Annotated[int, typer.Option(min=1, help="Classes to name for each image.")] = 5,
    batch_size: BatchSize = 8,
    as_json: Json = False,
    picture: Annotated[
        Path | None,
        typer.Option(
            callback=checked_picture, help="Draw the photographs with their classes to this file."
        ),
    ] = None,
) -> None:
    """Classify photographs.

    The exit code is 1 if an image is unreadable; the others are classified.
    """
    with _files(images) as (files, standard_input):
        import_backend()
        from keras_convnext.prediction import draw_predictions, find_images, predict_files

        paths = find_images(files)
        network, names, warning = chosen_network(
            model, weights, size, reading(entry, prefix, ignore)
        )
        found = track(
            predict_files(network, paths, top, batch_size, names),
            "Classifying",
            "images",
            len(paths),
        )
        predictions = [_renamed(each) if each.path == standard_input else each for each in found]
        if as_json:
            write_json([_as_json(prediction) for prediction in predictions])
        else:
            _write(predictions)
        for prediction in predictions:
            if prediction.error:
                note(prediction.error, "red")
            elif prediction.notice:
                note(f"{prediction.path}: {prediction.notice}")
        if warning:
            note(warning, "yellow")
        if picture:
            drawn = [prediction._replace(path=path) for prediction, path in zip(predictions, paths)]
            draw_predictions(drawn[:MOST_IN_PICTURE], picture, warning)
            more = f" (the first {MOST_IN_PICTURE})" if len(paths) > MOST_IN_PICTURE else ""
            note(f"Wrote {picture}{more}")
    if any(prediction.error for prediction in predictions):
        raise typer.Exit(1)


@contextmanager
def _files(images: Sequence[str]) -> Iterator[tuple[list[str], Path | None]]:
    """The files and folders that are meant, and which of them has standard input in it."""
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
    """Of standard input, which was written to a file for the while."""
    error = prediction.error and prediction.error.replace(str(prediction.path), STANDARD_INPUT)
    return prediction._replace(path=Path(STANDARD_INPUT), error=error)


def chosen_network(
    model: str | None, weights: str | None, size: int | None, reading: Reading
) -> tuple["keras.Model", Sequence[tuple[str, str]], str]:
    """The network to classify with, the names of its classes, and what to warn of.

    Without a choice it is the one whose weights come with the package.
    """
    import_backend()
    from keras_convnext.preprocessing import class_names

    shape = shape_of(size)
    if weights is None:
        model = model or SHIPPED.model
        if model != SHIPPED.model:
            return _random_network(model, shape), class_names(1000), RANDOM_WEIGHTS
        weights = SHIPPED.tag
    network = load_classifier(weights, model, shape, reading)
    return network, class_names(network.output_shape[-1], file_of(weights, model)), ""


def _random_network(model: str, shape: Shape) -> "keras.Model":
    """Takes random weights the way of published ones: into an official file, and out of it."""
    import keras

    from keras_convnext.builders import BUILDERS
    from keras_convnext.pretrained.writing import save_checkpoint

    keras.utils.set_random_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / f"{model}_random.pth"
        save_checkpoint(BUILDERS[model](weights=None), checkpoint)
        note(f"No --weights: made {checkpoint.name} with random ones.")
        return BUILDERS[model](weights=checkpoint, **shape)


def _write(predictions: Sequence["Prediction"]) -> None:
    blocks = []
    for prediction in predictions:
        if prediction.labels:
            lines = [str(prediction.path)]
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
        "predictions": [label._asdict() for label in prediction.labels],
    }
