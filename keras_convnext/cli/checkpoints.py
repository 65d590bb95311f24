"""The commands `identify`, `convert` and `verify`."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keras_convnext.cli.application import (
    WEIGHTS_HELP,
    Entry,
    Ignore,
    Json,
    Model,
    Prefix,
    Reading,
    reading,
)
from keras_convnext.cli.failures import report
from keras_convnext.cli.loading import import_backend, tensors_shown
from keras_convnext.cli.terminal import note, waiting, write, write_facts, write_json, write_table
from keras_convnext.pretrained.catalog import CATALOG
from keras_convnext.pretrained.layouts import LAYOUTS

if TYPE_CHECKING:
    from keras_convnext.pretrained.identify import Identity

_MOST_LISTED = 8


def identify_weights(
    weights: Annotated[list[str], typer.Argument(help="Weights files or folders.")],
    entry: Entry = None,
    prefix: Prefix = None,
    ignore: Ignore = None,
    as_json: Json = False,
) -> None:
    """Identify the network that weights belong to.

    Reads only the names and shapes of the tensors.

    The exit code is 1 if one of several files cannot be identified.
    """
    from keras_convnext.pretrained.identify import identify

    chosen = reading(entry, prefix, ignore)
    if len(weights) == 1:
        found = {weights[0]: _facts(identify(weights[0], **chosen))}
    else:
        found = {}
        for path in weights:
            try:
                found[path] = _facts(identify(path, **chosen))
            except (ValueError, OSError) as error:
                report(error)
    if as_json:
        write_json([{"file": path, **facts} for path, facts in found.items()])
    else:
        for number, (path, facts) in enumerate(found.items()):
            write(*([""] if number else []), path)
            formatted = {name.replace("_", " "): _formatted(value) for name, value in facts.items()}
            write_facts({name: value for name, value in formatted.items() if value})
    if len(found) < len(weights):
        raise typer.Exit(1)


def _facts(identity: "Identity") -> dict[str, object]:
    """Returns everything known about a file, the network first."""
    network, found = identity.variant._asdict(), identity._asdict()
    del found["variant"], network["stddev"], network["size"]  # not properties of the file
    network["layer_scale"] = network["layer_scale"] is not None
    del network["name"]
    return {"model": identity.name, **network, **found}


def _formatted(value: object) -> str:
    if value is None or value == ():
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{name} {own}" for name, own in value.items())
    if isinstance(value, tuple):
        more = f" and {len(value) - _MOST_LISTED} more" if len(value) > _MOST_LISTED else ""
        return ", ".join(map(str, value[:_MOST_LISTED])) + more
    return f"{value:,}" if isinstance(value, int) else str(value)


def convert_weights(
    source: Annotated[str, typer.Argument(help=WEIGHTS_HELP)],
    target: Annotated[
        Path,
        typer.Argument(help="Output file: .pth, .safetensors, .weights.h5, .h5 or .keras."),
    ],
    model: Model = None,
    layout: Annotated[
        str | None,
        typer.Option(
            help=f"Layout of the output: {', '.join(LAYOUTS)}.",
            show_default="keras for .h5, else official",
        ),
    ] = None,
    top: Annotated[bool, typer.Option("--top/--no-top", help="Keep the classifier.")] = True,
    dtype: Annotated[str | None, typer.Option(help="Cast to float16 or bfloat16.")] = None,
    entry: Entry = None,
    prefix: Prefix = None,
    ignore: Ignore = None,
    names: Annotated[
        bool, typer.Option("--names", help="Print the name and shape of each tensor written.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Convert weights between Keras, PyTorch, timm and other layouts."""
    import_backend()
    from keras_convnext.conversion import convert, keys
    from keras_convnext.pretrained.rewriting import default_layout

    converted = convert(
        source, target, model, layout, top, dtype,
        progress=partial(tensors_shown, "Converting"), **reading(entry, prefix, ignore),
    )  # fmt: skip
    layout = layout or default_layout(target)
    rows = [
        (f"{layer}/{variable}", " x ".join(map(str, shape)), key)
        for (layer, variable), (key, shape) in (keys(converted, layout).items() if names else ())
    ]
    if as_json:
        write_json({
            "file": str(target),
            "model": converted.name,
            "layout": layout,
            "parameters": converted.count_params(),
            "bytes": target.stat().st_size,
            "names": {ours: key for ours, _, key in rows} or None,
        })  # fmt: skip
        return
    if names:
        write_table(("in Keras", "shape", f"{layout} name"), rows)
    note(f"Wrote {target}: {converted.name}, {converted.count_params():,} parameters")


def verify_weights(
    weights: Annotated[str, typer.Argument(help=WEIGHTS_HELP)],
    model: Model = None,
    image: Annotated[
        Path | None, typer.Option(help="COCO val2017 image 000000039769, to compare logits.")
    ] = None,
    entry: Entry = None,
    prefix: Prefix = None,
    ignore: Ignore = None,
    as_json: Json = False,
) -> None:
    """Check weights against everything published about them.

    The exit code is 1 if a check fails.
    """
    chosen = reading(entry, prefix, ignore)
    model = model or _model_of(Path(weights), chosen)
    import_backend()
    from keras_convnext.verification import verify

    with waiting("Verifying"):
        findings = verify(model, weights, image, **chosen)
    if as_json:
        write_json([finding._asdict() for finding in findings])
    else:
        marks = {True: "passed", False: "failed", None: "unknown"}
        for question, passed, answer in findings:
            write(f"{question:8} {marks[passed]:8} {answer}")
    if any(finding.passed is False for finding in findings):
        raise typer.Exit(1)


def _model_of(weights: Path, chosen: Reading) -> str:
    """Returns the network of a file, by its published file name or else by its contents."""
    from keras_convnext.pretrained.identify import identify

    for row in CATALOG:
        if row.file == weights.name:
            return row.model
    if not weights.exists():
        raise FileNotFoundError(
            "File not found. For published weights, name the network with --model. "
            f"Received: {weights}"
        )
    return identify(weights, **chosen).name
