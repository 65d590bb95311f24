"""The web page: an upload area and the results."""

import base64
import io
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from html import escape
from types import ModuleType
from typing import TYPE_CHECKING, Any

import keras
from PIL import Image

from keras_convnext.classification.prediction import NONE_OF_THESE
from keras_convnext.demo.answers import (
    THRESHOLDS,
    Classifier,
    Detector,
    Drawn,
    Segmenter,
    Served,
    classifier_of,
)
from keras_convnext.demo.decoder import MOST_BYTES, UploadError
from keras_convnext.demo.lanes import MOST_WAITING, Lanes
from keras_convnext.demo.uploads import Uploads
from keras_convnext.printable import printable

if TYPE_CHECKING:
    import gradio

SENTENCE = "Drop a picture to classify it, and see which parts the network looked at."
SENTENCE_OF_SEGMENTER = "Drop a picture to see what its parts are."
SENTENCE_OF_DETECTOR = "Drop a picture to find the objects in it."
THRESHOLD = 0.5  # of the scores of the objects, at first
OPACITY = 0.6  # of the colors over a picture, at first
GONE = "This upload is no longer here: choose the picture again."

CSS = """
.gradio-container main { width: 100%; max-width: 1240px !important; }
#heading h1 { margin: 0.4em 0 0.1em; }
#heading p, #status p { margin: 0; }
#status p { min-height: 1.5em; }
#status .refused { color: #b42318; font-weight: 600; }
.dark #status .refused { color: #ff8f80; }
.picture { aspect-ratio: 1; }
.picture img { width: 100%; height: 100%; object-fit: contain; }
.layers { position: relative; width: 100%; height: 100%; }
.layers img { position: absolute; inset: 0; }
.layers label { position: absolute; inset: auto 0 0 0; padding: 0.2em 0.6em;
  background: #ffffffcc; color: #1d2733; }
.layers.found img { height: calc(100% - 2.4em); }
.layers input { width: calc(100% - 5.5em); vertical-align: middle; }
.layers.found input { width: calc(100% - 7.5em); }
"""


def demo_page(
    model: keras.Model | Served,
    names: Sequence[tuple[str, str]] | None = None,
    title: str = "ConvNeXt",
    note: str = "",
    least_probability: float | None = None,
) -> "gradio.Blocks":
    """Creates a page that classifies uploaded pictures, segments them, or finds their objects.

    Serve it with `start`. The page makes no requests to other machines and has no telemetry.

    Example:

    ```python
    page = demo_page(keras_convnext.ConvNeXtTiny(weights="imagenet"))
    print(start(page))  # http://127.0.0.1:7860/
    page.block_thread()
    ```

    Args:
        model: keras.Model, Classifier, Segmenter or Detector. A network built by one of the
            builders, with its head, a Classifier around any other, a Segmenter, or a Detector.
        names: sequence of (WordNet identifier, name) or None. As in `classifier_of`; ignored for a
            Classifier, Segmenter or Detector, which has its own. Defaults to None.
        title: str. Heading of the page. Defaults to "ConvNeXt".
        note: str. A line below the heading. Defaults to none.
        least_probability: float or None. As in `classifier_of`; ignored for a Classifier, which
            has its own. Defaults to None.

    Raises:
        ImportError: If Gradio is not installed.
    """
    gr = require_gradio()
    served = model if isinstance(model, Served) else classifier_of(model, names, least_probability)
    sentence, second, is_shown = SENTENCE_OF_SEGMENTER, "What it is", True
    is_alone = isinstance(served, Detector)
    if is_alone:
        sentence, second = SENTENCE_OF_DETECTOR, "What it found"
    if isinstance(served, Classifier):
        sentence, second, is_shown = SENTENCE, "Where it looked", served.saliency is not None
    from gradio.data_classes import GradioRootModel

    class Token(GradioRootModel):
        """What `Guard` gives visitors for an upload, in place of Gradio's paths and addresses."""

        root: str

    uploads, lanes = Uploads(), Lanes(served)
    with gr.Blocks(title=title, analytics_enabled=False) as page:
        gr.HTML(
            f"<h1>{_escaped(title)}</h1><p>{sentence}</p>" + (note and f"<p>{_escaped(note)}</p>"),
            elem_id="heading",
        )
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                # Not gr.Image, which would open the file before `respond` can check it.
                drop = gr.File(label="Picture", height=150, elem_id="drop")
                drop.data_model = Token
                status = gr.HTML(_line("status", "answered", ""), elem_id="status")
                labels = gr.Label(label="Classes", elem_id="labels")
            with gr.Column(scale=3, min_width=300), gr.Row():
                # Not gr.Image, which would keep the pictures in files.
                pictures = [
                    gr.HTML(
                        label=label,
                        show_label=True,
                        container=True,
                        min_width=200,
                        visible=visible,
                        elem_id=name,
                        elem_classes="picture",
                    )
                    for name, label, visible in (
                        ("seen", "What the network saw", not is_alone),
                        ("where", second, is_shown),
                    )
                ]
        drop.upload(
            partial(respond, lanes, uploads),
            drop,
            [drop, labels, *pictures, status],
            api_visibility="private",
            preprocess=False,
            # Gradio's queue would keep the answers of those who do not fetch them; `Lanes` has
            # queues in which slow pictures wait behind the others.
            queue=False,
        )
    page.uploads, page.lanes = uploads, lanes  # for `start`
    return page


def respond(
    lanes: Lanes, uploads: Uploads, token: str
) -> tuple[None, dict[str, float] | str | None, str | None, str | None, str]:
    """Computes the outputs of the page for an upload.

    Args:
        lanes: Lanes.
        uploads: Uploads.
        token: str. The token of an upload.

    Returns:
        tuple: None, which empties the upload area, the labels, the two pictures and a line, in
        HTML. For a rejected upload everything but the line is None.
    """
    upload = uploads.take(token) if isinstance(token, str) else None
    if upload is None:
        return None, None, None, None, _line("alert", "refused", GONE)
    try:
        found = lanes.answer(upload)
    except UploadError as error:
        return None, None, None, None, _line("alert", "refused", str(error))
    finally:
        upload.close()
    segments = isinstance(lanes.served, Segmenter)
    done = "segmented" if segments else "searched" if found.drawn else "classified"
    said = [f"{upload.name}, {done} in {found.seconds:.2f} s.", found.notice]
    labels: dict[str, float] | str = found.labels
    if found.none_of_these:
        labels = NONE_OF_THESE
        closest = ", ".join(f"{name} {share:.0%}" for name, share in found.labels.items())
        said.append(f"Closest: {closest}.")
    line = _line("status", "answered", " ".join(filter(None, said)))
    if found.drawn:
        return None, labels, None, _by_threshold(found.drawn), line
    # What the network saw without loss, the heat map small.
    seen = _picture(found.seen, "png", compress_level=1)
    if segments and found.where is not None:
        return None, labels, seen, _layers(found.seen, found.where), line
    where = None if found.where is None else _picture(found.where, "jpeg", quality=90)
    return None, labels, seen, where, line


def start(
    page: "gradio.Blocks", host: str = "127.0.0.1", port: int = 7860, open_browser: bool = False
) -> str:
    """Serves a page in a background thread, and returns its URL.

    Args:
        page: gradio.Blocks. As returned by `demo_page`. `page.block_thread()` waits,
            `page.close()` stops the server.
        host: str. Address to listen on. Defaults to "127.0.0.1"; "0.0.0.0" allows access from
            other machines.
        port: int. Port to listen on. Defaults to 7860.
        open_browser: bool. Whether to open the page in a browser. Defaults to False.

    Raises:
        OSError: If the port is in use, or the host is not an address of this machine.
    """
    gr = require_gradio()
    from starlette.middleware import Middleware

    from keras_convnext.demo.guard import Guard

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        yield
        page.uploads.clear()
        page.lanes.close()

    (event,) = page.config["dependencies"]
    guard = Middleware(
        Guard, host=host, uploads=page.uploads, costs=page.lanes.costs, event=event["id"]
    )
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
            max_threads=MOST_WAITING,
            app_kwargs={"lifespan": lifespan, "middleware": [guard]},
            footer_links=[],
            theme=gr.themes.Default(primary_hue="blue", font="system-ui", font_mono="system-ui"),
            css=CSS,
        )
    except OSError as error:
        raise OSError(
            "The page cannot be served at this address: choose another port, or an address of "
            f"this machine. Received: host={host}, port={port}"
        ) from error
    return address


def require_gradio() -> ModuleType:
    """Imports Gradio, an optional dependency.

    Raises:
        ImportError: If it is not installed; the message says how to install it.
    """
    try:
        import gradio
    except ImportError as error:
        raise ImportError(
            f'The demo page needs Gradio: pip install "keras-convnext[demo]". Received: {error}',
            name="gradio",
        ) from error
    return gradio


def _picture(image: Image.Image, kind: str, **options: int) -> str:
    """Returns a picture in HTML, which needs no file that the page would fetch."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    data = base64.b64encode(file.getvalue()).decode()
    return f'<img alt="" src="data:image/{kind};base64,{data}">'


def _layers(below: Image.Image, above: Image.Image) -> str:
    """Returns a picture with another one over it, and a slider for the opacity of the latter."""
    lower = _picture(below, "jpeg", quality=90)
    upper = _picture(above, "png", compress_level=6).replace(
        "<img ", f'<img style="opacity: {OPACITY}" '
    )
    set_opacity = "this.closest('.layers').querySelectorAll('img')[1].style.opacity = this.value"
    slider = f'type="range" min="0" max="1" step="0.05" value="{OPACITY}" oninput="{set_opacity}"'
    return f'<div class="layers">{lower}{upper}<label>Opacity <input {slider}></label></div>'


def _by_threshold(drawn: Sequence[Drawn]) -> str:
    """Returns the pictures with the objects, and a slider for the least score of those shown."""
    pictures, last = "", len(drawn) - 1
    for index, (threshold, picture) in enumerate(drawn):
        end = drawn[index + 1].threshold if index < last else 2
        is_shown = threshold <= THRESHOLD < end
        visible = "visible" if is_shown else "hidden"
        pictures += _picture(picture, "jpeg", quality=88).replace(
            "<img ", f'<img data-from="{threshold}" data-to="{end}" style="visibility: {visible}" '
        )
    show = (
        "for (const each of this.closest('.layers').querySelectorAll('img')) {"
        " const isShown = +each.dataset.from <= +this.value && +this.value < +each.dataset.to;"
        " each.style.visibility = isShown ? 'visible' : 'hidden'; }"
    )
    limits = f'min="{THRESHOLDS[0]}" max="{THRESHOLDS[-1]}" step="0.1" value="{THRESHOLD}"'
    slider = f'<input type="range" {limits} oninput="{escape(show)}">'
    return f'<div class="layers found">{pictures}<label>Least score {slider}</label></div>'


def _line(role: str, kind: str, text: str) -> str:
    return f'<p role="{role}" class="{kind}">{_escaped(text)}</p>'


def _escaped(text: str) -> str:
    """Returns a text as HTML that shows it."""
    return escape(printable(text))
