"""`train`, `evaluate` and `plan`: runs of a recipe.

What they call takes TensorFlow, which no other command does under another backend; so it is
imported where it is called.
"""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from keras_convnext.cli.application import (
    Size,
    messages,
    output,
    settings_of,
    shape_of,
    variant_name,
)
from keras_convnext.conversion import checkpoint_file, load_model
from keras_convnext.preprocessing import class_names

Settings = Annotated[
    list[str] | None, typer.Option("--set", help="A field of the recipe, as KEY=VALUE.")
]


def train_network(
    recipe: Annotated[str, typer.Option(help="Such as finetune_small.")],
    model: Annotated[str, typer.Option(callback=variant_name, help="As `list` names it.")],
    data: Annotated[
        str,
        typer.Option(help="A folder of class folders, shards, or a name in TensorFlow Datasets."),
    ],
    output_folder: Annotated[
        Path, typer.Option("--output", help="The folder of the run; to resume, the same.")
    ],
    validation_data: Annotated[
        str | None,
        typer.Option(help="Other data to validate on.  (default: --data has some, or a share)"),
    ] = None,
    settings: Settings = None,
) -> None:
    """Train a network by a recipe, or go on with a run that was stopped.

    SIGTERM and Ctrl-C save the state and stop. The exit code is then 143 or 130; the same command
    goes on.
    """
    from keras_convnext.training.journal import Interrupted, NonFiniteLossError
    from keras_convnext.training.run import train

    try:
        train(
            recipe,
            model,
            data,
            output_folder,
            settings_of(settings or ()),
            validation_data=validation_data,
            console=messages,
        )
    except Interrupted as stopped:
        messages.print(str(stopped), style="yellow", markup=False, highlight=False)
        sys.exit(128 + stopped.signal)
    except NonFiniteLossError as error:
        messages.print(f"Error: {error}", style="red", markup=False, highlight=False)
        sys.exit(1)
    messages.print(f"Wrote {output_folder}", markup=False)


def evaluate_network(
    data: Annotated[
        str,
        typer.Argument(help="A folder of class folders, shards, or a name in TensorFlow Datasets."),
    ],
    weights: Annotated[
        str, typer.Option(help="Published weights, as `list --weights` names them, or a file.")
    ],
    model: Annotated[
        str | None,
        typer.Option(
            callback=lambda name: name and variant_name(name),
            help="As `list` names it: of published weights; else what the file is of.",
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="(default: the only one, or validation)")
    ] = None,
    size: Size = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Images at a time.")] = 32,
    limit: Annotated[
        int | None, typer.Option(min=1, help="So many of the images, drawn at random.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")] = False,
    confusion: Annotated[
        Path | None, typer.Option(help="Write which class is taken for which to this picture.")
    ] = None,
) -> None:
    """Measure the accuracy of weights by the rule of the published figures."""
    from keras_convnext.evaluation import draw_confusion, evaluate

    shape = shape_of(None if weights.endswith(".keras") else size)
    network = load_model(weights, model, **shape)
    with Progress(console=messages, transient=True) as progress:
        task = progress.add_task("Evaluating", total=None)
        accuracy = evaluate(
            network,
            data,
            split,
            size=size,
            batch_size=batch_size,
            limit=limit,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    if confusion:
        names = class_names(network.output_shape[-1], checkpoint_file(weights, model))
        draw_confusion(accuracy.guesses, [name for _, name in names], confusion)
        messages.print(f"Wrote {confusion}", markup=False)
    if as_json:
        told = {name: value for name, value in accuracy._asdict().items() if name != "guesses"}
        print(json.dumps(told, indent=2))
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("images", "top-1", "top-5", "cross entropy", "images/s"):
        table.add_column(heading, justify="right")
    table.add_row(
        f"{accuracy.images:,}",
        f"{accuracy.top1:.2%}",
        f"{accuracy.top5:.2%}",
        f"{accuracy.loss:.4f}",
        f"{accuracy.images_per_second:,.1f}",
    )
    output.print(table)


def plan_run(
    recipe: Annotated[str, typer.Option(help="As `keras_convnext.training.recipes` names it.")],
    model: Annotated[str, typer.Option(callback=variant_name, help="As `list` names it.")],
    device_type: Annotated[str, typer.Option(help="Such as v100-32gb, a100-80gb or cpu-core.")],
    devices: Annotated[
        int | None, typer.Option(min=1, help="How many.  (default: the recipe's reference)")
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="In an epoch.  (default: those of the recipe's data)")
    ] = None,
    settings: Settings = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")] = False,
) -> None:
    """Work out the steps, memory and hours of a training run, on devices that need not be here.

    The exit code is 1 if not even one image at a time fits the memory.
    """
    from keras_convnext.training.planning import plan
    from keras_convnext.training.settings import recipe_for

    chosen = recipe_for(recipe, model, settings_of(settings or ()))
    planned = plan(chosen, model, images, devices or chosen.devices, device_type)
    if as_json:
        print(json.dumps(planned.as_dict(), indent=2))
    else:
        table = Table(title=f"{recipe}, {model}", box=box.SIMPLE, show_header=False)
        table.add_column()
        table.add_column(justify="right")
        table.add_column()
        for row in planned.rows():
            table.add_row(*map(Text, row))
        output.print(table)
    if not planned.fits:
        messages.print(
            "The memory is too small for one image at a time. Taken with --set "
            f"{'; '.join(planned.advice) or 'another device_type'}.",
            style="yellow",
            markup=False,
            highlight=False,
        )
        raise typer.Exit(1)
