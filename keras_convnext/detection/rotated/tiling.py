"""Writes the tiles of a folder of scenes: in parallel, and resumable."""

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from keras_convnext.data.errors import DataError, NoSuchSplitError
from keras_convnext.detection.rotated.folders import open_rotated
from keras_convnext.detection.rotated.objects import RotatedObject, RotatedPicture
from keras_convnext.detection.rotated.scenes import Scene
from keras_convnext.detection.rotated.tiles import cut, objects_in, tiles_of
from keras_convnext.printable import printable

JOURNAL = "tiles.jsonl"  # the settings, and then a line for each scene that is done
_FOLDERS = {"train": "train", "validation": "val", "test": "test"}


class Tiled(NamedTuple):
    """What was written.

    Args:
        scenes: int. Number of scenes, with those of an earlier call.
        tiles: int. Number of tiles.
        objects: int. Number of objects in them.
    """

    scenes: int
    tiles: int
    objects: int


def write_tiles(
    source: str | Path,
    target: str | Path,
    *,
    size: int = 1024,
    overlap: int = 512,
    classes: Sequence[str] | None = None,
    skip_broken: bool = False,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Tiled:
    """Cuts the scenes of all splits into tiles, which are written as a folder of DOTA.

    An interrupted call is continued by the same call.

    Example:

    ```python
    write_tiles("DOTA", "DOTA_tiles")
    ```

    Args:
        source: str or path. As in `open_rotated`, with any of the splits.
        target: str or path. The folder to write, with `images` and `labelTxt` of each split.
        size: int. Side of a tile in pixels. Defaults to 1024.
        overlap: int. Pixels that neighboring tiles share. Defaults to 512.
        classes: sequence of str or None. As in `open_rotated`. Defaults to None.
        skip_broken: bool. As in `open_rotated`. Defaults to False.
        workers: int or None. Number of processes. Defaults to None, for the number of cores.
        progress: function or None. Called with the number of scenes done, and of all.

    Returns:
        `Tiled`.

    Raises:
        DataError: If the data is broken, or `target` has tiles of other settings.
        ValueError: If `size` or `overlap` is out of range.
    """
    if size < 32:
        raise ValueError(f"size must be at least 32. Received: size={size}")
    list(tiles_of(size, size, size, overlap))  # checks the overlap
    splits = {}
    for split in _FOLDERS:
        try:
            splits[split] = open_rotated(
                source, split, classes, skip_broken=skip_broken, needs_labels=split != "test"
            )
        except NoSuchSplitError:
            continue
    if not splits:
        raise DataError(f"There is no split with images. Received: {printable(source)}")
    names = max((each.classes for each in splits.values()), key=len)
    target = Path(target)
    settings = {"source": str(source), "size": size, "overlap": overlap, "classes": list(names)}
    done = _begun(target, settings)
    (target / "classes.txt").write_text("".join(f"{name}\n" for name in names), "utf-8")
    tasks = []
    for split, objects in splits.items():
        folder = target / _FOLDERS[split]
        for part in ("images", "labelTxt"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        for picture in objects.pictures:
            if (split, picture.name) not in done:
                tasks.append((split, picture, folder, objects.classes, size, overlap))
    counts = list(done.values())
    total = len(counts) + len(tasks)
    journal = (target / JOURNAL).open("a", encoding="utf-8")
    # Processes that have only NumPy and Pillow start within a second.
    context = get_context("spawn")
    most = min(workers or os.cpu_count() or 1, max(len(tasks), 1))
    with journal, ProcessPoolExecutor(most, context) as pool:
        futures = {pool.submit(_write_scene, *task[1:]): task for task in tasks}
        try:
            for future in as_completed(futures):
                split, picture = futures[future][:2]
                counts.append(future.result())
                journal.write(json.dumps([split, picture.name, *counts[-1]]) + "\n")
                journal.flush()
                if progress is not None:
                    progress(len(counts), total)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return Tiled(total, sum(each[0] for each in counts), sum(each[1] for each in counts))


def _begun(target: Path, settings: dict[str, object]) -> dict[tuple[str, str], tuple[int, int]]:
    """Returns the tiles and objects of the scenes that are done, or begins a journal."""
    journal = target / JOURNAL
    if not journal.exists():
        if target.exists() and any(target.iterdir()):
            raise DataError(f"The folder has other files in it. Received: {printable(target)}")
        target.mkdir(parents=True, exist_ok=True)
        journal.write_text(json.dumps(settings) + "\n", "utf-8")
        return {}
    lines = journal.read_text("utf-8").splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    if not whole or json.loads(whole[0]) != settings:
        raise DataError(
            "The folder has tiles of other scenes, or of other settings. Choose another folder. "
            f"Received: {printable(target)}"
        )
    if len(whole) < len(lines):
        journal.write_text("".join(whole), "utf-8")
    return {
        (split, name): (tiles, objects)
        for split, name, tiles, objects in map(json.loads, whole[1:])
    }


def _write_scene(
    picture: RotatedPicture, folder: Path, classes: Sequence[str], size: int, overlap: int
) -> tuple[int, int]:
    """Writes the tiles of a scene; returns how many, and how many objects are in them."""
    tiles = objects = 0
    with Scene(picture.path) as scene:
        for row in tiles_of(scene.height, scene.width, size, overlap):
            band = scene.band(row[0].top, size)
            for tile in row:
                name = tile.name(picture.name)
                found = objects_in(tile, scene.height, scene.width, picture.objects)
                image = Image.fromarray(cut(band, tile, tile.top))
                image.save(folder / "images" / f"{name}.png", compress_level=1)
                text = "".join(_line(each, classes) for each in found)
                (folder / "labelTxt" / f"{name}.txt").write_text(text, "utf-8")
                tiles += 1
                objects += len(found)
    return tiles, objects


def _line(each: RotatedObject, classes: Sequence[str]) -> str:
    numbers = " ".join(f"{value:.1f}" for value in each.points)
    return f"{numbers} {classes[each.label]} {each.difficulty}\n"
