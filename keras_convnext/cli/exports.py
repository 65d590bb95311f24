"""`export`: a network for another runtime."""

from pathlib import Path
from typing import Annotated

import keras
import typer
from rich import box
from rich.table import Table
from rich.text import Text

from keras_convnext.builders import BUILDERS
from keras_convnext.cli.application import Shape, Size, messages, output, shape_of, variant_name
from keras_convnext.conversion import checkpoint_file, load_model
from keras_convnext.preprocessing import class_names
from keras_convnext.pretrained.cache import file_digest

NO_WEIGHTS = "none"


def export_network(
    folder: Annotated[
        Path, typer.Argument(metavar="OUT", help="The folder to make, or an empty one.")
    ],
    weights: Annotated[
        str,
        typer.Option(
            help="Published weights, as `list --weights` names them, a file of weights, or none "
            "for random ones."
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            callback=lambda name: name and variant_name(name),
            help="As `list` names it: of published or random weights; else what the file is of.",
        ),
    ] = None,
    format_name: Annotated[
        str, typer.Option("--format", help="saved_model, onnx, litert or openvino.")
    ] = "saved_model",
    dtype: Annotated[
        str, typer.Option(help="What weights are kept in: float32, float16, bfloat16 or int8.")
    ] = "float32",
    pixels: Annotated[str, typer.Option(help="What it takes, float32 or uint8.")] = "float32",
    size: Size = None,
    any_size: Annotated[
        bool, typer.Option("--any-size", help="Take images of any height and width.")
    ] = False,
    images: Annotated[
        Path | None,
        typer.Option(help="Photographs to compare on; int8 sees the ranges of maps on them."),
    ] = None,
) -> None:
    """Write a network for another runtime, and compare it there with the live one."""
    from keras_convnext.export import export
    from keras_convnext.export.formats import FORMATS

    network, names, source = _network(model, weights, shape_of(size))
    if any_size:
        size = size or network.input_shape[1]
        network, names, source = _network(model, weights, {"input_shape": (None, None, 3)})
    with messages.status(f"Exporting {network.name}"):
        difference = export(
            network,
            folder,
            format_name,
            dtype=dtype,
            pixels=pixels,
            size=size,
            names=names,
            images=images,
            source=source,
        )
    size_written = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    written = folder / FORMATS[format_name].file
    messages.print(f"Wrote {written}: {size_written / 1e6:,.1f} MB in all", markup=False)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_header=False)
    for question, answer in {
        "images compared": f"{difference.images:,}",
        "largest error": f"{difference.error:.1e} of the largest logit",
        "same class": f"{difference.same_top1:.1%}",
        "same five classes": f"{difference.same_top5:.1%}",
    }.items():
        table.add_row(question, Text(answer))
    output.print(table)


def _network(
    model: str | None, weights: str, shape: Shape
) -> tuple[keras.Model, list[str], dict[str, str]]:
    """The network, its classes, and where its weights come from."""
    if weights == NO_WEIGHTS:
        if model is None:
            raise ValueError("Random weights are of a network: name it with --model")
        keras.utils.set_random_seed(0)
        network, file = BUILDERS[model](weights=None, **shape), None
        source = {"weights": "random, of seed 0"}
    else:
        network, file = load_model(weights, model, **shape), checkpoint_file(weights, model)
        source = {"weights": weights, "file": file.name, "sha256": file_digest(file)}
    names = [name for _, name in class_names(network.output_shape[-1], file)]
    return network, names, source
