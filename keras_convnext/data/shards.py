"""Folders of TFRecord or ArrayRecord shards, with or without a list of classes."""

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from keras_convnext.class_list import ClassListError, read_class_list
from keras_convnext.data.errors import DataError
from keras_convnext.data.record_files import ArrayRecordFiles, Part, TFRecordFiles
from keras_convnext.data.records import Parser, RecordSource
from keras_convnext.data.splits import resolve_split, split_of_file, split_word
from keras_convnext.preprocessing import class_labels

# `a.tfrecord`, `a.tfrecords-00000-of-00008`, `a.array_record-00000-of-00008`, and
# `train-00000-of-01024`, the TFRecord files of the classic ImageNet scripts.
_SHARD = re.compile(r"\.(tfrecords?|array_?record)\b|-\d{5,}-of-\d{5,}$", re.IGNORECASE)
_ARRAY_RECORD = re.compile(r"\.array_?record\b", re.IGNORECASE)
_NUMBERED = re.compile(r"(.*)-(\d{5,})-of-(\d{5,})(.*)")
CLASS_FILES = ("classes.txt", "labels.txt")
_SYNSET = "image/class/synset"  # a WordNet identifier
# Feature names, and the default label of the first class. The scripts that write the first kind
# reserve 0 for a background class.
_FEATURES = (("image/encoded", "image/class/label", 1), ("image", "label", 0))


def is_shard(path: Path) -> bool:
    """Whether a file is a shard, by its name."""
    return bool(_SHARD.search(path.name)) and path.is_file()


def open_shards(
    paths: Sequence[Path],
    name: str,
    split: str | None,
    classes: Sequence[str] | None,
    first_label: int | None,
) -> RecordSource:
    """Opens the shards that belong to a split.

    The classes are, in order of preference: `classes`; the lines of a `classes.txt` or
    `labels.txt` in the folder of the shards, or above it for shards in `train/` etc.; those of
    ImageNet-1K, if the records contain its WordNet identifiers as `image/class/synset`. The label
    of the first class is `first_label`; or the first number in the list if its lines look like
    `0:daisy`; or 1 for records with `image/class/label` and 0 for records with `label`.

    Raises:
        DataError: If shards are missing, the split or the classes cannot be determined, or a label
            is out of range.
    """
    splits: dict[str, list[Path]] = {}
    for path in sorted(paths):
        word = split_of_file(path.name) or split_word(path.parent.name) or "train"
        splits.setdefault(word, []).append(path)
    found = resolve_split(split, list(splits), name)
    shards = splits[found]
    _refuse_gaps(shards)
    kinds = {bool(_ARRAY_RECORD.search(path.name)) for path in shards}
    if len(kinds) > 1:
        raise DataError(
            "The folder contains both TFRecord and ArrayRecord shards. Select one kind with a "
            f"pattern such as FOLDER/*.tfrecord*. Received: {name}"
        )
    files = (ArrayRecordFiles if kinds.pop() else TFRecordFiles)([Part(path) for path in shards])
    if not len(files):
        raise DataError(f"The shards contain no records. Received: {name}, split {found!r}")
    example = _example(files[0], shards[0])
    image, label, usual_first_label = _features_of(example, shards[0])
    listed_first_label = None
    if classes is None:
        listed, listed_first_label = _listed_classes(shards[0].parent)
        classes = listed or _imagenet_classes(example, shards[0])
    if first_label is None:
        first_label = usual_first_label if listed_first_label is None else listed_first_label
    _compare_synset(example, classes, label, first_label, shards[0])
    return RecordSource(name, found, classes, files, example_parser(image, label), first_label)


def _refuse_gaps(shards: Sequence[Path]) -> None:
    present: dict[tuple[Path, str, str, str], set[int]] = {}
    for path in shards:
        if match := _NUMBERED.fullmatch(path.name):
            before, number, total, after = match.groups()
            present.setdefault((path.parent, before, total, after), set()).add(int(number))
    for (folder, before, total, after), numbers in present.items():
        # Not a set of all numbers: a name can claim any total.
        missing = int(total) - sum(number < int(total) for number in numbers)
        if missing:
            first = next(number for number in itertools.count() if number not in numbers)
            path = folder / f"{before}-{first:0{len(total)}}-of-{total}{after}"
            raise DataError(f"{missing:,} of {int(total):,} shards are missing, for example {path}")


def _example(record: bytes, path: Path) -> tf.train.Features:
    try:
        features = tf.train.Example.FromString(record).features.feature
    except Exception as error:
        raise DataError(f"The records must be tf.train.Examples. Received: {path}") from error
    return features


def _features_of(example: tf.train.Features, path: Path) -> tuple[str, str, int]:
    for image, label, first_label in _FEATURES:
        if image in example and label in example:
            return image, label, first_label
    raise DataError(
        "Records must have the features image/encoded and image/class/label, or image and label. "
        f"Received: {', '.join(sorted(example)) or 'none'} in {path}"
    )


def example_parser(image: str, label: str) -> Parser:
    """Returns a function that extracts the image file and label from records."""
    features = {
        image: tf.io.FixedLenFeature((), tf.string),
        label: tf.io.FixedLenFeature((), tf.int64),
    }

    def parse(records: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        parsed = tf.io.parse_example(records, features)
        return parsed[image], parsed[label]

    return parse


def _listed_classes(folder: Path) -> tuple[list[str] | None, int | None]:
    """Reads the list of classes, and the label of the first if its lines are numbered."""
    places = (folder, folder.parent) if split_word(folder.name) else (folder,)
    for path in (place / name for place in places for name in CLASS_FILES):
        if not path.is_file():
            continue
        try:
            lines = [line.strip() for line in read_class_list(path) if line.strip()]
        except ClassListError as error:
            raise DataError(error) from error
        matches = [re.fullmatch(r"(\d+):\s*(.+)", line) for line in lines]
        numbered = [match for match in matches if match]
        if not lines or len(numbered) < len(lines):
            return lines or None, None
        first = int(numbered[0][1])
        if [int(line[1]) for line in numbered] != list(range(first, first + len(lines))):
            raise DataError(f"The numbers of the classes must be consecutive. Received: {path}")
        return [line[2] for line in numbered], first
    return None, None


def _synset(example: tf.train.Features) -> str | None:
    # Indexing this map with a missing key would insert it.
    values = example[_SYNSET].bytes_list.value if _SYNSET in example else ()
    return values[0].decode() if values else None


def _imagenet_classes(example: tf.train.Features, path: Path) -> list[str]:
    wnids = [wnid for wnid, _ in class_labels(1000)]
    if _synset(example) not in wnids:
        raise DataError(
            "The class names of these shards are unknown. Put a classes.txt in their folder, with "
            "one class per line in the order of the labels, or pass classes=. "
            f"Received: {path}"
        )
    return wnids


def _compare_synset(
    example: tf.train.Features, classes: Sequence[str], label: str, first: int, path: Path
) -> None:
    """Refuses a first label that would shift every label by one."""
    synset = _synset(example)
    if synset is None or synset not in classes:
        return
    value = example[label].int64_list.value[0]
    if list(classes).index(synset) + first != value:
        raise DataError(
            f"Label {value} is class {synset}, which has index {list(classes).index(synset)} in "
            f"the list of classes. Pass first_label=. Received: first_label={first}, {path}"
        )
