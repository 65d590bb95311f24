"""Opens the sets of `suites` as they were released, or from TensorFlow Datasets."""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_convnext.classification.suites import (
    CORRUPTED_SIZE,
    GENERATED_C,
    SEVERITIES,
    WHOLE,
    WNIDS,
    Suite,
)
from keras_convnext.data.errors import DataError
from keras_convnext.data.folders import FolderSource, class_folders, subfolders
from keras_convnext.data.reassessed import open_reassessed
from keras_convnext.data.source import Source
from keras_convnext.data.sources import open_source
from keras_convnext.data.tfds_source import find_builder, open_tfds
from keras_convnext.pictures import read_picture

_MOST_SHOWN = 5  # names in a note
_PLACES = {wnid: place for place, wnid in enumerate(WNIDS)}


class Opened(NamedTuple):
    """The images of a part, and the right answers.

    Args:
        source: Source. The images.
        answers: int64 array (labels of the source, N). The indices in ImageNet-1K of the right
            classes, filled up with -1. Images of a label without any are not scored.
        notes: tuple of str. What is not scored or missing.
    """

    source: Source
    answers: np.ndarray
    notes: tuple[str, ...] = ()


class Part(NamedTuple):
    """A part of a set that is scored at a time: one corruption and severity, or the whole set.

    Args:
        name: str. Such as "fog/3", or `WHOLE`.
        open: function. Returns the part as `Opened`, which lists its files.
    """

    name: str
    open: Callable[[], Opened]


class Release(NamedTuple):
    """What of a set is present.

    Args:
        parts: tuple of Part.
        notes: tuple of str. What is present but not scored.
        is_published: bool. Whether these are the images that published figures are about. Defaults
            to True.
    """

    parts: tuple[Part, ...]
    notes: tuple[str, ...] = ()
    is_published: bool = True


def open_release(suite: Suite, data: str | Path | None) -> Release:
    """Finds the parts of a set.

    Args:
        suite: Suite. The set.
        data: str, path or None. The folder of the release, or a name in TensorFlow Datasets. None
            stands for the name that the set has there.

    Raises:
        DataError: If the data is not a release of this set.
    """
    if data is None:
        if suite.dataset is None:
            raise DataError(
                f"{suite.title} is not in TensorFlow Datasets: pass the folder of its release, as "
                "--suite NAME=FOLDER"
            )
        data = f"tfds:{suite.dataset}"
    if suite.layout == "corruptions":
        text = str(data).removeprefix("tfds:")
        if text.partition(":")[0] == GENERATED_C and (
            text != str(data) or not os.path.exists(text)
        ):
            return _generated(suite, text)
        return _corrupted(suite, Path(data).expanduser())
    folder = Path(data).expanduser()
    if suite.layout == "numbers" and os.path.isdir(folder) and _is_numbered(folder):
        opened: Callable[[], Opened] = partial(_open_numbers, suite, folder)
    elif suite.layout == "reassessed":
        opened = partial(_open_reassessed, data)
    else:
        opened = partial(_open_classes, suite, data)
    place = "/".join(Path(data).parts[-2:])
    other = next((name for name in ("threshold", "topimages") if name in place), None)
    if suite.layout == "numbers" and other:
        note = f"this is the variant {other}; published figures are of matched-frequency"
        return Release((Part(WHOLE, opened),), (note,), is_published=False)
    return Release((Part(WHOLE, opened),))


def _open_classes(suite: Suite, data: str | Path) -> Opened:
    return _answered(suite, open_source(data))


def _open_reassessed(data: str | Path) -> Opened:
    return Opened(*open_reassessed(data))


def _is_numbered(folder: Path) -> bool:
    return any(map(str.isdecimal, subfolders(folder)))


def _open_numbers(suite: Suite, folder: Path) -> Opened:
    """Opens a folder per class that is named by the index of the class, `0` to `999`."""
    folders = class_folders(folder)
    indices = {name: int(name) for name in folders if name.isdecimal() and name.isascii()}
    known = {name: index for name, index in indices.items() if index < len(WNIDS)}
    if len(set(known.values())) < len(known):
        raise DataError(f"Two class folders have the same number. Received: {folder}")
    classes = {WNIDS[index]: folders[name] for name, index in known.items()}
    source = FolderSource(folder, "test", classes)
    opened = _answered(suite, source)
    unknown = [name for name in folders if name not in known]
    return opened._replace(notes=(*_about_unknown(suite, unknown, None), *opened.notes))


def _open_part(suite: Suite, folder: Path) -> Opened:
    opened = _answered(suite, FolderSource(folder, "test", class_folders(folder)))
    _check_size(suite, opened.source)
    return opened


def _open_generated(suite: Suite, name: str) -> Opened:
    opened = _answered(suite, open_tfds(name, None))
    _check_size(suite, opened.source)
    return opened


def _check_size(suite: Suite, source: Source) -> None:
    """Refuses images that were not cropped as in the release, by the first of them."""
    name = source.name_of(0)
    size = read_picture(source.example(0)[0], name).image.size
    if size != (CORRUPTED_SIZE, CORRUPTED_SIZE):
        raise DataError(
            f"The files of {suite.title} are squares of {CORRUPTED_SIZE} px, cropped before they "
            "were corrupted. Others are scored by no published rule. "
            f"Received: {size[0]} x {size[1]} px in {name}"
        )


def _answered(suite: Suite, source: Source) -> Opened:
    """Finds the classes of a source by their WordNet identifiers."""
    counted = set(range(len(WNIDS)) if suite.among is None else suite.among)
    places = [_PLACES.get(name, -1) for name in source.classes]
    answers = np.array([place if place in counted else -1 for place in places], np.int64)
    if (answers < 0).all():
        raise DataError(
            f"{suite.title} has classes with WordNet identifiers such as {WNIDS[min(counted)]}, "
            f"and none of these is one: {source.classes[0]}. Received: {source.name}"
        )
    counts = source.counts()
    notes: list[str] = []
    if counts is None:
        unknown = [name for name, place in zip(source.classes, places) if place < 0]
        notes += _about_unknown(suite, unknown, None)
    else:
        left_out = (answers < 0) & (counts > 0)
        unknown = [source.classes[label] for label in np.flatnonzero(left_out)]
        notes += _about_unknown(suite, unknown, int(counts[left_out].sum()))
        present = set(answers[counts > 0].tolist())
        absent = [WNIDS[place] for place in sorted(counted - present)]
        if absent:
            notes.append(
                f"{len(absent):,} of {len(counted):,} classes have no images: {listed(absent)}"
            )
    return Opened(source, answers[:, None], tuple(notes))


def _about_unknown(suite: Suite, unknown: Sequence[str], images: int | None) -> list[str]:
    if not unknown:
        return []
    number = "" if images is None else f"{images:,} images of "
    return [f"not scored: {number}classes that {suite.title} does not have: {listed(unknown)}"]


def _corrupted(suite: Suite, folder: Path) -> Release:
    """Finds `<corruption>/<severity>` in a folder."""
    found, unknown = _corruption_folders(suite, folder)
    notes = []
    if unknown:
        notes.append(f"not scored: {listed(unknown)}, which {suite.title} does not have")
    severities = list(map(str, SEVERITIES))
    parts = []
    for corruption in (*suite.corruptions, *suite.extras):
        if corruption not in found:
            continue
        present = subfolders(found[corruption])
        if others := [name for name in present if name not in severities]:
            notes.append(f"not scored: {corruption}/{listed(others)}, which is not a severity")
        for severity in severities:
            classes = found[corruption] / severity
            if severity in present and subfolders(classes):
                name = f"{corruption}/{severity}"
                parts.append(Part(name, partial(_open_part, suite, classes)))
    return Release(tuple(parts), tuple(notes))


def _corruption_folders(suite: Suite, folder: Path) -> tuple[dict[str, Path], list[str]]:
    """Finds corruptions in a folder, or in folders such as `noise` inside, as in the archives.

    Returns:
        The folder of each corruption, and the names of other folders.
    """
    if not os.path.isdir(folder):
        raise DataError(f"There is no such folder. Received: {folder}")
    known = {*suite.corruptions, *suite.extras}
    places: list[str] = []
    for name in subfolders(folder):
        inside = [] if name in known else subfolders(folder / name)
        places += [f"{name}/{each}" for each in inside] if known & set(inside) else [name]
    found: dict[str, Path] = {}
    unknown = []
    for place in places:
        corruption = place.rpartition("/")[2]
        if corruption not in known:
            unknown.append(place)
        elif corruption in found:
            raise DataError(f"{corruption} is in {found[corruption]} and in {folder / place}")
        else:
            found[corruption] = folder / place
    if not found:
        raise DataError(
            f"{suite.title} has a folder per corruption, such as {suite.corruptions[0]}/1/"
            f"{WNIDS[0]}. Pass the folder that contains these. It contains "
            f"{listed(unknown) or 'no folders'}. Received: {folder}"
        )
    return found, unknown


def _generated(suite: Suite, name: str) -> Release:
    """Finds the prepared configurations of `imagenet2012_corrupted`."""
    plain, colon, version = name.partition(":")
    parts, absent = [], []
    for corruption in (*suite.corruptions, *suite.extras):
        for severity in SEVERITIES:
            full = f"{plain}/{corruption}_{severity}{colon}{version}"
            if find_builder(full).info.splits:
                opened = partial(_open_generated, suite, full)
                parts.append(Part(f"{corruption}/{severity}", opened))
            else:
                absent.append(f"{corruption}_{severity}")
    if not parts:
        raise DataError(
            f"No configuration of {plain} has been prepared. Prepare them with `tfds build "
            f"{plain}/{absent[0]}` and so on, or use the published files. Received: {name}"
        )
    note = (
        f"{plain} is generated from the validation images, and differs from the published files: "
        "figures cannot be compared with published ones"
    )
    return Release(tuple(parts), (note,), is_published=False)


def listed(names: Sequence[str]) -> str:
    """Returns the first names, and how many more there are."""
    more = f" and {len(names) - _MOST_SHOWN:,} more" if len(names) > _MOST_SHOWN else ""
    return ", ".join(names[:_MOST_SHOWN]) + more
