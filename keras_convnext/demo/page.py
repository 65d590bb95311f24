"""The page: where a picture is dropped, and what is shown of it."""

from collections.abc import Sequence
from functools import partial
from html import escape
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import keras
from PIL import Image

from keras_convnext.demo.answers import MOST_BYTES, Classifier, UploadError, answer, classifier_of
from keras_convnext.pictures import name_of

if TYPE_CHECKING:
    import gradio

SENTENCE = "Drop a picture: the network names what it sees, and shows where it looked."
KEPT = 3600  # seconds that uploads stay on the disk of the machine that serves the page

CSS = """
.gradio-container main { width: 100%; max-width: 1240px !important; }
#heading h1 { margin: 0.4em 0 0.1em; }
#heading p, #status p { margin: 0; }
#status p { min-height: 1.5em; }
#status .refused { color: #b42318; font-weight: 600; }
.dark #status .refused { color: #ff8f80; }
.picture { aspect-ratio: 1; }
.picture img { width: 100%; height: 100%; object-fit: contain; }
"""


def demo_page(
    model: keras.Model | Classifier,
    names: Sequence[tuple[str, str]] | None = None,
    title: str = "ConvNeXt",
    note: str = "",
) -> "gradio.Blocks":
    """Makes a page where a person drops a picture and sees its classes and where they come from.

    It is served by `start`. It asks nothing of other machines and tells them nothing.

    Example:

    ```python
    page = demo_page(keras_convnext.ConvNeXtTiny(weights="imagenet"))
    print(start(page))  # http://127.0.0.1:7860/
    page.block_thread()
    ```

    Args:
        model: keras.Model or Classifier. A network made by one of the builders, with its head; or
            what stands for another.
        names: sequence of (WordNet identifier, name) or None. As in `classifier_of`; a Classifier
            has its own. Defaults to None.
        title: str. The heading. Defaults to "ConvNeXt".
        note: str. A line below it. Defaults to none.

    Raises:
        ImportError: If Gradio is not installed.
    """
    gr = require_gradio()
    classifier = model if isinstance(model, Classifier) else classifier_of(model, names)
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(KEPT, KEPT)) as page:
        gr.HTML(
            f"<h1>{escape(title)}</h1><p>{SENTENCE}</p>" + (note and f"<p>{escape(note)}</p>"),
            elem_id="heading",
        )
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                # Not gr.Image, which opens the file before `respond` can look at it.
                drop = gr.File(label="Picture", height=150, elem_id="drop")
                status = gr.HTML(_line("status", "answered", ""), elem_id="status")
                labels = gr.Label(label="Classes", elem_id="labels")
            with gr.Column(scale=3, min_width=300), gr.Row():
                pictures = [
                    gr.Image(
                        label=label,
                        format="png",
                        interactive=False,
                        buttons=[],
                        min_width=200,
                        visible=visible,
                        elem_id=name,
                        elem_classes="picture",
                    )
                    for name, label, visible in (
                        ("seen", "What the network saw", True),
                        ("where", "Where it looked", classifier.saliency is not None),
                    )
                ]
        drop.upload(
            partial(respond, classifier),
            drop,
            [drop, labels, *pictures, status],
            api_visibility="private",
        )
    return page


def respond(
    classifier: Classifier, upload: str
) -> tuple[None, dict[str, float] | None, Image.Image | None, Image.Image | None, str]:
    """Tells what the page shows after an upload.

    Args:
        classifier: Classifier.
        upload: str. The file, on this machine.

    Returns:
        What goes into the drop area, which is always emptied for the next picture; the labels, the
        two pictures, and a line of HTML. A refused upload leaves nothing but the line.
    """
    try:
        found = answer(classifier, upload)
    except UploadError as error:
        return None, None, None, None, _line("alert", "refused", str(error))
    line = f"{name_of(Path(upload).name)}, answered in {found.seconds:.2f} s. {found.notice}"
    return None, found.labels, found.seen, found.where, _line("status", "answered", line)


def start(
    page: "gradio.Blocks", host: str = "127.0.0.1", port: int = 7860, open_browser: bool = False
) -> str:
    """Serves a page from a thread of its own, and returns its address.

    Args:
        page: gradio.Blocks. As `demo_page` makes it; `page.block_thread()` waits, `page.close()`
            stops.
        host: str. "0.0.0.0" lets other machines in. Defaults to "127.0.0.1", which does not.
        port: int. Defaults to 7860.
        open_browser: bool. Whether to open it in the browser of this machine. Defaults to False.

    Raises:
        OSError: If the port is taken, or the host is none of this machine's.
    """
    gr = require_gradio()
    try:
        _, address, _ = page.launch(
            server_name=host,
            server_port=port,
            inbrowser=open_browser,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            run_history=False,
            ssr_mode=False,
            enable_monitoring=False,
            max_file_size=MOST_BYTES,
            footer_links=[],
            theme=gr.themes.Default(primary_hue="blue", font="system-ui", font_mono="system-ui"),
            css=CSS,
        )
    except OSError as error:
        raise OSError(
            "Nothing can be served there: name another port, or a host of this machine. "
            f"Received: host={host}, port={port}"
        ) from error
    return address


def require_gradio() -> ModuleType:
    """Imports Gradio, which is an optional extra.

    Raises:
        ImportError: If it is not installed; the message says what to do.
    """
    try:
        import gradio
    except ImportError as error:
        raise ImportError(
            f'The demo page takes Gradio: pip install "keras-convnext[demo]". Received: {error}',
            name="gradio",
        ) from error
    return gradio


def _line(role: str, kind: str, text: str) -> str:
    return f'<p role="{role}" class="{kind}">{escape(text)}</p>'
