"""`predict`: photographs."""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import keras
import typer
from rich.progress import track
from rich.table import Table

from keras_convnext.builders import BUILDERS
from keras_convnext.cli.application import Shape, Size, messages, output, shape_of, variant_name
from keras_convnext.conversion import checkpoint_file, load_model
from keras_convnext.prediction import Prediction, draw_predictions, find_images, predict_files
from keras_convnext.preprocessing import class_names
from keras_convnext.pretrained.catalog import list_weights
from keras_convnext.pretrained.porting import save_checkpoint
from keras_convnext.trunks import has_no_classes

RANDOM_WEIGHTS = "Random weights: these labels mean nothing. Name a checkpoint with --weights."
MOST_IN_PICTURE = 60
Model = Annotated[
    str | None,
    typer.Option(
        callback=lambda name: name and variant_name(name),
        help="As `list` names it.  (default: what the checkpoint is of, or convnext_cifar)",
    ),
]
SHIPPED = next(row for row in list_weights() if row.source == "shipped")


def predict(
    images: Annotated[list[Path], typer.Argument(help="Photographs, or folders of them.")],
    model: Model = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Published weights, as `list --weights` names them, a .pth file, or weights that "
            "Keras saved.  (default: those that come with the package, if the network has such; "
            "random ones, if not)"
        ),
    ] = None,
    size: Size = None,
    top: Annotated[int, typer.Option(min=1, help="Classes to name for each image.")] = 5,
    batch_size: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 8,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")] = False,
    picture: Annotated[
        Path | None, typer.Option(help="Write the photographs and their classes to this picture.")
    ] = None,
) -> None:
    """Classify photographs, and folders of them.

    The exit code is 1 if an image could not be read; the others are classified all the same.
    """
    paths = find_images(images)
    network, names, warning = chosen_network(model, weights, size)
    predictions = list(
        track(
            predict_files(network, paths, top, batch_size, names),
            "Classifying",
            total=len(paths),
            console=messages,
            transient=True,
        )
    )
    if as_json:
        print(json.dumps([_as_json(prediction) for prediction in predictions], indent=2))
    else:
        for prediction in predictions:
            if prediction.labels:
                output.print(_table(prediction))
    for prediction in predictions:
        if prediction.error:
            messages.print(prediction.error, style="red", markup=False, highlight=False)
    if warning:
        messages.print(warning, style="yellow")
    if picture:
        draw_predictions(predictions[:MOST_IN_PICTURE], picture, warning)
        shown = f" (the first {MOST_IN_PICTURE})" if len(predictions) > MOST_IN_PICTURE else ""
        messages.print(f"Wrote {picture}{shown}", markup=False)
    if any(prediction.error for prediction in predictions):
        raise typer.Exit(1)


def chosen_network(
    model: str | None, weights: str | None, size: int | None
) -> tuple[keras.Model, Sequence[tuple[str, str]], str]:
    """The network to classify by, the names of its classes, and what its user is to be warned of.

    Without a choice it is the one whose weights come with the package.
    """
    shape = shape_of(size)
    if weights is None:
        model = model or SHIPPED.model
        if model != SHIPPED.model:
            return _random_network(model, shape), class_names(1000), RANDOM_WEIGHTS
        weights = SHIPPED.tag
    network = load_model(weights, model, **shape)
    if has_no_classes(network):
        raise ValueError(f"This checkpoint has no classifier. Received: {weights}")
    return network, class_names(network.output_shape[-1], checkpoint_file(weights, model)), ""


def _random_network(model: str, shape: Shape) -> keras.Model:
    """Takes random weights the way of published ones: into an official file, and out of it."""
    keras.utils.set_random_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / f"{model}_random.pth"
        save_checkpoint(BUILDERS[model](weights=None), checkpoint)
        messages.print(f"No --weights: made {checkpoint.name} with random ones.", markup=False)
        return BUILDERS[model](weights=checkpoint, **shape)


def _table(prediction: Prediction) -> Table:
    table = Table(show_header=False, title=str(prediction.path), title_justify="left", box=None)
    table.add_column(justify="right")
    for label in prediction.labels:
        table.add_row(f"{label.probability:.1%}", label.name.replace("_", " "), label.wnid)
    return table


def _as_json(prediction: Prediction) -> dict[str, object]:
    return {
        "file": str(prediction.path),
        "error": prediction.error,
        "predictions": [label._asdict() for label in prediction.labels],
    }
