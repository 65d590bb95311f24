"""The command `demo`."""

from pathlib import Path
from typing import Annotated

import typer

from keras_convnext.cli.application import (
    Entry,
    Ignore,
    Json,
    Model,
    Prefix,
    Size,
    reading,
)
from keras_convnext.cli.detecting import served_detector
from keras_convnext.cli.loading import file_of, import_backend
from keras_convnext.cli.photographs import WeightsOrShipped, chosen_network
from keras_convnext.cli.segmenting import served_segmenter
from keras_convnext.cli.terminal import note, write_json
from keras_convnext.tasks import task_name

_DENSE = {"segmentation": served_segmenter, "detection": served_detector}  # by task


def demo(
    model: Model = None,
    weights: WeightsOrShipped = None,
    entry: Entry = None,
    prefix: Prefix = None,
    ignore: Ignore = None,
    size: Size = None,
    artifact: Annotated[
        Path | None, typer.Option(help="Folder written by `export`, to serve instead of --weights.")
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 7860,
    host: Annotated[
        str, typer.Option(help="Address to listen on. 0.0.0.0 allows access from other machines.")
    ] = "127.0.0.1",
    open_browser: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in a browser.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Serve a web page that classifies pictures, segments them, or finds their objects."""
    import_backend()
    from keras_convnext.demo.answers import network_of_artifact
    from keras_convnext.demo.page import demo_page, require_gradio, start

    require_gradio()
    chosen = reading(entry, prefix, ignore)
    if artifact:
        if model or weights or size or chosen:
            raise ValueError(
                "--artifact defines network, weights and size: omit --model, --weights, --entry, "
                f"--prefix, --ignore and --size. Received: --artifact {artifact}"
            )
        page = demo_page(network_of_artifact(artifact), note=artifact.name)
    elif weights is not None and (
        task := _DENSE.get(task_name(file := file_of(weights, model), **chosen))
    ):
        page = demo_page(task(weights, model, file, size, chosen), note=file.name)
    else:
        served = chosen_network(model, weights, size, chosen)
        page = demo_page(
            served.network,
            served.names,
            note=served.caution or served.network.name,
            least_probability=served.least_probability,
        )
    address = start(page, host, port, open_browser)
    if as_json:
        write_json({"address": address})
    note(f"Serving {address}  (press Ctrl-C to stop)")
    page.block_thread()
