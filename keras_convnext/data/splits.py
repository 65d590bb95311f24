"""Names of splits."""

import re
from collections.abc import Sequence
from pathlib import Path

from keras_convnext.data.errors import NoSuchSplitError

# Equivalent names, best match first. If a dataset has no validation split, as in CIFAR-10, its test
# split is used instead; the reverse would be a mistake.
_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "val", "valid"),
    "test": ("test", "testing"),
}
_ALL_WORDS = {word: split for split, words in _WORDS.items() for word in words}


def split_word(name: str) -> str | None:
    """Returns "train", "validation" or "test" for an equivalent name, else None."""
    return _ALL_WORDS.get(name.lower())


def split_of_file(name: str) -> str | None:
    """Returns the split in the name of a shard, such as `a-train.tfrecord-00000-of-00008`."""
    return next(filter(split_word, re.split(r"[-_.]", name)), None)


def resolve_split(split: str | None, present: Sequence[str], where: str | Path) -> str:
    """Returns the name of the requested split among those present.

    None selects the only split, or validation if there are several.

    Raises:
        NoSuchSplitError: If there is no such split.
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
        f"{where} has no such split. Available: {', '.join(map(repr, present))}. "
        f"Received: split={split!r}"
    )
