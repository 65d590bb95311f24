"""Finds out which label in the masks is which class."""

import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from keras_convnext.data.errors import DataError
from keras_convnext.data.stored import File, title
from keras_convnext.segmentation.class_table import CITYSCAPES, CITYSCAPES_IDS, VOC, Entry
from keras_convnext.segmentation.colors import colors_of_classes, names_of_classes
from keras_convnext.segmentation.losses import NO_CLASS
from keras_convnext.segmentation.masks import Color, Table, color_of, read_mask, size_of_picture
from keras_convnext.segmentation.pairs import Pairs
from keras_convnext.segmentation.recipes import Labels

_ADE20K = 150  # classes
_MOST_COLORS = 2**12  # in a mask
UNLABELED = 255  # the label that means "no class" everywhere


class Found(NamedTuple):
    """The labels that occur in masks.

    Args:
        pixels: dict from int to int. Number of pixels of each label or color.
        examples: dict from int to a mask in which it occurs.
        has_colors: bool. Whether the masks have colors.
    """

    pixels: Mapping[int, int]
    examples: Mapping[int, File]
    has_colors: bool


class Meaning(NamedTuple):
    """What the labels in masks mean.

    Args:
        classes: tuple of str. Names of the classes, in order.
        table: Table. The class of each label.
        colors: tuple or None. The color of each class, if all are known.
        report: str. What was found out, for a message.
    """

    classes: tuple[str, ...]
    table: Table
    colors: tuple[Color, ...] | None
    report: str


def recorded_labels(preprocessing: Mapping[str, Any]) -> Labels:
    """Returns the labels that a file of `train` records, for masks that are numbered alike."""
    found = preprocessing.get("labels")
    first, ignored = (
        (found.get("first_label"), found.get("ignored"))
        if isinstance(found, dict)
        else (None, None)
    )
    return Labels(
        first_label=first if isinstance(first, int) else None,
        ignored=tuple(each for each in ignored if isinstance(each, int))
        if isinstance(ignored, list)
        else (),
    )


def find_labels(pairs: Pairs, progress: Callable[[int, int], None] | None = None) -> Found:
    """Reads all masks, and compares their sizes with those of the images.

    Raises:
        DataError: If a mask is broken or of another size than its image; the message names it.
    """
    pixels: Counter[int] = Counter()
    examples: dict[int, File] = {}
    kinds: dict[bool, File] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for number, (mask, (has_colors, counts)) in enumerate(
            zip(pairs.masks, pool.map(_counted, pairs.images, pairs.masks)), 1
        ):
            kinds.setdefault(has_colors, mask)
            if len(kinds) > 1:
                raise DataError(
                    "Some masks have colors and others have not. Save all in the same way. "
                    f"Received: {title(kinds[True])} and {title(kinds[False])}"
                )
            pixels.update(counts)
            for label in counts:
                examples.setdefault(label, mask)
            if progress is not None:
                progress(number, len(pairs.masks))
    return Found(pixels, examples, True in kinds)


def _counted(image: File, path: File) -> tuple[bool, dict[int, int]]:
    mask = read_mask(path)
    size = size_of_picture(image)
    if size != mask.labels.shape:
        raise DataError(
            "A mask must have the size of its image. Received: "
            f"{mask.labels.shape[1]} x {mask.labels.shape[0]} px in {title(path)}, and "
            f"{size[1]} x {size[0]} px in {title(image)}"
        )
    if mask.labels.dtype == np.int64:
        values, counts = np.unique(mask.labels, return_counts=True)
        if len(values) > _MOST_COLORS:
            raise DataError(
                f"The mask has {len(values):,} colors, like a photograph: a mask has one color per "
                f"class. Received: {title(path)}"
            )
    else:
        counts = np.bincount(mask.labels.ravel())
        values = np.flatnonzero(counts)
        counts = counts[values]
    return mask.has_colors, dict(zip(values.tolist(), counts.tolist()))


def meaning_of(found: Found, pairs: Pairs, entries: Sequence[Entry], own: Labels) -> Meaning:
    """Infers the class of each label.

    Args:
        found: Found. The labels that occur.
        pairs: Pairs. The masks.
        entries: sequence of Entry. The listed classes; possibly none.
        own: Labels. The fields of the recipe, which override what is inferred.

    Raises:
        DataError: If a label has no class, or the numbering is ambiguous.
    """
    entries = list(entries) or _known_entries(pairs.kind)
    if found.has_colors:
        return _of_colors(found, entries)
    if pairs.kind == "cityscapes_ids" and own.first_label is None:
        of_ids = {label: number for number, label in enumerate(CITYSCAPES_IDS)}
        ids = {label: of_ids.get(label, NO_CLASS) for label in range(UNLABELED + 1)}
        return _meaning(CITYSCAPES, ids, entries, "Cityscapes: 19 of the 34 labels are classes")
    first = own.first_label
    if first is None and pairs.kind == "ade20k":
        first = 1
    ignored = {UNLABELED, *own.ignored}
    occurring = sorted(set(found.pixels) - ignored)
    if not occurring:
        raise DataError(f"No pixel has a class. Received: only the labels {sorted(found.pixels)}")
    if not entries:
        first = first or 0
        entries = [Entry(f"class {number}") for number in range(occurring[-1] - first + 1)]
    if first is None:
        first = _first_label(occurring, entries, found)
    if first:
        ignored.add(0)
    table = dict.fromkeys(ignored, NO_CLASS)
    classes = 0
    for label, entry in enumerate(entries, first):
        if entry.ignored or label in ignored:
            table[label] = NO_CLASS
        else:
            table[label] = classes
            classes += 1
    kept = [entry for label, entry in enumerate(entries, first) if table[label] != NO_CLASS]
    if not kept:
        raise DataError(
            f"No label is of a class with first_label={first} and ignored={own.ignored}. "
            f"Received: the labels {', '.join(map(str, occurring[:9]))}"
        )
    return _meaning([entry.name for entry in kept], table, kept, _report(found, table, kept, first))


def _known_entries(kind: str) -> list[Entry]:
    if kind == "ade20k":
        colors = colors_of_classes(_ADE20K).tolist()
        return [Entry(*each) for each in zip(names_of_classes(_ADE20K), map(tuple, colors))]
    if kind == "voc":
        return [Entry(name) for name in VOC]
    if kind.startswith("cityscapes"):
        return [Entry(name) for name in CITYSCAPES]
    return []


def _first_label(occurring: Sequence[int], entries: Sequence[Entry], found: Found) -> int:
    """Returns the label of the first class."""
    count, highest = len(entries), occurring[-1]
    if highest < count:
        return 0
    if highest == count and occurring[0] > 0:
        return 1
    if highest == count:
        raise DataError(
            f"The masks have the labels 0 to {count}, one more than there are classes. Either 0 or "
            f"{count} has no class: use first_label=1 (--set first_label=1) if it is 0, and "
            f"ignored={count} (--set ignored={count}) if it is {count}; or list it as void. "
            f"Received: {count} classes, and {title(found.examples[highest])}"
        )
    return 0


def refuse_unknown(found: Found, meaning: Meaning) -> None:
    """Refuses labels and colors without a meaning.

    Raises:
        DataError: If there are any; the message says where.
    """
    table = meaning.table
    unknown = sorted(set(found.pixels) - set(table.keys.tolist()))
    if not unknown:
        return
    value = unknown[-1]
    path = found.examples[value]
    row, column = map(int, np.argwhere(read_mask(path).labels == value)[0])
    where = f"at row {row}, column {column}"
    if table.has_colors:
        others = f", and so have {len(unknown) - 1:,} other colors" * (len(unknown) > 1)
        raise DataError(
            f"The color {color_of(value)} {where} has no class{others}. Add it to classes.json. "
            f"Received: {title(path)}"
        )
    others = f", and so have {len(unknown) - 1:,} other labels" * (len(unknown) > 1)
    named = table.keys[table.classes != NO_CLASS]
    raise DataError(
        f"The label {value} {where} has no class{others}: the {len(meaning.classes)} classes have "
        f"the labels {named[0]} to {named[-1]}. Add the class, or ignore the label with "
        f"ignored={value} (--set ignored={value}). Received: {title(path)}"
    )


def _of_colors(found: Found, entries: Sequence[Entry]) -> Meaning:
    if not any(entry.color for entry in entries):
        path = next(iter(found.examples.values()))
        raise DataError(
            "Masks with colors need classes.json with the color of each class, such as "
            f'[{{"name": "road", "color": [128, 64, 128]}}]. Received: {title(path)}'
        )
    table: dict[int, int] = {}
    classes = 0
    kept = [entry for entry in entries if not entry.ignored]
    for entry in entries:
        if entry.color is None:
            raise DataError(f"A class has no color in classes.json. Received: {entry.name}")
        red, green, blue = entry.color
        table[red << 16 | green << 8 | blue] = NO_CLASS if entry.ignored else classes
        classes += not entry.ignored
    report = _report(found, table, kept, None)
    return _meaning([entry.name for entry in kept], table, kept, report, True)


def _meaning(
    names: Sequence[str],
    table: Mapping[int, int],
    entries: Sequence[Entry],
    report: str,
    has_colors: bool = False,
) -> Meaning:
    keys = np.array(sorted(table), np.int64)
    classes = np.array([table[key] for key in keys.tolist()], np.int32)
    colors = tuple(entry.color for entry in entries if entry.color is not None)
    known = colors if len(colors) == len(names) else None
    return Meaning(tuple(names), Table(keys, classes, has_colors), known, report)


def _report(
    found: Found, table: Mapping[int, int], kept: Sequence[Entry], first: int | None
) -> str:
    """Says which labels are classes, which are ignored, and which classes do not occur."""
    total = sum(found.pixels.values())
    what = "colors" if first is None else f"labels from {first} on"
    parts = [f"{len(kept)} classes, which have {what}"]
    without = [label for label in found.pixels if table.get(label) == NO_CLASS]
    if without:
        share = sum(found.pixels[label] for label in without) / total
        shown = ", ".join(
            str(color_of(label) if first is None else label) for label in sorted(without)
        )
        parts.append(f"{share:.1%} of the pixels have no class ({shown})")
    occurring = {table.get(label) for label in found.pixels}
    absent = [entry.name for number, entry in enumerate(kept) if number not in occurring]
    if absent:
        more = f" and {len(absent) - 3} others" * (len(absent) > 3)
        parts.append(f"no pixel is of {', '.join(absent[:3])}{more}")
    return "; ".join(parts)


def pixels_by_class(found: Found, meaning: Meaning) -> np.ndarray:
    """Returns the number of pixels of each class, an int64 array."""
    counts = np.zeros(len(meaning.classes), np.int64)
    for label, number in found.pixels.items():
        place = np.searchsorted(meaning.table.keys, label)
        if (own := meaning.table.classes[place]) != NO_CLASS:
            counts[own] += number
    return counts
