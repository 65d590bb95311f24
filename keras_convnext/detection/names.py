"""The names of the classes that a detector finds."""

from collections.abc import Sequence
from importlib import resources

_COCO = 80  # classes


def names_of_classes(classes: int, names: Sequence[str] = ()) -> tuple[str, ...]:
    """Returns the name of each class of a detector.

    These are `names`, if their number matches; else those of COCO for 80 classes, in the order of
    its category ids; else "class 0", "class 1" and so on.

    Args:
        classes: int. Number of classes.
        names: sequence of str. Defaults to none.
    """
    if len(names) == classes:
        return tuple(names)
    if classes == _COCO:
        # The categories of COCO's annotations of 2017: id and name.
        text = (resources.files("keras_convnext") / "labels" / "coco.tsv").read_text("utf-8")
        return tuple(line.split("\t")[1] for line in text.splitlines())
    return tuple(f"class {index}" for index in range(classes))
