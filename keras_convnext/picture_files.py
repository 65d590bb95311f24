"""Finds image files in folders, and skips the files that operating systems leave there."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

# Suffixes of supported formats. The format of a file is detected from its content, not its suffix.
SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif",
    ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".avif", ".heic", ".heif",
)  # fmt: skip
_NOT_OF_THE_USER = {"__macosx", "@eadir", "$recycle.bin", "lost+found"}


def is_hidden(name: str) -> bool:
    """Whether a name is hidden or belongs to the operating system: `.DS_Store`, `__MACOSX`."""
    return name.startswith(".") or name.lower() in _NOT_OF_THE_USER


def walk(folder: str | Path) -> Iterator[os.DirEntry[str]]:
    """Yields the files in a folder and its subfolders, in no particular order.

    Hidden files and folders are skipped. Each linked folder is visited once, and links to parent
    folders are not followed, so that the walk ends. A broken link is yielded as a file, so that its
    reader reports it.

    Args:
        folder: str or path. The folder to walk.

    Raises:
        OSError: If a folder cannot be read.
    """
    around = Path(folder).resolve()
    seen = {_identity(os.stat(place)) for place in (around, *around.parents)}
    remaining = [os.fspath(folder)]
    while remaining:
        with os.scandir(remaining.pop()) as entries:
            for entry in entries:
                if is_hidden(entry.name):
                    continue
                try:
                    if entry.is_dir():
                        identity = _identity(entry.stat())
                        if identity not in seen:
                            seen.add(identity)
                            remaining.append(entry.path)
                        continue
                except OSError:  # a link to itself, or deleted in the meantime
                    pass
                if entry.is_symlink() or entry.is_file():
                    yield entry


def walk_pictures(folder: str | Path) -> Iterator[os.DirEntry[str]]:
    """Yields the image files in a folder and its subfolders, like `walk`."""
    return (entry for entry in walk(folder) if is_picture(entry.name))


def is_picture(name: str) -> bool:
    """Whether a file is an image, by its suffix."""
    return name.lower().endswith(SUFFIXES)


def kinds_of_files(names: Iterable[str]) -> str:
    """Summarizes files for a message: "12 files (.txt, .xml)"."""
    suffixes: dict[str, int] = {}
    for name in names:
        suffix = Path(name).suffix.lower() or "no suffix"
        suffixes[suffix] = suffixes.get(suffix, 0) + 1
    if not suffixes:
        return "no files"
    common = sorted(suffixes, key=lambda suffix: (-suffixes[suffix], suffix))
    more = ", ..." * (len(common) > 3)
    return f"{sum(suffixes.values()):,} files ({', '.join(common[:3])}{more})"


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
