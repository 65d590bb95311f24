"""The tables of `list --roadmap`."""

from collections.abc import Iterator
from typing import Any

from keras_convnext.cli.terminal import write, write_json, write_markdown, write_table
from keras_convnext.roadmap.cost import parts
from keras_convnext.roadmap.steps import REGIMES, STEPS, Regime

_RIGHT = ("parameters", "GMACs", "paper", "top-1")
_NOTES = (
    "GMACs are multiply-accumulates of convolutions and dense layers, counted",
    "exactly. paper: the GFLOPs in tables 10 and 11 of arXiv 2201.03545, and the",
    "accuracy on ImageNet-1K in percent; for convnext, those in its table 1.",
    "layer_norm changes no convolution: in the code that the authors released, it",
    "costs 4.15, not 4.46. bare_downsampling is the last step of that code, which",
    "lacks the norms that training needs (section 2.6); downsampling has them.",
    "Train a step with --model roadmap:STEP or roadmap:REGIME/STEP, see `train`.",
)


def write_roadmap(markdown: bool, as_json: bool) -> None:
    """Prints the steps of each regime."""
    if as_json:
        write_json([row for regime in REGIMES.values() for row in _rows(regime)])
        return
    for regime in REGIMES.values():
        rows = [
            {
                "step": str(row["step"]),
                "what changes": str(row["change"]),
                "parameters": f"{row['parameters']:,}",
                "GMACs": f"{row['macs'] / 1e9:.{2 if regime.figures else 3}f}",
                "paper": _figure(row["paper_gflops"], row["step"]),
                "top-1": _figure(row["paper_top1"], row["step"], row["paper_deviation"]),
            }
            for row in _rows(regime)
        ]
        kept = [name for name in rows[0] if any(row[name] for row in rows)]
        cells = [[row[name] for name in kept] for row in rows]
        title = f"{regime.name}: {regime.title}, {regime.size} px, {regime.classes:,} classes"
        write(f"**{title}**" if markdown else title, "")
        (write_markdown if markdown else write_table)(kept, cells, _RIGHT)
        write("")
    write(*_NOTES)


def _rows(regime: Regime) -> Iterator[dict[str, Any]]:
    for step in STEPS.values():
        counted, figures = parts(step.name, regime.name), regime.figures_of(step)
        yield {
            "regime": regime.name,
            "step": step.name,
            "change": regime.change_of(step),
            "depths": regime.depths_of(step),
            "dims": regime.dims_of(step),
            "parameters": sum(part.parameters for part in counted),
            "macs": sum(part.macs for part in counted),
            "paper_gflops": figures.gflops,
            "paper_top1": figures.top1,
            "paper_deviation": figures.deviation,
        }


def _figure(value: float | None, step: str, deviation: float | None = None) -> str:
    """Formats a figure with the digits that the paper gives."""
    if value is None:
        return ""
    digits = 1 if step == "convnext" else 2
    return f"{value:.{digits}f}" + ("" if deviation is None else f" \u00b1 {deviation:.2f}")
