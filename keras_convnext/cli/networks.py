"""The commands `list` and `info`."""

from typing import Annotated

import typer

from keras_convnext.cli.application import Json, NetworkOfWeights, Size
from keras_convnext.cli.road import write_roadmap
from keras_convnext.cli.terminal import write, write_json, write_markdown, write_table
from keras_convnext.complexity import parts
from keras_convnext.detection.cost import parts as parts_of_detector
from keras_convnext.detection.rotated.cost import parts_of_rotated
from keras_convnext.pretrained.catalog import DENSE_NETWORKS, list_weights
from keras_convnext.pretrained.robustness import COLUMNS, published_robustness
from keras_convnext.segmentation.cost import parts as parts_of_segmenter
from keras_convnext.variants import VARIANTS

_NUMBERS_OF_WEIGHTS = (
    "px",
    "classes",
    "MB",
    "top-1",
    "top-5",
    "mIoU",
    "mIoU ms",
    "box AP",
    "mask AP",
)
_NUMBERS_OF_NETWORKS = ("parameters", "GMACs")
_NUMBERS_OF_ROBUSTNESS = ("px", *COLUMNS.values())
_NUMBERS = (*_NUMBERS_OF_WEIGHTS, *_NUMBERS_OF_NETWORKS, *_NUMBERS_OF_ROBUSTNESS)


def list_variants(
    weights: Annotated[bool, typer.Option("--weights", help="List the published weights.")] = False,
    files: Annotated[
        bool,
        typer.Option("--files", help="List the published weights with all download URLs."),
    ] = False,
    robustness: Annotated[
        bool,
        typer.Option("--robustness", help="List the published robustness of the weights."),
    ] = False,
    roadmap: Annotated[
        bool, typer.Option("--roadmap", help="List the steps from ResNet to ConvNeXt.")
    ] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
    as_json: Json = False,
) -> None:
    """List the networks, the published weights, or the steps from ResNet to ConvNeXt.

    Parameters and multiply-accumulates (GMACs) are for 224 px and 1,000 classes. Robustness is in
    percent: top-1 accuracy, for C and C-bar errors.
    """
    shows_weights = weights or files
    if roadmap and (shows_weights or robustness):
        raise typer.BadParameter("must be used alone", param_hint="--roadmap")
    if roadmap:
        write_roadmap(markdown, as_json)
        return
    if robustness:
        rows = _robustness()
    else:
        rows = _published(files, as_json) if shows_weights else _networks()
    if as_json:
        write_json(rows)
        return
    for number, (headings, alike) in enumerate(_tables(rows)):
        write(*[""] * bool(number))
        cells = [[_cell(name, row[name]) for name in headings] for row in alike]
        if robustness:
            cells = [[_figure(row, name) for name in headings] for row in alike]
        if markdown:
            write_markdown(headings, cells, _NUMBERS)
        else:
            kept = len(headings) - ("url" in headings)
            write_table(headings[:kept], [row[:kept] for row in cells], _NUMBERS)


def _tables(rows: list[dict[str, object]]) -> list[tuple[list[str], list[dict[str, object]]]]:
    """Groups rows with the same columns: classifiers and dense networks have other figures."""
    tables: dict[tuple[str, ...], list[dict[str, object]]] = {}
    for row in rows:
        tables.setdefault(tuple(row), []).append(row)
    return [(list(headings), alike) for headings, alike in tables.items()]


def _robustness() -> list[dict[str, object]]:
    return [
        {
            "model": row.model, "weights": row.tag, "px": row.size, "source": published.source,
            **{heading: getattr(published, name) for name, heading in COLUMNS.items()},
        }
        for row in list_weights()
        for published in published_robustness(row)
    ]  # fmt: skip


def _published(copies: bool, as_json: bool) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for row in list_weights(copies=copies):
        rows.append({
            "model": row.model, "weights": row.tag, "px": row.size, "classes": row.classes,
            "MB": round(row.expected_bytes / 1e6),
            **dict(row.figures or (("top-1", row.top1), ("top-5", row.top5))),
        })  # fmt: skip
        if copies or as_json:
            rows[-1] |= {"license": row.license.name}
        if as_json:
            rows[-1] |= {"terms": row.license.url}
        if copies:
            rows[-1] |= {"source": row.source, "file": row.file, "url": row.url}
    return rows


def _networks() -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for variant in VARIANTS.values():
        counted = parts(variant)
        rows.append({
            "model": variant.name,
            "depths": variant.depths,
            "dims": variant.dims,
            "parameters": sum(part.parameters for part in counted),
            "GMACs": round(sum(part.macs for part in counted) / 1e9, 2),
        })  # fmt: skip
    return rows


def _cell(name: str, value: object) -> str:
    if value is None:
        return ""
    if name == "GMACs":
        return f"{value:.2f}"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:,}" if isinstance(value, int) else str(value)


def _figure(row: dict[str, object], name: str) -> str:
    """Formats a cell of the table of robustness, with the digits that were published."""
    if isinstance(row[name], float):
        return f"{row[name]:.{1 if row['source'] == 'paper' else 2}f}"
    return _cell(name, row[name])


def info(
    model: NetworkOfWeights,
    size: Size = None,
    classes: Annotated[
        int | None,
        typer.Option(
            min=1, help="Number of classes.", show_default="1000, or those of the dense network"
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the parameters and cost of each stage of a network."""
    if model in DENSE_NETWORKS:
        row = list_weights(model)[0]
        size = size or row.size
        variant = VARIANTS[model.removeprefix(f"{row.head}_")]
        classes = classes or row.classes or 0
        if row.head == "upernet":
            counted = parts_of_segmenter(variant, (size, size), classes)
        elif row.head.startswith("rotated"):
            regression = "direct" if row.head == "rotated_retinanet" else "expectation"
            counted = parts_of_rotated(variant, (size, size), classes, regression=regression)
        else:
            is_cascade = row.head == "cascade_mask_rcnn"
            counted = parts_of_detector(variant, (size, size), classes, cascade=is_cascade)
    else:
        variant = VARIANTS[model]
        size = size or variant.size
        counted = parts(variant, (size, size), classes or 1000)
    if as_json:
        write_json({"model": model, "size": size, "parts": [part._asdict() for part in counted]})
        return
    rows = [
        (part.name, str(part.blocks or ""), " x ".join(map(str, part.output)),
         f"{part.parameters:,}", f"{part.macs / 1e9:.3f}")
        for part in counted
    ]  # fmt: skip
    parameters = sum(part.parameters for part in counted)
    macs = sum(part.macs for part in counted)
    rows.append(("total", "", "", f"{parameters:,}", f"{macs / 1e9:.3f}"))
    write(f"{model}, {size} px")
    write_table(("part", "blocks", "output", "parameters", "GMACs"), rows, _NUMBERS_OF_NETWORKS)
