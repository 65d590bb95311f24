"""Finds image files in folders, and skips the files that operating systems leave there."""

import errno
import itertools
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from keras_convnext.pictures import ImageError, ImageWarning, name_of

# Suffixes of supported formats. The format of a file is detected from its content, not its suffix.
SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif",
    ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".avif", ".heic", ".heif",
)  # fmt: skip
_SUFFIXES = frozenset(SUFFIXES)
_NOT_OF_THE_USER = {"__macosx", "@eadir", "$recycle.bin", "lost+found"}


def is_hidden(name: str) -> bool:
    """Whether a name is hidden or belongs to the operating system: `.DS_Store`, `__MACOSX`."""
    return name.startswith(".") or name.lower() in _NOT_OF_THE_USER


def walk(folder: str | Path, loops: list[str] | None = None) -> Iterator[os.DirEntry[str]]:
    """Yields the files in a folder and its subfolders, in no particular order.

    Hidden files and folders are skipped, and so are pipes and devices, whose reader could wait for
    ever. Links are followed, also out of the folder. Each folder is visited once, and links to
    parent folders are not followed, so that the walk ends. A broken link is yielded as a file, so
    that its reader reports it.

    Args:
        folder: str or path. The folder to walk.
        loops: list or None. Gets the paths of links that were not followed, because they lead to
            themselves or to a folder that is visited anyway. Defaults to None.

    Raises:
        OSError: If a folder cannot be read.
    """
    loops = [] if loops is None else loops
    seen: set[tuple[int, int]] = set()
    remaining = [os.fspath(folder)]
    while remaining:
        with os.scandir(remaining.pop()) as entries:
            for entry in entries:
                if entry.name[0] == ".":
                    continue
                try:
                    if entry.is_dir():
                        if is_hidden(entry.name):
                            continue
                        # Most folders have no subfolders, and need no identities.
                        seen = seen or _identities_around(folder)
                        identity = _identity(entry.stat())
                        if identity not in seen:
                            seen.add(identity)
                            remaining.append(entry.path)
                        else:
                            loops.append(entry.path)
                    elif entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path)):
                        yield entry
                except OSError as error:
                    if error.errno == errno.ELOOP:  # a link to itself
                        loops.append(entry.path)
                    elif entry.is_symlink():  # to where its user has no access
                        yield entry


def walk_pictures(folder: str | Path, loops: list[str] | None = None) -> Iterator[os.DirEntry[str]]:
    """Yields the image files in a folder and its subfolders, like `walk`."""
    return (entry for entry in walk(folder, loops) if is_picture(entry.name))


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry of a folder is a folder, or a link to one that does not contain the link."""
    try:
        if not entry.is_symlink() or not entry.is_dir():
            return entry.is_dir()
    except OSError:  # a link to itself
        return False
    target, place = os.path.realpath(entry.path), os.path.realpath(os.path.dirname(entry.path))
    return os.path.commonpath([target, place]) != target


def about_loops(loops: Sequence[str]) -> str:
    """Returns a notice about links that were not followed."""
    others = f" and {len(loops) - 1:,} others" * (len(loops) > 1)
    return (
        "Skipped links that are broken, or lead to a folder that is read anyway: "
        f"{min(loops)}{others}"
    )


def is_picture(name: str) -> bool:
    """Whether a file is an image, by its suffix."""
    return name[name.rfind(".") :].lower() in _SUFFIXES


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


def _identities_around(folder: str | Path) -> set[tuple[int, int]]:
    """Returns the identities of a folder and its parents."""
    around = Path(folder).resolve()
    return {_identity(os.stat(place)) for place in (around, *around.parents)}


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def find_images(sources: Iterable[str | Path]) -> list[Path]:
    """Lists files, and the images in folders and the folders below them, in order of name.

    In folders, hidden files and what systems leave there (`._a.jpg`, `__MACOSX`) are left out, and
    links to folders are followed, except those that lead back, about which an `ImageWarning` is
    issued.

    Args:
        sources: iterable of str or path. Files are taken whatever their suffix.

    Raises:
        FileNotFoundError: If one of them does not exist, or a folder holds no image.
        ImageError: If one of them is a pipe or a device.
    """
    if isinstance(sources, str | Path):
        sources = [sources]
    found: list[Path] = []
    loops: list[str] = []
    for source in map(Path, sources):
        # `os.path` says False of a name that is too long, where `pathlib` raises.
        if os.path.isdir(source):
            inside = sorted(Path(entry.path) for entry in walk_pictures(source, loops))
            if not inside:
                others = kinds_of_files(
                    entry.name for entry in itertools.islice(walk(source), 10_000)
                )
                raise FileNotFoundError(
                    f"There are no images in this folder, but {others}. Received: {name_of(source)}"
                )
            found += inside
        elif os.path.isfile(source):
            found.append(source)
        elif os.path.exists(source):
            raise ImageError(f"This is a pipe or a device, not a file. Received: {name_of(source)}")
        else:
            raise FileNotFoundError(f"There is no such file or folder. Received: {name_of(source)}")
    if loops:
        warnings.warn(about_loops(loops), ImageWarning, stacklevel=2)
    return found
