"""`evaluate --suite`: accuracy on the published sets that measure robustness."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from keras_convnext.cli.loading import file_of
from keras_convnext.cli.terminal import Bar, note, write, write_facts, write_json, write_table

if TYPE_CHECKING:
    import keras

    from keras_convnext.pretrained.catalog import Checkpoint


def suites_of(pairs: Sequence[str]) -> dict[str, str | None]:
    """Parses NAME=FOLDER, or NAME for the set's name in TensorFlow Datasets.

    Raises:
        ValueError: If a set is unknown, named twice, or has no data after "=".
    """
    from keras_convnext.classification.suites import SUITES

    suites: dict[str, str | None] = {}
    for pair in pairs:
        name, sign, data = pair.partition("=")
        if sign and not data:
            raise ValueError(
                "A suite must be NAME=FOLDER, or NAME for TensorFlow Datasets. "
                f"Received: --suite {pair}"
            )
        if name not in SUITES:
            raise ValueError(
                f"A suite must be one of {', '.join(SUITES)}. Received: --suite {pair}"
            )
        if name in suites:
            raise ValueError(f"{name} is given twice. Received: --suite {pair}")
        suites[name] = data or None
    return suites


def published_row(weights: str, model: str | None) -> "Checkpoint | None":
    """Returns the row of the catalog of published weights, given by name or as a local file."""
    from keras_convnext.pretrained.catalog import find
    from keras_convnext.pretrained.digests import row_of_file

    path = file_of(weights, model)
    if str(path) == weights:
        return row_of_file(path)
    return find(model, weights)[0]


def evaluate_suites(
    network: "keras.Model",
    suites: dict[str, str | None],
    output: Path | None,
    names: Sequence[str] | None,
    published: "Checkpoint | None",
    *,
    size: int | None,
    batch_size: int,
    limit: int | None,
    as_json: bool,
) -> None:
    """Evaluates the sets, and prints the results beside the published ones."""
    from keras_convnext import classification
    from keras_convnext.classification.robustness_report import as_json as report
    from keras_convnext.classification.robustness_report import table
    from keras_convnext.preprocessing import WARP_FROM

    with Bar("Evaluating", "images") as bar:
        measured = classification.evaluate_suites(
            network,
            suites,
            output,
            size=size,
            batch_size=batch_size,
            limit=limit,
            classes=names,
            published=published,
            progress=lambda name, done, total: bar.update(done, total, name),
        )
    for result in measured.results:
        for each in result.notes:
            note(f"{result.title}: {each}", "yellow")
    if output is not None:
        note(f"Wrote {output}")
    if as_json:
        write_json(report(measured))
        return
    headings, rows = table(measured)
    write_table(headings, rows, headings[2:])
    write("", "Figures are in percent. Rules:")
    write_facts({result.title: result.rule for result in measured.results})
    if len(headings) > 4 and published is not None:
        write("", f"Published figures are of {published.model}, {published.tag}.")
        if "paper" in headings and published.size >= WARP_FROM:
            write(f"The paper does not say how it prepared images of {published.size} px.")
