"""The cache folder of published weights, and its contents."""

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from keras_convnext.pretrained.catalog import CATALOG
from keras_convnext.pretrained.catalog_row import Checkpoint
from keras_convnext.pretrained.errors import DownloadError
from keras_convnext.printable import printable

PORT = ".weights.h5"  # appended to the stem of a published file
_BESIDE = (".lock", ".holder", ".sha256", ".version")  # appended to the names of files


class CachedFile(NamedTuple):
    """A file in the cache.

    Args:
        path: path. Location of the file.
        bytes: int. File size in bytes.
        kind: str. "published", "port" (a published file converted to the format that models
            load), "partial" (an interrupted download) or "other".
        checkpoint: Checkpoint or None. The published checkpoint it belongs to.
    """

    path: Path
    bytes: int
    kind: str
    checkpoint: Checkpoint | None


def cache_folder() -> Path:
    """Returns the folder in which published weights are cached."""
    keras_home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    chosen = os.environ.get("KERAS_CONVNEXT_CACHE")
    return Path(chosen).expanduser() if chosen else keras_home / "models" / "keras_convnext"


class NotUsable(DownloadError):
    """The cache, or a file in it, cannot be read."""


@contextmanager
def usable_cache() -> Iterator[None]:
    """Says what to do if an operation in the context fails because of the cache's permissions.

    Raises:
        NotUsable: In place of an `OSError`.
    """
    try:
        yield
    except DownloadError:
        raise
    except OSError as error:
        reason = f"{error.strerror}: {error.filename}" if error.filename else str(error)
        raise NotUsable(
            f"The cache {cache_folder()} cannot be used: {reason}. Set KERAS_CONVNEXT_CACHE to a "
            "folder that you can read and write"
        ) from error


def port_of(copies: Sequence[Checkpoint]) -> Path | None:
    """Returns the first cached port of these copies that can be read, or None."""
    ports = (cache_folder() / f"{copy.stem}{PORT}" for copy in copies)
    return next((port for port in ports if port.is_file() and os.access(port, os.R_OK)), None)


def cached_files() -> list[CachedFile]:
    """Lists the weight files in the cache, including partial downloads, sorted by name."""
    published = {row.file: row for row in CATALOG}
    ports = {f"{row.stem}{PORT}": row for row in CATALOG}
    folder, found = cache_folder(), []
    for path in sorted([*folder.glob("*"), *folder.glob("partial/*")]):
        if not path.is_file() or path.suffix in _BESIDE:
            continue
        if path.name.endswith(".partial") or path.parent != folder:
            name = path.name.split(f"{PORT}.")[0] + PORT if PORT in path.name else path.name
            kind, row = "partial", published.get(name) or ports.get(name)
        elif path.name in published:
            kind, row = "published", published[path.name]
        else:
            row = ports.get(path.name)
            kind = "port" if row else "other"
        found.append(CachedFile(path, path.stat().st_size, kind, row))
    return found


def remove_cached(names: Collection[str] | None) -> list[CachedFile]:
    """Removes files from the cache, together with their lock, digest and version files.

    Args:
        names: collection of str or None. Names of files, networks or weights to remove. None
            removes all files that this package has cached.

    Returns:
        List of the removed `CachedFile`s.

    Raises:
        ValueError: If a name is not in the cache.
        OSError: If a file cannot be removed.
    """
    files = [file for file in cached_files() if file.kind != "other"]
    chosen = files
    if names is not None:
        chosen = [file for file in files if _names_of(file) & set(names)]
        unknown = set(names) - {name for file in chosen for name in _names_of(file)}
        if unknown:
            raise ValueError(
                "The cache contains no such file, network or weights. "
                f"Received: {printable(', '.join(sorted(unknown)))}"
            )
    for file in chosen:
        file.path.unlink()
        for suffix in _BESIDE:
            file.path.with_name(file.path.name + suffix).unlink(missing_ok=True)
    return chosen


def _names_of(file: CachedFile) -> set[str]:
    own = {file.path.name}
    return own if file.checkpoint is None else own | {file.checkpoint.model, file.checkpoint.tag}
