"""Shows measured robustness beside the published figures: table, CSV, JSON and bar chart."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from keras_convnext.classification.robustness_figures import SuiteResult
from keras_convnext.classification.suites import SEVERITIES, SUITES
from keras_convnext.pretrained.robustness import published_robustness
from keras_convnext.printable import printable
from keras_convnext.training.state import write_whole

if TYPE_CHECKING:
    from keras_convnext.classification.robustness import Robustness

SOURCES = ("paper", "timm")  # of published figures
_COLORS = {"measured": "#1f5a96", "paper": "#9fb4c7", "timm": "#d3a15f"}


class Comparison(NamedTuple):
    """A result and the published figures of the same weights, in percent.

    Args:
        result: SuiteResult. What was measured.
        published: dict from "paper" and "timm" to float. The published figures.
        differences: dict from the same to float. Measured minus published, in points. Empty unless
            the whole published set was scored.
    """

    result: SuiteResult
    published: dict[str, float]
    differences: dict[str, float]


def compared(measured: Robustness) -> list[Comparison]:
    """Returns the results beside the published figures of the same weights and image size."""
    row = measured.published
    known = published_robustness(row) if row and row.size == measured.size else ()
    comparisons = []
    for result in measured.results:
        found = {each.source: getattr(each, result.name) for each in known}
        published = {source: value for source, value in found.items() if value is not None}
        value = result.value if result.is_comparable else None
        differences = {} if value is None else {
            source: value - figure for source, figure in published.items()
        }  # fmt: skip
        comparisons.append(Comparison(result, published, differences))
    return comparisons


def table(measured: Robustness) -> tuple[list[str], list[list[str]]]:
    """Returns the headings and the rows of the table, as text. Figures are in percent."""
    comparisons = compared(measured)
    sources = [name for name in SOURCES if any(name in each.published for each in comparisons)]
    headings = ["set", "metric", "images", "measured"]
    for source in sources:
        headings += [source, f"vs {source}"]
    rows = []
    for result, published, differences in comparisons:
        row = [result.title, result.metric, f"{result.images:,}", _number(result.value)]
        for source in sources:
            row += [_number(published.get(source)), _number(differences.get(source), "+.2f")]
        rows.append(row)
    return headings, rows


def as_json(measured: Robustness) -> dict[str, Any]:
    """Returns all results and published figures as values for JSON."""
    row = measured.published
    sets = []
    for result, published, differences in compared(measured):
        fields = {name: value for name, value in result._asdict().items() if name != "parts"}
        fields["corruptions"] = [each._asdict() for each in result.corruptions]
        sets.append({**fields, "published": published, "differences": differences})
    return {
        "model": row and row.model,
        "weights": row and row.tag,
        "size": measured.size,
        "sets": sets,
    }


def save_report(measured: Robustness, output: Path) -> None:
    """Writes the table, all figures and the chart into a folder."""
    headings, rows = table(measured)
    texts = {
        "robustness.csv": _csv([headings, *rows]),
        "robustness.json": json.dumps(as_json(measured), indent=2) + "\n",
        "corruptions.csv": _csv(_corruption_rows(measured.results)),
    }
    for name, text in texts.items():
        write_whole(output / name, partial(Path.write_text, data=text, encoding="utf-8"))
    if find_spec("matplotlib"):
        write_whole(output / "robustness.png", partial(draw_robustness, measured))


def _csv(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _corruption_rows(results: Sequence[SuiteResult]) -> list[list[str]]:
    rows = [["set", "corruption", *(f"error {each}" for each in SEVERITIES), "mean", "CE", "extra"]]
    for result in results:
        for each in result.corruptions:
            figures = (*each.errors, each.mean, each.ce)
            extra = "yes" if each.is_extra else "no"
            rows.append([result.title, each.name, *map(_number, figures), extra])
    return rows


def _number(value: float | None, form: str = ".2f") -> str:
    return "" if value is None else f"{value:{form}}"


def draw_robustness(measured: Robustness, path: str | Path) -> None:
    """Plots the results beside the published figures as bars.

    Args:
        measured: Robustness. As `evaluate_suites` returns it.
        path: str or path. The PNG file to write.
    """
    from matplotlib.figure import Figure

    comparisons = [each for each in compared(measured) if each.result.value is not None]
    sources = [name for name in SOURCES if any(name in each.published for each in comparisons)]
    figure = Figure(figsize=(3 + 1.3 * len(comparisons), 4.2), layout="constrained")
    axes = figure.subplots()
    series = ("measured", *sources)
    width = 0.8 / len(series)
    for number, name in enumerate(series):
        places, heights = [], []
        for place, (result, published, _) in enumerate(comparisons):
            height = result.value if name == "measured" else published.get(name)
            if height is not None:
                places.append(place + (number - (len(series) - 1) / 2) * width)
                heights.append(height)
        bars = axes.bar(places, heights, 0.92 * width, label=name, color=_COLORS[name])
        axes.bar_label(bars, fmt="%.1f", fontsize=7, padding=1)
    labels = [
        f"{result.title}\n{result.metric}" + "\n(lower is better)" * _is_error(result)
        for result, *_ in comparisons
    ]
    axes.set_xticks(range(len(labels)), labels, fontsize=8, parse_math=False)
    axes.set(ylabel="%", ylim=(0, 1.08 * max(100, *_values(comparisons))))
    axes.spines[["top", "right"]].set_visible(False)
    row = measured.published
    name = f"{row.model}, {row.tag}, " if row else ""
    axes.set_title(printable(f"{name}{measured.size} px"), parse_math=False)
    if len(series) > 1:
        axes.legend(frameon=False, ncols=len(series), loc="upper right")
    figure.savefig(path, dpi=110, format="png")


def _values(comparisons: Sequence[Comparison]) -> list[float]:
    return [each.result.value for each in comparisons if each.result.value is not None] or [0.0]


def _is_error(result: SuiteResult) -> bool:
    return SUITES[result.name].lower_is_better
