"""The command `keras-convnext`: parses, calls one function below, prints."""

import json
import sys
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated

import keras
import typer
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from keras_convnext.builders import BUILDERS
from keras_convnext.complexity import parts
from keras_convnext.conversion import convert, load_model
from keras_convnext.prediction import Prediction, draw_predictions, find_images, predict_files
from keras_convnext.pretrained.catalog import list_weights
from keras_convnext.pretrained.layouts import LAYOUTS
from keras_convnext.pretrained.porting import checkpoint_keys, default_layout, save_checkpoint
from keras_convnext.variants import VARIANTS
from keras_convnext.verification import verify

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="ConvNeXt for Keras 3: look at the networks, classify photographs.\n\n"
    "Begin with `keras-convnext list`, then `keras-convnext predict PHOTO.jpg`.",
)
output = Console()
wide = Console(width=400)  # for names that must not be broken
messages = Console(stderr=True, soft_wrap=True)

RANDOM_WEIGHTS = "Random weights: these labels mean nothing. Name a checkpoint with --weights."
MOST_IN_PICTURE = 60


def main() -> None:
    """Runs the command; an error of the user's or of a file is a line, not a traceback."""
    try:
        app()
    except (ValueError, OSError) as error:
        messages.print(f"Error: {error}", style="red", markup=False, highlight=False)
        sys.exit(2)


def _variant_name(name: str) -> str:
    if name not in VARIANTS:
        raise typer.BadParameter(f"choose one of {', '.join(VARIANTS)}")
    return name


@app.command("list")
def list_variants(
    weights: Annotated[bool, typer.Option("--weights", help="List the published weights.")] = False,
    files: Annotated[
        bool, typer.Option("--files", help="And every place that they can be fetched from.")
    ] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a table for a page.")] = False,
) -> None:
    """List the networks, with their parameters and multiply-accumulates at 224 px."""
    table = _weights_table(files, markdown) if weights or files else _variants_table()
    if markdown:
        table.box = box.MARKDOWN
    (wide if files or markdown else output).print(table)


def _weights_table(files: bool, links: bool) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("model", "weights"):
        table.add_column(heading, no_wrap=True)
    for heading in ("px", "classes", "top-1", "top-5"):
        table.add_column(heading, justify="right")
    if files:
        table.add_column("source")
        table.add_column("file", no_wrap=True)
    for row in list_weights(copies=files):
        numbers = (row.size, row.classes, row.top1, row.top5)
        cells = ["" if number is None else f"{number:,}" for number in numbers]
        place = (row.source, f"[{row.file}]({row.url})" if links else row.file) if files else ()
        table.add_row(row.model, row.tag, *cells, *map(Text, place))
    return table


def _variants_table() -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("model", "depths", "dims"):
        table.add_column(heading, no_wrap=True)
    table.add_column("parameters", justify="right")
    table.add_column("GMACs", justify="right")
    for variant in VARIANTS.values():
        counted = parts(variant)
        table.add_row(
            variant.name,
            ",".join(map(str, variant.depths)),
            ",".join(map(str, variant.dims)),
            f"{sum(part.parameters for part in counted):,}",
            f"{sum(part.macs for part in counted) / 1e9:.2f}",
        )
    return table


@app.command()
def info(
    model: Annotated[str, typer.Argument(callback=_variant_name, help="As `list` names it.")],
    size: Annotated[int, typer.Option(min=32, help="Side of the images, in pixels.")] = 224,
    classes: Annotated[int, typer.Option(min=1, help="Number of classes.")] = 1000,
) -> None:
    """Show what each stage of a network holds and costs."""
    variant = VARIANTS[model]
    counted = parts(variant, (size, size), classes)
    table = Table("part", "blocks", title=f"{model}, {size} px", box=box.SIMPLE, show_footer=True)
    table.add_column("output", "total")
    table.add_column("parameters", f"{sum(part.parameters for part in counted):,}", justify="right")
    table.add_column("GMACs", f"{sum(part.macs for part in counted) / 1e9:.3f}", justify="right")
    for part in counted:
        table.add_row(
            part.name,
            str(part.blocks or ""),
            " x ".join(map(str, part.output)),
            f"{part.parameters:,}",
            f"{part.macs / 1e9:.3f}",
        )
    output.print(table)


@app.command()
def predict(
    images: Annotated[list[Path], typer.Argument(help="Photographs, or folders of them.")],
    model: Annotated[
        str | None,
        typer.Option(
            callback=lambda name: name and _variant_name(name),
            help="As `list` names it.  (default: what the checkpoint is of)",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="Published weights, as `list --weights` names them, a .pth file, or weights that "
            "Keras saved.  (default: random ones)"
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(min=32, help="Side of the images.  (default: that of the weights, or 224)"),
    ] = None,
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
    network = _network(model, weights, size)
    predictions = list(
        track(
            predict_files(network, paths, top, batch_size),
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
    if weights is None:
        messages.print(RANDOM_WEIGHTS, style="yellow")
    if picture:
        draw_predictions(
            predictions[:MOST_IN_PICTURE], picture, RANDOM_WEIGHTS if weights is None else ""
        )
        shown = f" (the first {MOST_IN_PICTURE})" if len(predictions) > MOST_IN_PICTURE else ""
        messages.print(f"Wrote {picture}{shown}", markup=False)
    if any(prediction.error for prediction in predictions):
        raise typer.Exit(1)


def _network(model: str | None, weights: str | None, size: int | None) -> keras.Model:
    shape = {} if size is None else {"input_shape": (size, size, 3)}
    if weights is None:
        return _random_network(model or "convnext_tiny", shape)
    network = load_model(weights, model, **shape)
    if not any(layer.name == "head" for layer in network.layers):
        raise ValueError(f"This checkpoint has no classifier. Received: {weights}")
    return network


@app.command("convert")
def convert_weights(
    source: Annotated[
        str,
        typer.Argument(
            help="A .pth, .safetensors, .weights.h5 or .keras, or the name of published weights."
        ),
    ],
    target: Annotated[Path, typer.Argument(help="Where to write; the suffix tells the kind.")],
    model: Annotated[
        str | None,
        typer.Option(
            callback=lambda name: name and _variant_name(name),
            help="As `list` names it: of published weights; else to be compared with the file's.",
        ),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(help=f"{', '.join(LAYOUTS)}.  (default: keras for .h5, else official)"),
    ] = None,
    top: Annotated[bool, typer.Option("--top/--no-top", help="Keep the classifier.")] = True,
    dtype: Annotated[str | None, typer.Option(help="Round to float16 or bfloat16.")] = None,
    entry: Annotated[
        str | None, typer.Option(help="Which weights of a .pth that holds several.")
    ] = None,
    verbose: Annotated[bool, typer.Option(help="Show what went where.")] = False,
) -> None:
    """Turn a file of weights into one for Keras, PyTorch, timm and others."""
    progress = partial(track, description="Converting", console=messages, transient=True)
    converted = convert(source, target, model, layout, top, dtype, entry, progress)
    if verbose:
        layout = layout or default_layout(target)
        table = Table("in Keras", "shape", f"{layout} name", box=box.SIMPLE_HEAD, pad_edge=False)
        for (layer, variable), (key, shape) in checkpoint_keys(converted, layout).items():
            table.add_row(f"{layer}/{variable}", " x ".join(map(str, shape)), key)
        wide.print(table)
    messages.print(
        f"Wrote {target}: {converted.name}, {converted.count_params():,} parameters.", markup=False
    )


@app.command("verify")
def verify_weights(
    model: Annotated[str, typer.Argument(callback=_variant_name, help="As `list` names it.")],
    weights: Annotated[
        str, typer.Argument(help="Published weights, as `list --weights` names them, or a file.")
    ],
    image: Annotated[
        Path | None, typer.Option(help="Image 000000039769 of COCO val2017, to compare logits on.")
    ] = None,
) -> None:
    """Compare weights with all that is published about them. The exit code is 1 if one is off."""
    with messages.status(f"Verifying {weights}"):
        findings = verify(model, weights, image)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header=False)
    marks = {True: "[green]passed", False: "[red]failed", None: "unknown"}
    for question, passed, answer in findings:
        table.add_row(question, marks[passed], Text(answer))
    output.print(table)
    if any(finding.passed is False for finding in findings):
        raise typer.Exit(1)


@app.command()
def plan(
    recipe: Annotated[str, typer.Option(help="As `keras_convnext.training.recipes` names it.")],
    model: Annotated[str, typer.Option(callback=_variant_name, help="As `list` names it.")],
    device_type: Annotated[str, typer.Option(help="Such as v100-32gb, a100-80gb or cpu-core.")],
    devices: Annotated[
        int | None, typer.Option(min=1, help="How many.  (default: the recipe's reference)")
    ] = None,
    images: Annotated[
        int | None, typer.Option(min=1, help="In an epoch.  (default: those of the recipe's data)")
    ] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="A field of the recipe, as KEY=VALUE.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, not a table.")] = False,
) -> None:
    """Work out the steps, memory and hours of a training run, on devices that need not be here.

    The exit code is 1 if not even one image at a time fits the memory.
    """
    # Here, since it takes TensorFlow, which no other command does under another backend.
    from keras_convnext.training.planning import plan as planned_by
    from keras_convnext.training.settings import recipe_for

    chosen = recipe_for(recipe, model, settings_of(settings or ()))
    planned = planned_by(chosen, model, images, devices or chosen.devices, device_type)
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


def settings_of(pairs: Sequence[str]) -> dict[str, str]:
    """Reads the settings of a recipe from KEY=VALUE, once each.

    Raises:
        ValueError: If one has no "=" or no key, or a key comes twice.
    """
    settings: dict[str, str] = {}
    for pair in pairs:
        key, sign, value = (part.strip() for part in pair.partition("="))
        if not sign or not key:
            raise ValueError(f"A setting is KEY=VALUE, as in epochs=5. Received: --set {pair}")
        if key in settings:
            raise ValueError(
                f"A setting is given once. Received: --set {key}={settings[key]} and --set {pair}"
            )
        settings[key] = value
    return settings


def _random_network(model: str, shape: dict) -> keras.Model:
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


def _as_json(prediction: Prediction) -> dict:
    return {
        "file": str(prediction.path),
        "error": prediction.error,
        "predictions": [label._asdict() for label in prediction.labels],
    }
