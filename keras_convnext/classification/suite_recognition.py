"""Recognizes sets of `suites` in other data: plain accuracy would score them by a wrong rule."""

import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from keras_convnext.classification.suites import GENERATED_C, SEVERITIES, SUITES, WNIDS
from keras_convnext.data.errors import DataError
from keras_convnext.data.folders import subfolders
from keras_convnext.data.records import RecordSource
from keras_convnext.data.source import Source

# What plain accuracy would do wrong, by suite.
_WRONG = {
    "imagenet_a": "all outputs would be compared instead of those of its 200 classes",
    "imagenet_r": "all outputs would be compared instead of those of its 200 classes",
    "imagenet_v2": "folders that are numbers would be sorted as text: 0, 1, 10, 100",
    "imagenet_real": "each image would have only its original label",
    "imagenet_c": "images that are cropped already would be resized and cropped again",
    "imagenet_c_bar": "images that are cropped already would be resized and cropped again",
}
_OF_DATASETS = {
    SUITES[name].dataset: name for name in ("imagenet_a", "imagenet_r", "imagenet_real")
} | {GENERATED_C: "imagenet_c"}
_OF_CORRUPTIONS = {
    corruption: name
    for name, suite in SUITES.items()
    for corruption in (*suite.corruptions, *suite.extras)
}
_SEVERITIES = set(map(str, SEVERITIES))
_ARCHIVES = ("noise", "blur", "weather", "digital", "extra")  # of ImageNet-C


def refuse_suite_data(data: str | Path) -> None:
    """Refuses the path or the name of a set that has a rule of its own, before it is opened.

    Raises:
        DataError: If it is one; the message has the command to use.
    """
    text = str(data)
    folder = Path(data).expanduser()
    if text.startswith("tfds:") or not os.path.exists(folder):
        plain = re.split("[:/]", text.removeprefix("tfds:"))[0]
        if plain in _OF_DATASETS:
            value = text if plain != GENERATED_C else GENERATED_C
            raise _refusal(_OF_DATASETS[plain], value, text)
    elif os.path.isdir(folder) and (found := _corruptions_around(folder.absolute())):
        raise _refusal(*found, text)


def refuse_suite_source(source: Source, outputs: int, names: Sequence[str] | None) -> None:
    """Refuses a set that has a rule of its own, by its classes.

    Args:
        source: Source. The opened data.
        outputs: int. Number of outputs of the model.
        names: sequence of str or None. The classes of the model, if known.

    Raises:
        DataError: If it is one; the message has the command to use.
    """
    classes = set(source.classes)
    if isinstance(source, RecordSource) and source.classes == WNIDS:
        for word in re.split(r"[:/\\]", source.name):
            if word in _OF_DATASETS:
                raise _refusal(_OF_DATASETS[word], source.name, source.name)
    for name in ("imagenet_a", "imagenet_r"):
        among = SUITES[name].among or ()
        if outputs > len(among) and classes == {WNIDS[place] for place in among}:
            raise _refusal(name, source.name, source.name)
    numbers = set(map(str, range(len(WNIDS))))
    if classes == numbers and not classes & set(names or ()):
        raise _refusal("imagenet_v2", source.name, source.name)


def _corruptions_around(folder: Path) -> tuple[str, Path] | None:
    """Returns the suite and its root, if a folder is or contains a corruption or a severity."""
    for name in subfolders(folder):
        if _is_corruption(folder / name):
            return _OF_CORRUPTIONS[name], folder
        if name in _ARCHIVES:
            for each in subfolders(folder / name):
                if _is_corruption(folder / name / each):
                    return _OF_CORRUPTIONS[each], folder
    if _is_corruption(folder):
        return _OF_CORRUPTIONS[folder.name], folder.parent
    if folder.name in _SEVERITIES and _is_corruption(folder.parent):
        return _OF_CORRUPTIONS[folder.parent.name], folder.parent.parent
    return None


def _is_corruption(folder: Path) -> bool:
    """Whether a folder has the name of a corruption, and only severities inside.

    A class of photographs may be called fog, too.
    """
    if folder.name not in _OF_CORRUPTIONS:
        return False
    inside = set(subfolders(folder))
    return bool(inside) and inside <= _SEVERITIES


def _refusal(name: str, value: str | Path, received: str) -> DataError:
    return DataError(
        f"This looks like {SUITES[name].title}, which has its own rule: {_WRONG[name]}. Evaluate "
        f"it with --suite {shlex.quote(f'{name}={value}')}, or in Python with "
        f"evaluate_suites(model, {{{name!r}: {str(value)!r}}}). Received: {received}"
    )
