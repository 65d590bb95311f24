"""A file from a server: resumed where it broke off, and in place once it is whole and right."""

import errno
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import requests
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from keras_convnext.pretrained.errors import DownloadError

console = Console(stderr=True)  # where progress is shown

ATTEMPTS = 3  # that bring nothing new, in a row
PAUSE = 1.0  # seconds before the second attempt; it doubles
TIMEOUT = 30.0  # seconds without an answer or a byte
_LATER = {408, 425, 429, 500, 502, 503, 504}  # answers that may be better a moment later
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class _BrokeOff(Exception):
    """For a reason that may pass."""


def download(
    url: str, path: str | Path, check: Callable[[Path], None], size: int | None = None
) -> None:
    """Fetches a file, going on with what an earlier call had to leave.

    Until it is whole it lies in the folder `partial` beside its place. One process at a time may
    call this for a path: the caller holds a lock.

    Args:
        url: str.
        path: str or path. Where the file appears, once `check` has passed it.
        check: function of a path. Raises if the file is not the right one; it is then thrown away.
        size: int or None. The bytes it has, where known. Defaults to None.

    Raises:
        DownloadError: If the server is not there, has no such file, sends something else, or breaks
            off again and again; if there is no room for it.
    """
    path = Path(path)
    partial = path.parent / "partial" / path.name
    partial.parent.mkdir(parents=True, exist_ok=True)
    most, idle = _length(partial), 0
    while idle < ATTEMPTS:
        try:
            _transfer(url, partial, size)
            break
        except _BrokeOff as error:
            reason = error
            idle = 1 if _length(partial) > most else idle + 1
            most = max(most, _length(partial))
            if idle < ATTEMPTS:
                time.sleep(PAUSE * 2 ** (idle - 1))
    else:
        raise DownloadError(f"{url} could not be fetched: {reason}")
    try:
        check(partial)
        # First, so that a kill in between leaves nothing that nobody would look for again.
        _version_of(partial).unlink(missing_ok=True)
        os.replace(partial, path)
    finally:
        _discard(partial)


def _transfer(url: str, partial: Path, size: int | None) -> None:
    """Fetches what is missing of a file, or all of it if the server has another version now."""
    version = _version_of(partial)
    headers = {"Accept-Encoding": "identity"}  # so that lengths are those of the file
    start = _length(partial) if version.is_file() else 0
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": version.read_text()}
    try:
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            part = response.headers.get("Content-Range", f"bytes {start}-")
            if response.status_code == 416 or not part.startswith(f"bytes {start}-"):
                _discard(partial)
                raise _BrokeOff("the server has no such part of the file")
            if response.status_code in _LATER:
                raise _BrokeOff(f"the server answers {response.status_code} {response.reason}")
            if not response.ok:
                raise DownloadError(f"{url} answers {response.status_code} {response.reason}")
            if response.headers.get("Content-Type", "").startswith("text/html"):
                raise DownloadError(
                    f"{url} sends a web page in place of the file: a proxy or a login may stand "
                    "between"
                )
            if response.status_code != 206:
                _discard(partial)
                if name := _name_of_version(response):
                    version.write_text(name)
            length = response.headers.get("Content-Length")
            total = size if length is None else _length(partial) + int(length)
            if size is not None and size != total:
                raise DownloadError(f"{url} has {total:,} bytes where {size:,} are expected")
            _write(response, partial, total)
    except (requests.exceptions.MissingSchema, requests.exceptions.InvalidSchema) as error:
        raise DownloadError(f"{error} Received: {url}") from error
    except requests.RequestException as error:
        reason = getattr(error.args[0] if error.args else None, "reason", error)
        raise _BrokeOff(str(reason)) from error
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        _discard(partial)
        raise DownloadError(
            f"There is no room for {partial.name} in {partial.parent.parent}. Make some, or let "
            "KERAS_CONVNEXT_CACHE name another folder"
        ) from error
    if total is not None and _length(partial) < total:
        raise _BrokeOff(f"{_length(partial):,} of {total:,} bytes came")


def _write(response: requests.Response, partial: Path, total: int | None) -> None:
    done = _length(partial)
    if total is not None and shutil.disk_usage(partial.parent).free < total - done:
        raise OSError(errno.ENOSPC, "no room")
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with (
        open(partial, "ab", buffering=0) as file,
        Progress(
            *columns, console=console, transient=True, disable=not console.is_terminal
        ) as progress,
    ):
        task = progress.add_task(f"Fetching {partial.name}", total=total, completed=done)
        for chunk in response.iter_content(1 << 16):
            file.write(chunk)
            progress.advance(task, len(chunk))


def _name_of_version(response: requests.Response) -> str:
    """What the server tells the file's versions apart by; a weak tag does not tell bytes apart."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified", "")


def _version_of(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.version")


def _length(partial: Path) -> int:
    return partial.stat().st_size if partial.is_file() else 0


def _discard(partial: Path) -> None:
    partial.unlink(missing_ok=True)
    _version_of(partial).unlink(missing_ok=True)
