"""Images with rotated objects, as all formats of labels are read into."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

# Classes of the three versions of DOTA: Xia et al., arXiv 1711.10398, and Ding et al., arXiv
# 2102.12219. Each version adds to the one before.
_V1_0 = (
    "plane", "baseball-diamond", "bridge", "ground-track-field", "small-vehicle", "large-vehicle",
    "ship", "tennis-court", "basketball-court", "storage-tank", "soccer-ball-field", "roundabout",
    "harbor", "swimming-pool", "helicopter",
)  # fmt: skip
_V1_5 = (*_V1_0, "container-crane")
DOTA = {"1.0": _V1_0, "1.5": _V1_5, "2.0": (*_V1_5, "airport", "helipad")}


class RotatedObject(NamedTuple):
    """An object in an image.

    Args:
        label: int. Index of its class.
        points: eight floats. x1, y1, ..., x4, y4 in pixels: not always a rectangle.
        difficulty: int. 0; 1 for objects that are difficult to recognize; 2 for objects of which
            a tile has only a part. Others than 0 are neither required nor wrong in a score, and 2
            is not trained on. Defaults to 0.
    """

    label: int
    points: tuple[float, ...]
    difficulty: int = 0


class RotatedPicture(NamedTuple):
    """An image and its objects.

    Args:
        path: path.
        height: int. In pixels.
        width: int. In pixels.
        objects: tuple of RotatedObject.
    """

    path: Path
    height: int
    width: int
    objects: tuple[RotatedObject, ...]

    @property
    def name(self) -> str:
        """The name of the file without its suffix, by which submissions name images."""
        return self.path.stem

    def points(self) -> np.ndarray:
        """Returns the corners of the objects, float64 array (M, 4, 2)."""
        return np.array([each.points for each in self.objects], np.float64).reshape(-1, 4, 2)


@dataclass(frozen=True)
class RotatedObjects:
    """The images of a split with their rotated objects.

    Args:
        kind: str. The format of the labels.
        source: path. The folder.
        pictures: sequence of RotatedPicture.
        classes: tuple of str. Names, in the order of the labels.
        tolerated: mapping of str to int. What was skipped or is unusual, and how often.
    """

    kind: str
    source: Path
    pictures: Sequence[RotatedPicture]
    classes: tuple[str, ...]
    tolerated: Mapping[str, int] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        """Returns the numbers of images, objects, difficult objects, and images without objects."""
        every = [each for picture in self.pictures for each in picture.objects]
        return {
            "images": len(self.pictures),
            "objects": len(every),
            "difficult": sum(each.difficulty > 0 for each in every),
            "images without objects": sum(not picture.objects for picture in self.pictures),
        }

    def summary(self) -> str:
        """Returns a line about the format, the counts, and what was tolerated."""
        found = [f"{number:,} {name}" for name, number in self.counts().items()]
        found += [f"{number:,} {what}" for what, number in Counter(self.tolerated).most_common()]
        return f"{self.kind}: {', '.join(found)}"


def names_of_rotated(classes: int, names: Sequence[str] = ()) -> tuple[str, ...]:
    """Returns the name of each class: `names`, if their number matches, or else DOTA's."""
    for known in (tuple(names), *DOTA.values()):
        if len(known) == classes:
            return known
    return tuple(f"class {index}" for index in range(classes))
