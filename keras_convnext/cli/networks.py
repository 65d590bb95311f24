"""`list` and `info`: the networks and the published weights."""

from typing import Annotated

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from keras_convnext.cli.application import Size, output, variant_name, wide
from keras_convnext.complexity import parts
from keras_convnext.pretrained.catalog import list_weights
from keras_convnext.variants import VARIANTS


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


def info(
    model: Annotated[str, typer.Argument(callback=variant_name, help="As `list` names it.")],
    size: Size = None,
    classes: Annotated[int, typer.Option(min=1, help="Number of classes.")] = 1000,
) -> None:
    """Show what each stage of a network holds and costs."""
    variant = VARIANTS[model]
    size = size or variant.size
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
