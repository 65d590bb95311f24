"""Accuracy on the published sets that measure robustness, each by its own rule."""

import contextlib
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import filelock
import keras
import numpy as np

from keras_convnext.classification.class_matching import outputs_of_imagenet
from keras_convnext.classification.robustness_figures import SuiteResult, results_of
from keras_convnext.classification.robustness_report import save_report
from keras_convnext.classification.robustness_state import (
    Measured,
    RobustnessError,
    Score,
    State,
    load_state,
)
from keras_convnext.classification.scoring import image_size, images_read, scored_batches
from keras_convnext.classification.suite_data import Opened, Release, listed, open_release
from keras_convnext.classification.suites import SUITES, WNIDS, Suite
from keras_convnext.data.errors import DataError
from keras_convnext.data.images import evaluation_image, whole_image
from keras_convnext.model_digest import model_digest
from keras_convnext.pretrained.catalog_row import Checkpoint

# Called with the name of a set and part, and the numbers of images done and in total.
Progress = Callable[[str, int, int], None]


class Robustness(NamedTuple):
    """The results of `evaluate_suites`.

    Args:
        results: tuple of SuiteResult. One per set.
        size: int. Side of the images, in pixels.
        published: Checkpoint or None. The published weights that were evaluated.
    """

    results: tuple[SuiteResult, ...]
    size: int
    published: Checkpoint | None = None


def evaluate_suites(
    model: keras.Model,
    suites: Mapping[str, str | Path | None],
    output: str | Path | None = None,
    *,
    size: int | None = None,
    batch_size: int = 32,
    limit: int | None = None,
    classes: Sequence[str] | None = None,
    published: Checkpoint | None = None,
    progress: Progress | None = None,
) -> Robustness:
    """Measures accuracy on the published sets that measure robustness, each by its own rule.

    The sets are `"imagenet"` (the validation images), `"imagenet_a"`, `"imagenet_r"`,
    `"imagenet_sketch"`, `"imagenet_v2"`, `"imagenet_real"`, `"imagenet_c"` and
    `"imagenet_c_bar"`. The rules differ in which outputs are compared, how images are prepared and
    what is averaged; each result states its rule.

    With an `output` folder, the state is written after each corruption and severity, and after each
    other set. The same call continues from there, and calls for other sets add to the results. The
    folder also gets `robustness.csv`, `robustness.json` and `corruptions.csv`, and, if Matplotlib
    is installed, `robustness.png`.

    Example:

    ```python
    model = keras_convnext.ConvNeXtTiny(weights="imagenet")
    measured = evaluate_suites(model, {"imagenet_a": "imagenet-a", "imagenet_c": "imagenet-c"})
    for result in measured.results:
        print(result.title, result.metric, result.value)
    ```

    Args:
        model: keras.Model. Maps pixels in 0..255 to probabilities or logits (N, classes) of
            ImageNet-1K, ImageNet-22K or `classes`.
        suites: mapping from names of sets to data: the folder of the release, or a name in
            TensorFlow Datasets. None stands for the set's own name there.
        output: str, path or None. The folder for the results. Defaults to None, to keep nothing.
        size: int or None. Side of the images, in pixels. Defaults to None, for the input size of
            the model, or 224 if it accepts any size.
        batch_size: int. Number of images per prediction step. Defaults to 32.
        limit: int or None. Number of images of each part to score: a fixed random sample. Defaults
            to None, for all images.
        classes: sequence of str or None. The names of the model's classes, in order, with
            WordNet identifiers. Defaults to None, for those of ImageNet.
        published: Checkpoint or None. The published weights of the model, a row of
            `list_weights`, to report the published figures beside the measured ones. Defaults to
            None.
        progress: function (name, done, total), called after each batch with the name of the set
            and part, and numbers of images.

    Returns:
        A `Robustness`.

    Raises:
        DataError: If data is not a release of the set, or an image is broken.
        OutOfMemoryError: If a batch needs too much memory.
        RobustnessError: If `output` belongs to another model or to other data.
        ValueError: If a set is unknown, or `size` or `classes` do not fit the model.
    """
    if unknown := [name for name in suites if name not in SUITES]:
        raise ValueError(f"suites must be among {', '.join(SUITES)}. Received: {unknown[0]!r}")
    if not suites:
        raise ValueError(f"suites must name at least one of {', '.join(SUITES)}. Received: none")
    size = image_size(model, size)
    outputs = outputs_of_imagenet(model.output_shape[-1], classes)
    # All are found before the first is scored, which may take hours.
    releases = {name: open_release(SUITES[name], data) for name, data in suites.items()}
    folder = None if output is None else Path(output)
    with _held(folder):
        state = load_state(folder, model_digest(model, classes), size, limit)
        score = partial(_score, model, outputs, size=size, batch_size=batch_size, limit=limit)
        for name, release in releases.items():
            _score_release(name, release, state, folder, score, progress)
        measured = Robustness(results_of(state), size, published)
        if folder is not None:
            save_report(measured, folder)
    return measured


@contextlib.contextmanager
def _held(output: Path | None) -> Iterator[None]:
    """Keeps other evaluations out of a folder."""
    if output is None:
        yield
        return
    output.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(output / ".lock", timeout=0):
            yield
    except filelock.Timeout:
        raise RobustnessError(
            "Another evaluation is using this folder. Wait for it to end, or use another folder. "
            f"Received: output={output}"
        ) from None


def _score_release(
    name: str,
    release: Release,
    state: State,
    output: Path | None,
    score: Callable[..., Score],
    progress: Progress | None,
) -> None:
    """Scores the parts of a set that the state does not have yet."""
    measured = state.suites.setdefault(name, Measured())
    measured.notes, measured.is_published = list(release.notes), release.is_published
    for part in release.parts:
        opened = part.open()
        data = _digest(opened)
        if part.name in measured.parts:
            if measured.parts[part.name].data != data:
                raise RobustnessError(
                    f"The folder has results of other images for {name}, {part.name}. Use another "
                    f"output folder. Received: {opened.source.name}, output={output}"
                )
            continue
        title = f"{SUITES[name].title} {part.name}"
        tell = partial(progress, title) if progress else None
        found = score(SUITES[name], opened, tell)
        measured.parts[part.name] = found._replace(data=data)
        state.save(output)


def _digest(opened: Opened) -> str:
    """Returns a hash of the images' names and of the right answers."""
    digest = hashlib.sha256(opened.source.digest().encode())
    digest.update(np.ascontiguousarray(opened.answers).tobytes())
    return digest.hexdigest()[:16]


def _score(
    model: keras.Model,
    outputs: np.ndarray,
    suite: Suite,
    opened: Opened,
    progress: Callable[[int, int], None] | None,
    *,
    size: int,
    batch_size: int,
    limit: int | None,
) -> Score:
    """Scores the images of a part.

    Args:
        outputs: int array (1000,). The model's output for each class, -1 if it has none.
    """
    source, answers = opened.source, opened.answers
    right_outputs = np.where(answers >= 0, outputs[answers], -1)  # (labels, N)
    kept: np.ndarray = np.any(right_outputs >= 0, axis=1)
    prepare = whole_image if suite.layout == "corruptions" else evaluation_image
    compared = np.arange(model.output_shape[-1])
    if suite.among is not None:
        compared = outputs[list(suite.among)]
        compared = compared[compared >= 0]
    images, right, read, total = 0, 0, 0, images_read(source, limit)
    for scores, labels, read in scored_batches(
        model,
        source,
        partial(prepare, size=size),
        kept,
        size=size,
        batch_size=batch_size,
        limit=limit,
    ):
        best = compared[scores[:, compared].argmax(axis=1)]
        right += int((right_outputs[labels] == best[:, None]).any(axis=1).sum())
        images += len(labels)
        if progress:
            progress(read, total)
    if not images:
        raise DataError(
            f"None of the {total:,} images is of a class of {suite.title} that the model has. "
            f"Received: {source.name}"
        )
    if progress and read < total:
        progress(total, total)
    notes = list(opened.notes)
    lacking = np.unique(answers[(answers >= 0) & (right_outputs < 0)])
    if suite.layout != "reassessed" and len(lacking):
        missing = listed([WNIDS[place] for place in lacking])
        notes.append(f"not scored: classes that the model does not have: {missing}")
    return Score(images, right, total - images, tuple(notes))
