"""The command `export`."""

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
    Shape,
    Size,
    reading,
    shape_of,
)
from keras_convnext.cli.loading import file_of, import_backend, load_network
from keras_convnext.cli.terminal import Bar, note, write_facts, write_json

if TYPE_CHECKING:
    import keras

RANDOM = "none"


def export_network(
    folder: Annotated[Path, typer.Argument(metavar="OUT", help="Output folder, new or empty.")],
    weights: Annotated[str, typer.Option(help=f"{WEIGHTS_HELP} Use none for random weights.")],
    model: Model = None,
    entry: Entry = None,
    prefix: Prefix = None,
    ignore: Ignore = None,
    format_name: Annotated[
        str, typer.Option("--format", help="Format: saved_model, onnx, litert or openvino.")
    ] = "saved_model",
    dtype: Annotated[
        str, typer.Option(help="Type of the stored weights: float32, float16, bfloat16 or int8.")
    ] = "float32",
    pixels: Annotated[str, typer.Option(help="Type of the input: float32 or uint8.")] = "float32",
    size: Size = None,
    any_size: Annotated[
        bool, typer.Option("--any-size", help="Accept images of any height and width.")
    ] = False,
    photos: Annotated[
        Path | None,
        typer.Option(help="Folder of images to compare outputs on and to calibrate int8 with."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Export a network to another runtime, and check it there."""
    import_backend()
    from keras_convnext.cli.detecting import scale_of
    from keras_convnext.export import export
    from keras_convnext.export.formats import FORMATS

    chosen = reading(entry, prefix, ignore)
    network, names, source = _network(model, weights, shape_of(size), chosen)
    if isinstance(network.input, dict):  # a detector, which takes any size
        size = size or min(scale_of(file_of(weights, model)))
    elif any_size:
        size = size or network.input_shape[1]
        network, names, source = _network(model, weights, {"input_shape": (None, None, 3)}, chosen)
    with Bar(f"Exporting {network.name}", "images") as bar:
        difference = export(
            network,
            folder,
            format_name,
            dtype=dtype,
            pixels=pixels,
            size=size,
            names=names,
            images=photos,
            source=source,
            progress=bar.update,
        )
    size_written = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    written = folder / FORMATS[format_name].file
    if as_json:
        write_json({"file": str(written), "bytes": size_written, **difference._asdict()})
        return
    note(f"Wrote {written}: {size_written / 1e6:,.1f} MB in total")
    facts: dict[str, object] = {"images compared": f"{difference.images:,}"}
    if isinstance(network.output, dict):
        facts["error of 95% of the detections"] = f"at most {difference.error:.1e}"
        facts["same detections"] = f"{difference.same_top1:.1%}"
        write_facts(facts)
        return
    facts["largest error"] = f"{difference.error:.1e} of the largest logit"
    if difference.same_top5 is None:
        facts["same class"] = f"{difference.same_top1:.3%} of the pixels"
    else:
        facts["same class"] = f"{difference.same_top1:.1%}"
        facts["same five classes"] = f"{difference.same_top5:.1%}"
    write_facts(facts)


def _network(
    model: str | None, weights: str, shape: Shape, reading: Reading
) -> tuple["keras.Model", list[str], dict[str, str]]:
    """Returns the network, its class names, and the source of its weights."""
    import keras

    from keras_convnext.builders import BUILDERS
    from keras_convnext.detection.names import names_of_classes
    from keras_convnext.detection.weights import classes_of_model, is_detector
    from keras_convnext.preprocessing import class_names
    from keras_convnext.pretrained.digests import file_digest
    from keras_convnext.pretrained.record import recorded_names
    from keras_convnext.tasks import task_name

    if weights == RANDOM:
        if model is None:
            raise ValueError("Random weights need a network: name it with --model")
        keras.utils.set_random_seed(0)
        network, file = BUILDERS[model](weights=None, **shape), None
        source = {"weights": "random, seed 0"}
    else:
        file = file_of(weights, model)
        if task_name(file, **reading) == "detection":
            shape = {}  # images are resized, but keep their aspect ratio
        network = load_network(weights, model, shape, reading)
        source = {"weights": weights, "file": file.name}
        if file.is_file():
            source["sha256"] = file_digest(file)
    recorded = recorded_names(file) if file else ()
    if is_detector(network):
        names = list(names_of_classes(classes_of_model(network), recorded))
    elif isinstance(network.output_shape, tuple):
        names = [name for _, name in class_names(network.output_shape[-1], recorded)]
    else:
        names = []
    return network, names, source
