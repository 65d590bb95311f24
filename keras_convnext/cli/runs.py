"""The commands `train`, `evaluate`, `plan` and `recipes`."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from keras_convnext.cli.application import (
    BatchSize,
    Entry,
    Ignore,
    Json,
    Model,
    ModelToName,
    Prefix,
    RecipeName,
    Settings,
    Size,
    Weights,
    checked_picture,
    reading,
    settings_of,
    shape_of,
)
from keras_convnext.cli.loading import file_of, import_backend, load_classifier
from keras_convnext.cli.suites import evaluate_suites, published_row, suites_of
from keras_convnext.cli.terminal import (
    Bar,
    messages,
    note,
    write,
    write_facts,
    write_json,
    write_table,
)
from keras_convnext.tasks import recipes, task_of_file, task_of_recipe
from keras_convnext.training.settings import flat, with_all_networks

_MOST_SHOWN = 5  # classes in a message
DATA_HELP = "Folder with a subfolder per class, CSV table, shards, or a TensorFlow Datasets name."


def train_network(
    recipe: RecipeName,
    model: ModelToName,
    data: Annotated[str, typer.Option(help=DATA_HELP)],
    output_folder: Annotated[
        Path, typer.Option("--output", help="Folder of the run. An existing run is resumed.")
    ],
    validation_data: Annotated[
        str | None,
        typer.Option(help="Data to validate on.", show_default="a split or a part of --data"),
    ] = None,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Train a network with a recipe, or resume a run.

    SIGTERM and Ctrl-C save the state and exit with code 143 or 130; the same command resumes the
    run. The exit code is 1 if the loss becomes NaN or infinite.
    """
    task = task_of_recipe(recipe)
    import_backend()
    from keras_convnext.training.journal import Interrupted, NonFiniteLossError

    try:
        task.train(
            recipe,
            model,
            data,
            output_folder,
            settings_of(settings or ()),
            validation_data=validation_data,
            console=messages,
        )
    except Interrupted as stopped:
        note(stopped, "yellow")
        raise typer.Exit(128 + stopped.signal) from stopped
    except NonFiniteLossError as error:
        note(f"Error: {error}", "red")
        raise typer.Exit(1) from error
    if as_json:
        with open(output_folder / "log.csv", encoding="utf-8", newline="") as file:
            *_, last = csv.DictReader(file)
        measured = {name: float(value) for name, value in last.items()}
        write_json({"output": str(output_folder), **measured})
    else:
        note(f"Wrote {output_folder}")


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
            help="Folder for the results of --suite. An interrupted evaluation is resumed.",
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
) -> None:
    """Measure accuracy with the protocol of the published figures.

    With --suite, figures are printed beside the published ones of the same weights.
    """
    if suite:
        _refuse("with --suite", DATA=data, split=split, confusion=confusion)
    elif data is None:
        raise typer.BadParameter("is missing: pass DATA, or --suite", param_hint="DATA")
    else:
        _refuse("without --suite", output=output_folder)
    suites = suites_of(suite or ())
    import_backend()
    from keras_convnext.preprocessing import class_names
    from keras_convnext.pretrained.record import recorded_names

    file = file_of(weights, model)
    task = task_of_file(file)
    shape = shape_of(None if weights.endswith(".keras") else size)
    network = load_classifier(weights, model, shape, reading(entry, prefix, ignore))
    names, outputs = recorded_names(file), network.output_shape[-1]
    if data is None:
        evaluate_suites(
            network,
            suites,
            output_folder,
            names if len(names) == outputs else None,
            published_row(weights, model),
            size=size,
            batch_size=batch_size,
            limit=limit,
            as_json=as_json,
        )
        return
    with Bar("Evaluating", "images") as bar:
        accuracy = task.evaluate(
            network,
            data,
            split,
            size=size,
            batch_size=batch_size,
            limit=limit,
            classes=names if len(names) == outputs else None,
            progress=bar.update,
        )
    if confusion:
        shown = [name for _, name in class_names(outputs, names)]
        task.draw_confusion(accuracy.guesses, shown, confusion)
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
            hint = name if name.isupper() else f"--{name}"
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


def plan_run(
    recipe: RecipeName,
    model: ModelToName,
    device_type: Annotated[
        str, typer.Option(help="Device type, such as v100-32gb, a100-80gb or cpu-core.")
    ],
    devices: Annotated[
        int | None,
        typer.Option(min=1, help="Number of devices.", show_default="that of the recipe"),
    ] = None,
    images: Annotated[
        int | None,
        typer.Option(min=1, help="Images per epoch.", show_default="those of the recipe's data"),
    ] = None,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Estimate the steps, memory and hours of a training run.

    The devices do not have to be present.

    The exit code is 1 if a batch of one image does not fit into memory.
    """
    task = task_of_recipe(recipe)
    chosen = task.recipe_for(recipe, model, settings_of(settings or ()))
    planned = task.plan(chosen, model, images, devices or chosen.batch.devices, device_type)
    if as_json:
        write_json(planned.as_dict())
    else:
        write(f"{recipe}, {model}")
        write_table(("", "value", "basis"), planned.rows(), ["value"])
    if not planned.fits:
        advice = "; ".join(planned.advice) or "another device_type"
        note(f"A batch of one image does not fit into memory. Try --set {advice}.", "yellow")
        raise typer.Exit(1)


def list_recipes(
    name: Annotated[
        str | None, typer.Argument(help="Recipe to show in full.", metavar="RECIPE")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="Network to show the recipe for, see `list`."),
    ] = None,
    as_json: Json = False,
) -> None:
    """List the recipes of `train`, or show one in full."""
    if name is None:
        if model is not None:
            raise typer.BadParameter("must be used with a recipe", param_hint="--model")
        _list_all(as_json)
        return
    task = task_of_recipe(name)
    if model is not None:
        fields = flat(task.recipe_for(name, model))
    else:
        fields = with_all_networks(task.RECIPES[name])
    if as_json:
        write_json(fields)
    else:
        write_facts({field: _formatted(value) for field, value in fields.items()})


def _list_all(as_json: bool) -> None:
    kept = {
        "name": "recipe", "schedule.epochs": "epochs", "batch.batch_size": "batch",
        "optimizer.learning_rate": "learning rate", "input.size": "px",
        "network.start": "starts from",
    }  # fmt: skip
    rows = [flat(family.recipe) for family in recipes().values()]
    if as_json:
        write_json(rows)
        return
    cells = [[_formatted(row.get(field)) for field in kept] for row in rows]
    headings = tuple(kept.values())
    write_table(headings, cells, headings[1:5])


def _formatted(value: object) -> str:
    if value is None or value == ():
        return "none"
    if isinstance(value, dict):
        return ", ".join(
            f"{_formatted(own)}{network and f' ({network})'}" for network, own in value.items()
        )
    if isinstance(value, tuple):
        between = ", " if all(isinstance(part, int) for part in value) else " to "
        return between.join(f"{part:.4g}" for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
