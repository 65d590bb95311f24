"""Scores of a segmenter over a set of images, by the published rules."""

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_convnext.data.errors import DataError
from keras_convnext.feature_maps import with_values
from keras_convnext.model_digest import model_digest
from keras_convnext.printable import PrintableError, printable
from keras_convnext.segmentation.inference import (
    CROP,
    SCALE,
    STRIDE,
    predict_classes,
    with_logits,
)
from keras_convnext.segmentation.scores import IGNORED, Counts, Scores, count, scores_of
from keras_convnext.segmentation.source import PairSource
from keras_convnext.training.state import write_whole

_FILE = "state.json"
_LARGEST = 2**20  # bytes; the counts of 150 classes take 5 kB
_SAVED_AFTER = 25  # images


class EvaluationError(PrintableError):
    """An output folder belongs to another evaluation, or is damaged."""


def evaluate(
    model: keras.Model,
    examples: PairSource | Iterable[tuple[np.ndarray, np.ndarray]],
    *,
    scale: tuple[int, int] | None = SCALE,
    crop: int = CROP,
    stride: int = STRIDE,
    ratios: Sequence[float] = (),
    ignored: int = IGNORED,
    limit: int | None = None,
    names: Sequence[str] = (),
    output: str | Path | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> Scores:
    """Measures the mean intersection over union of a segmenter.

    Example:

    ```python
    model = UperNet("convnext_tiny", weights="ade20k")
    scores = evaluate(model, open_pairs("ADEChallengeData2016", "validation"))
    print(scores.mean_iou)
    ```

    Args:
        model: keras.Model. As in `predict_classes`, not a function.
        examples: PairSource, as returned by `open_pairs`, or iterable of pairs of arrays: an image
            (H, W, 3) in 0..255 and its labels (H, W).
        scale: tuple of int or None. As in `predict_classes`. Defaults to (2048, 512).
        crop: int. As in `predict_classes`.
        stride: int. As in `predict_classes`.
        ratios: sequence of float. As in `predict_classes`.
        ignored: int. Label of pixels that are not scored, in arrays. Defaults to 255.
        limit: int or None. Number of images to evaluate, of a source a random sample. Defaults to
            None, for all.
        names: sequence of str. Class names of the model. A source may have some of them, in any
            order. Defaults to none: classes are matched by their numbers.
        output: str, path or None. Folder in which the counts are kept, so that an interrupted
            evaluation of a source is resumed. Defaults to None.
        progress: function (done, total or None), called after each image.

    Returns:
        `Scores` over all images.

    Raises:
        ValueError: If a label is out of range, sizes differ, or nothing is labeled.
        DataError: If the data has classes that the model does not have, or is broken.
        EvaluationError: If `output` belongs to another evaluation.
    """
    model = with_values(model)
    classes = model.output_shape[-1]
    settings = {"scale": scale, "crop": crop, "stride": stride, "ratios": ratios}
    total: int | None = None
    state = _State("", "", settings, limit, Counts.none(classes))
    if isinstance(examples, PairSource):
        order = np.random.default_rng(0).permutation(examples.size)[:limit]
        total = len(order)
        if output is not None:
            digests = model_digest(model, names), examples.digest()
            state = _load(Path(output), _State(*digests, settings, limit, Counts.none(classes)))
        ignored = _NO_LABEL
        pairs = _pairs(examples, np.sort(order)[state.images :], classes, names)
    else:
        pairs = itertools.islice(iter(examples), limit)
    predict = with_logits(model)
    for image, labels in pairs:
        found = predict_classes(predict, image, **settings)  # type: ignore[arg-type]
        state.counts += count(found, labels, classes, ignored)
        state.images += 1
        if output is not None and total is not None and _is_to_be_saved(state.images, total):
            state.save(Path(output))
        if progress is not None:
            progress(state.images, total)
    return scores_of(state.counts)


_NO_LABEL = -1  # of pixels without a class, in a source


def _is_to_be_saved(images: int, total: int) -> bool:
    return images % _SAVED_AFTER == 0 or images == total


def _pairs(
    source: PairSource, indices: np.ndarray, classes: int, names: Sequence[str]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields images and labels in the numbering of the model."""
    numbers = _numbers(source, classes, names)
    for index in indices:
        image, labels = source.arrays(int(index))
        yield image, np.where(labels < 0, _NO_LABEL, numbers[labels])


def _numbers(source: PairSource, classes: int, names: Sequence[str]) -> np.ndarray:
    """Returns the model's number of each class of the data.

    Raises:
        DataError: If the model does not have a class.
    """
    own = source.classes
    are_named = list(own) != [f"class {number}" for number in range(len(own))]
    if names and are_named:
        known = {name: number for number, name in enumerate(names)}
        if missing := [name for name in own if name not in known]:
            raise DataError(
                "The data has classes that the model does not have: "
                f"{printable(', '.join(missing[:5]))}. Received: {source.name}"
            )
        return np.array([known[name] for name in own])
    if len(own) > classes or (are_named and len(own) != classes):
        raise DataError(
            f"The model has {classes} classes, and the data {len(own)}. Received: {source.name}"
        )
    return np.arange(len(own))


@dataclass
class _State:
    """What has been counted, and what it depends on."""

    model: str
    data: str
    settings: dict[str, Any]
    limit: int | None
    counts: Counts
    images: int = field(default=0)

    def save(self, output: Path) -> None:
        output.mkdir(parents=True, exist_ok=True)
        counts = [each.tolist() for each in self.counts]
        text = json.dumps({**asdict(self), "counts": counts}, indent=1) + "\n"
        write_whole(output / _FILE, partial(Path.write_text, data=text, encoding="utf-8"))


def _load(output: Path, new: _State) -> _State:
    """Reads the state in a folder, or returns the new one.

    Raises:
        EvaluationError: If it is damaged, or belongs to another evaluation.
    """
    path = output / _FILE
    if not path.exists():
        return new
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError("it is too large")
        found = json.loads(path.read_bytes())
        counts = Counts(*(np.array(each, np.int64) for each in found["counts"]))
        images = int(found["images"])
        if [each.shape for each in counts] != [each.shape for each in new.counts]:
            raise ValueError("it has other classes")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise EvaluationError(
            f"The state of the evaluation is damaged: {printable(error)}. Delete it, or use "
            f"another output folder. Received: {path}"
        ) from error
    expected = json.loads(json.dumps(asdict(new)["settings"]))
    own = {"model": new.model, "data": new.data, "settings": expected, "limit": new.limit}
    for name, value in own.items():
        if found.get(name) != value:
            raise EvaluationError(
                f"The folder belongs to an evaluation with another {name}: "
                f"{printable(found.get(name))}. Use another output folder. "
                f"Received: {name}={value}, output={output}"
            )
    return _State(new.model, new.data, new.settings, new.limit, counts, images)
