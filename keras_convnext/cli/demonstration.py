"""`demo`: a page where photographs are dropped."""

from pathlib import Path
from typing import Annotated

import typer

from keras_convnext.cli.application import Size, messages
from keras_convnext.cli.photographs import Model, chosen_network
from keras_convnext.demo.answers import classifier_of_artifact
from keras_convnext.demo.page import demo_page, require_gradio, start


def demo(
    model: Model = None,
    weights: Annotated[
        str | None, typer.Option(help="As in `predict`, and with the same default.")
    ] = None,
    size: Size = None,
    artifact: Annotated[
        Path | None, typer.Option(help="What `export` wrote, in place of all these.")
    ] = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where the page is served.")] = 7860,
    host: Annotated[
        str, typer.Option(help="To whom: 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    open_browser: Annotated[
        bool, typer.Option("--open/--no-open", help="Open the page in a browser.")
    ] = False,
) -> None:
    """Serve a page that classifies a picture dropped on it, and shows where the network looked."""
    require_gradio()
    if artifact:
        if model or weights or size:
            raise ValueError("--artifact has its own network, weights and size: leave theirs out.")
        page = demo_page(classifier_of_artifact(artifact), note=artifact.name)
    else:
        network, names, warning = chosen_network(model, weights, size)
        page = demo_page(network, names, note=warning or network.name)
    address = start(page, host, port, open_browser)
    messages.print(f"Serving {address}  (Ctrl-C stops)", markup=False, highlight=False)
    page.block_thread()
