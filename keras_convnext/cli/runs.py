"""The commands `train`, `plan` and `recipes`."""

import csv
from pathlib import Path
from typing import Annotated

import typer

from keras_convnext.cli.application import (
    DATA_HELP,
    Json,
    ModelToName,
    RecipeName,
    Settings,
    settings_of,
)
from keras_convnext.cli.loading import import_backend
from keras_convnext.cli.terminal import (
    messages,
    note,
    write,
    write_facts,
    write_json,
    write_table,
)
from keras_convnext.tasks import recipes, task_of_recipe
from keras_convnext.training.settings import flat, with_all_networks


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
    run. The exit code is 1 if the loss becomes NaN or infinite, or if another machine is lost.
    """
    task = task_of_recipe(recipe)
    import_backend()
    from keras_convnext.training.journal import Interrupted, NonFiniteLossError
    from keras_convnext.training.machines import LostMachineError

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
    except (NonFiniteLossError, LostMachineError) as error:
        note(f"Error: {error}", "red")
        raise typer.Exit(1) from error
    if as_json:
        with open(output_folder / "log.csv", encoding="utf-8", newline="") as file:
            *_, last = csv.DictReader(file)
        measured = {name: float(value) for name, value in last.items()}
        write_json({"output": str(output_folder), **measured})
    else:
        note(f"Wrote {output_folder}")


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
