"""Finds images and their masks in the folders of common data sets."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from keras_convnext.data.errors import DataError
from keras_convnext.data.folders import subfolders
from keras_convnext.data.splits import resolve_split, split_word
from keras_convnext.data.stored import File
from keras_convnext.picture_files import walk_pictures
from keras_convnext.pictures import name_of

MASK_FOLDERS = ("masks", "labels", "annotations")
IMAGE_FOLDER = "images"
# What follows the name of an image in that of its mask.
SUFFIXES = ("", "_mask", "_label", "_labels", "_L", "_gt")
_EXPECTED = (
    "Expected images/ beside masks/, labels/ or annotations/, X/ beside Xannot/, or the folders of "
    "ADE20K, Cityscapes or Pascal VOC"
)


class Pairs(NamedTuple):
    """The images of a split, and their masks.

    Args:
        kind: str. The data set whose folders these are: "ade20k", "cityscapes", "voc", or "".
        split: str. Name of the split.
        images: list. Paths, or records.
        masks: list. Those of the masks, in the same order.
    """

    kind: str
    split: str
    images: Sequence[File]
    masks: Sequence[File]


def find_pairs(folder: Path, split: str | None) -> Pairs:
    """Finds the images and masks of a split.

    Args:
        folder: path. The folder of the data.
        split: str or None. As in `open_source`.

    Raises:
        DataError: If the folders are not recognized, or an image or a mask has no partner.
        NoSuchSplitError: If there is no such split.
    """
    if not folder.is_dir():
        raise DataError(f"There is no such folder. Received: {name_of(folder)}")
    for find in (_cityscapes, _voc, _side_by_side, _split_first, _camvid):
        if (found := find(folder, split)) is not None:
            return found
    raise DataError(f"{_EXPECTED}. Received: {name_of(folder)}")


def _side_by_side(folder: Path, split: str | None) -> Pairs | None:
    """`images/[split/]*.jpg` beside `masks/[split/]*.png`."""
    others = _mask_folder(folder)
    if others is None:
        return None
    images = folder / IMAGE_FOLDER
    splits = [name for name in subfolders(images) if split_word(name)]
    if not splits:
        alone = split_word(folder.name) or "train"
        resolve_split(split, [alone], folder)
        return Pairs("", alone, *_paired(images, others))
    found = resolve_split(split, splits, folder)
    if not (others / found).is_dir():
        raise DataError(f"The masks of a split are missing. Expected: {name_of(others / found)}")
    kind = "ade20k" if (folder / "objectInfo150.txt").is_file() else ""
    return Pairs(kind, found, *_paired(images / found, others / found))


def _split_first(folder: Path, split: str | None) -> Pairs | None:
    """`split/images/*.jpg` beside `split/masks/*.png`."""
    splits = [
        name for name in subfolders(folder) if split_word(name) and _mask_folder(folder / name)
    ]
    if not splits:
        return None
    found = resolve_split(split, splits, folder)
    others = _mask_folder(folder / found)
    assert others is not None
    return Pairs("", found, *_paired(folder / found / IMAGE_FOLDER, others))


def _mask_folder(folder: Path) -> Path | None:
    if not (folder / IMAGE_FOLDER).is_dir():
        return None
    found = [folder / name for name in MASK_FOLDERS if (folder / name).is_dir()]
    if len(found) > 1:
        raise DataError(
            "There are several folders of masks. Keep one of them. "
            f"Received: {name_of(folder)} with {', '.join(each.name for each in found)}"
        )
    return found[0] if found else None


def _camvid(folder: Path, split: str | None) -> Pairs | None:
    """`X/*.png` beside `Xannot/*.png`, as in CamVid."""
    names = subfolders(folder)
    splits = [name for name in names if f"{name}annot" in names]
    if not splits:
        return None
    found = resolve_split(split, splits, folder)
    return Pairs("", found, *_paired(folder / found, folder / f"{found}annot"))


def _cityscapes(folder: Path, split: str | None) -> Pairs | None:
    """`leftImg8bit/split/city/*_leftImg8bit.png`, and masks in `gtFine`."""
    images, others = folder / "leftImg8bit", folder / "gtFine"
    if not (images.is_dir() and others.is_dir()):
        return None
    found = resolve_split(split, subfolders(images), folder)
    masks = _by_name(others / found)
    ending = "_gtFine_labelTrainIds"
    if not any(name.endswith(ending) for name in masks):
        ending = "_gtFine_labelIds"
    masks = {
        name.removesuffix(ending): path for name, path in masks.items() if name.endswith(ending)
    }
    pictures = {
        name.removesuffix("_leftImg8bit"): path for name, path in _by_name(images / found).items()
    }
    kind = "cityscapes" if ending.endswith("TrainIds") else "cityscapes_ids"
    return Pairs(kind, found, *_matched(pictures, masks, lambda name: name, others / found))


def _voc(folder: Path, split: str | None) -> Pairs | None:
    """`JPEGImages` and `SegmentationClass`, with lists in `ImageSets/Segmentation`."""
    images, others = folder / "JPEGImages", folder / "SegmentationClass"
    lists = folder / "ImageSets" / "Segmentation"
    if not (images.is_dir() and others.is_dir() and lists.is_dir()):
        return None
    splits = [path.stem for path in lists.glob("*.txt") if split_word(path.stem)]
    found = resolve_split(split, splits, folder)
    listed = (lists / f"{found}.txt").read_text("utf-8").split()
    pictures, masks = (
        {name: path for name, path in _by_name(place).items() if name in set(listed)}
        for place in (images, others)
    )
    if missing := [name for name in listed if name not in pictures]:
        raise DataError(
            f"An image is missing: {missing[0]}{_others(missing)}. Received: {name_of(images)}"
        )
    return Pairs("voc", found, *_matched(pictures, masks, lambda name: name, others))


def _paired(images: Path, masks: Path) -> tuple[list[str], list[str]]:
    pictures, others = _by_name(images), _by_name(masks)
    suffix = next(
        (each for each in SUFFIXES if any(f"{name}{each}" in others for name in pictures)), ""
    )
    return _matched(pictures, others, lambda name: f"{name}{suffix}", masks)


def _by_name(folder: Path) -> dict[str, str]:
    """Returns the paths of the images in a folder by their names in it, without suffix."""
    found: dict[str, str] = {}
    start = len(os.fspath(folder)) + 1
    for entry in walk_pictures(folder):
        name = os.path.splitext(entry.path[start:])[0]
        if name in found:
            raise DataError(
                "Two images have the same name. Delete or rename one of them. "
                f"Received: {name_of(found[name])} and {name_of(entry.path)}"
            )
        found[name] = entry.path
    return dict(sorted(found.items()))


def _matched(
    images: Mapping[str, str],
    masks: Mapping[str, str],
    mask_of: Callable[[str], str],
    folder: Path,
) -> tuple[list[str], list[str]]:
    if not images:
        raise DataError(f"There are no images beside the masks. Received: {name_of(folder)}")
    if alone := [path for name, path in images.items() if mask_of(name) not in masks]:
        raise DataError(
            f"An image has no mask: {name_of(alone[0])}{_others(alone)}. "
            f"Received: {len(masks):,} masks in {name_of(folder)}"
        )
    partners = {mask_of(name) for name in images}
    if alone := [path for name, path in masks.items() if name not in partners]:
        raise DataError(
            f"A mask has no image: {name_of(alone[0])}{_others(alone)}. "
            f"Received: {len(images):,} images"
        )
    return list(images.values()), [masks[mask_of(name)] for name in images]


def _others(paths: Iterable[str]) -> str:
    more = len(list(paths)) - 1
    return f", and {more:,} others" * (more > 0)
