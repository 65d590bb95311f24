"""Which files of a folder are pictures: what cameras, phones and operating systems leave there."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

# Of formats that are read. A file is opened by its content, whichever of these its name ends in.
SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif",
    ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".avif", ".heic", ".heif",
)  # fmt: skip
_NOT_OF_THE_USER = {"__macosx", "@eadir", "$recycle.bin", "lost+found"}


def is_hidden(name: str) -> bool:
    """Tells whether a name is of what systems keep for themselves: `.DS_Store`, `__MACOSX`."""
    return name.startswith(".") or name.lower() in _NOT_OF_THE_USER


def walk(folder: str | Path) -> Iterator[os.DirEntry[str]]:
    """Walks over the files in a folder and those below it, in no order.

    Hidden ones are left out. Links to folders are followed once each, and not to where the walk is
    within, so that it ends. A link to nothing is a file, for its reader to complain of.

    Args:
        folder: str or path.

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
                except OSError:  # a link to itself, or it went away since
                    pass
                if entry.is_symlink() or entry.is_file():
                    yield entry


def walk_pictures(folder: str | Path) -> Iterator[os.DirEntry[str]]:
    """Walks over the pictures in a folder and those below it, as `walk` does."""
    return (entry for entry in walk(folder) if is_picture(entry.name))


def is_picture(name: str) -> bool:
    """Tells by its name whether a file is a picture."""
    return name.lower().endswith(SUFFIXES)


def kinds_of_files(names: Iterable[str]) -> str:
    """Says what other files there are, for a message: "12 files (.txt, .xml)"."""
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
