"""Images with their objects, as all formats of annotations are read into."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from keras_convnext.data.stored import Stored


class Annotation(NamedTuple):
    """An object in an image.

    Args:
        id: int or str. Its identifier in the file.
        label: int. Index of its class.
        box: four floats. x1, y1, x2, y2 in pixels.
        shape: list of polygons (x1, y1, x2, y2, ...), run lengths as a dict, or None without a
            mask.
        is_crowd: bool. Whether it is a group of objects, which is neither trained on nor counted as
            missing.
        area: float or None. In pixels, if the file has it.
    """

    id: int | str
    label: int
    box: tuple[float, float, float, float]
    shape: list[list[float]] | dict[str, Any] | None = None
    is_crowd: bool = False
    area: float | None = None


class Picture(NamedTuple):
    """An image and its objects.

    Args:
        id: int or str. Its identifier in the file.
        path: path or Stored. The file, or the record that has it.
        height: int. In pixels.
        width: int. In pixels.
        annotations: tuple of Annotation.
    """

    id: int | str
    path: "Path | Stored"
    height: int
    width: int
    annotations: tuple[Annotation, ...]

    @property
    def title(self) -> str:
        """The path of the file, or its record, for messages."""
        if isinstance(self.path, Path):
            return str(self.path)
        from keras_convnext.data.stored import title  # which imports TensorFlow

        return title(self.path)

    def source(self) -> Path | bytes:
        """Returns the path of the file, or its content in the record."""
        if isinstance(self.path, Path):
            return self.path
        from keras_convnext.data.stored import content

        return content(self.path)


@dataclass(frozen=True)
class Objects:
    """The images of a split with their objects.

    Args:
        kind: str. The format of the annotations.
        source: path. The file or folder.
        pictures: sequence of Picture.
        classes: tuple of str. Names, in the order of the labels.
        category_ids: tuple of int. Of the classes in the file.
        tolerated: mapping of str to int. What was skipped or changed, and how often.
    """

    kind: str
    source: Path
    pictures: Sequence[Picture]
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    tolerated: Mapping[str, int] = field(default_factory=dict)

    def counts(self) -> dict[str, int]:
        """Returns the numbers of images, boxes, masks, crowds, and images without objects."""
        every = [each for picture in self.pictures for each in picture.annotations]
        return {
            "images": len(self.pictures),
            "boxes": sum(not each.is_crowd for each in every),
            "masks": sum(each.shape is not None and not each.is_crowd for each in every),
            "crowds": sum(each.is_crowd for each in every),
            "images without objects": sum(not picture.annotations for picture in self.pictures),
        }

    def summary(self) -> str:
        """Returns a line about the format, the counts, and what was tolerated."""
        found = [f"{number:,} {name}" for name, number in self.counts().items()]
        found += [f"{number:,} {what}" for what, number in Counter(self.tolerated).most_common()]
        return f"{self.kind}: {', '.join(found)}"


def mask_of(annotation: Annotation, height: int, width: int) -> np.ndarray:
    """Rasterizes the mask of an object as pycocotools does.

    Args:
        annotation: Annotation. With a shape.
        height: int. Of the image.
        width: int. Of the image.

    Returns:
        bool array (height, width).

    Raises:
        ImportError: If the shape is polygons and pycocotools is not installed.
    """
    from keras_convnext.detection.masks import decode_rle

    if isinstance(annotation.shape, dict):
        return decode_rle(annotation.shape)
    masks = coco_tools("mask", "Polygons")
    runs = masks.frPyObjects(annotation.shape, height, width)
    return masks.decode(masks.merge(runs)).astype(bool)


def coco_tools(module: str, purpose: str) -> Any:
    """Imports a module of pycocotools.

    Raises:
        ImportError: If it is not installed.
    """
    from importlib import import_module

    try:
        return import_module(f"pycocotools.{module}")
    except ImportError as error:
        raise ImportError(
            f'{purpose} need pycocotools: pip install "keras-convnext[coco]"', name="pycocotools"
        ) from error
