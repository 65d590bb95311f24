"""The names a split goes by."""

import re
from collections.abc import Sequence
from pathlib import Path

from keras_convnext.data.errors import NoSuchSplitError

# What it is called elsewhere, the best match first. Where a dataset holds back no validation
# images, its test images take their place, as in CIFAR-10; the other way round would be a mistake.
_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid"),
    "test": ("test", "testing"),
}
_ALL_WORDS = {word: split for split, words in _WORDS.items() for word in words}


def split_word(name: str) -> str | None:
    """Returns "train", "validation" or "test", if that is what the name of a split means."""
    return _ALL_WORDS.get(name.lower())


def split_of_file(name: str) -> str | None:
    """Finds the name of the split in that of a shard, such as `a-train.tfrecord-00000-of-00008`."""
    return next(filter(split_word, re.split(r"[-_.]", name)), None)


def resolve_split(split: str | None, present: Sequence[str], where: str | Path) -> str:
    """Finds the split that is meant among those that are there.

    None means the only one, or the validation images where there are several.

    Raises:
        NoSuchSplitError: If it is not there.
    """
    if split is None:
        split = present[0] if len(present) == 1 else "validation"
    wanted = split_word(split)
    accepted = [split]
    for word in (wanted, "test" if wanted == "validation" else None):
        accepted += [name for name in present if split_word(name) == word and word]
    for name in accepted:
        if name in present:
            return name
    raise NoSuchSplitError(
        f"Which split of {where}? It has {', '.join(map(repr, present))}. Received: split={split!r}"
    )
