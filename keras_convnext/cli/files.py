"""`convert` and `verify`: files of weights."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.progress import track
from rich.table import Table
from rich.text import Text

from keras_convnext.cli.application import messages, output, variant_name, wide
from keras_convnext.conversion import convert
from keras_convnext.pretrained.layouts import LAYOUTS
from keras_convnext.pretrained.porting import checkpoint_keys, default_layout
from keras_convnext.verification import verify


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
            callback=lambda name: name and variant_name(name),
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


def verify_weights(
    model: Annotated[str, typer.Argument(callback=variant_name, help="As `list` names it.")],
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
