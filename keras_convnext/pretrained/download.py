"""Downloads a file: resumes an interrupted transfer, and verifies the file before it is used."""

import errno
import os
import random
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import requests

from keras_convnext.pretrained.errors import DownloadError
from keras_convnext.pretrained.transfer_display import megabytes, progress, say
from keras_convnext.pretrained.web import Passing, Unreachable, response_of
from keras_convnext.printable import without_login

ATTEMPTS = 3  # in a row that make no progress
PAUSE = 1.0  # seconds before the second attempt; it doubles
SLOWEST = 1000.0  # bytes per second; a slower connection is closed and retried
SLOW_FOR = 30.0  # seconds over which the rate is measured
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class NotWritten(DownloadError):
    """The file cannot be written: the disk is full, or permission is missing."""


def download(
    url: str,
    path: str | Path,
    check: Callable[[Path], None],
    size: int | None = None,
    most: int | None = None,
    announce: Callable[[int | None], None] = lambda size: None,
) -> None:
    """Downloads a file, resuming an interrupted download.

    An incomplete file is kept in the `partial` subfolder. Only one process at a time may call this
    for a path: the caller holds a lock.

    Args:
        url: str.
        path: str or path. Where the file is moved once `check` has accepted it.
        check: function of a path. Raises if it is the wrong file, which is then deleted.
        size: int or None. Expected size in bytes. Defaults to None: unknown.
        most: int or None. Upper bound of the size in bytes. Defaults to None.
        announce: function of the size in bytes, or of None. Called when the transfer starts.

    Raises:
        NotWritten: If the disk is full, or the folder is not writable.
        DownloadError: If the server cannot be reached, does not have the file, sends something
            else, or keeps breaking the connection.
    """
    path = Path(path)
    partial = path.parent / "partial" / path.name
    start = time.monotonic()
    try:
        _transfer_in_attempts(url, partial, size, most, announce)
        come = f"  {megabytes(_length(partial))} downloaded in {time.monotonic() - start:,.1f} s"
        try:
            check(partial)
        except Exception:
            _discard(partial)
            raise
    except (KeyboardInterrupt, SystemExit):
        if kept := _kept(partial):
            say(f"Stopped. {kept}")
        raise
    try:
        # First, so that a kill in between leaves no stray file.
        _version_of(partial).unlink(missing_ok=True)
        os.replace(partial, path)
    except OSError as error:
        raise _not_written(partial, error) from error
    say(f"{come} and checked")


def _transfer_in_attempts(
    url: str,
    partial: Path,
    size: int | None,
    most: int | None,
    announce: Callable[[int | None], None],
) -> None:
    longest, idle, is_announced = _length(partial), 0, False

    def announce_once(total: int | None) -> None:
        nonlocal is_announced
        if not is_announced:
            announce(total)
        is_announced = True

    while True:
        try:
            _transfer(url, partial, size, most, announce_once)
            return
        except Passing as error:
            idle = 1 if _length(partial) > longest else idle + 1
            longest = max(longest, _length(partial))
            if idle == ATTEMPTS:
                kind = DownloadError if error.is_connected else Unreachable
                raise kind(". ".join(filter(None, (str(error), _kept(partial))))) from error
            # Jitter: machines that failed at the same moment should not all come back at once.
            pause = error.wait or PAUSE * 2 ** (idle - 1) * random.uniform(0.5, 1.5)
            server = urlsplit(without_login(url)).netloc
            say(f"  {server}: {error}. Trying again in {pause:.0f} s ({idle} of {ATTEMPTS - 1})")
            time.sleep(pause)
        except DownloadError:
            raise
        except OSError as error:
            raise _not_written(partial, error) from error


def _transfer(
    url: str,
    partial: Path,
    size: int | None,
    most: int | None,
    announce: Callable[[int | None], None],
) -> None:
    """Downloads the missing part of a file, or all of it if the server has a new version."""
    partial.parent.mkdir(parents=True, exist_ok=True)
    headers = {"Accept-Encoding": "identity"}  # so that lengths are those of the file
    version = _kept_version(partial)
    start = _length(partial) if version else 0
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": version}
    with response_of(url, headers) as answer:
        part = answer.headers.get("Content-Range", f"bytes {start}-")
        if answer.status_code == 416 and part == f"bytes */{start}":
            return  # complete: an earlier call was stopped before the check
        if answer.status_code == 416 or not part.startswith(f"bytes {start}-"):
            _discard(partial)
            raise Passing("the server has no such part of the file")
        if answer.status_code != 206:
            _discard(partial)
            if name := _name_of_version(answer):
                _version_of(partial).write_text(name)
        length = answer.headers.get("Content-Length", "")
        total = _length(partial) + int(length) if length.isdecimal() else size
        if size is not None and size != total:
            raise DownloadError(f"it has {total:,} bytes where {size:,} are expected")
        _check_length(total, most)
        announce(total)
        _write(answer, partial, total, most)
    if total is not None and _length(partial) < total:
        raise Passing(f"only {_length(partial):,} of {total:,} bytes arrived")


def _check_length(length: int | None, most: int | None) -> None:
    if length is not None and most is not None and length > most:
        raise DownloadError(f"it has {length:,} bytes or more, which these weights cannot have")


def _write(answer: requests.Response, partial: Path, total: int | None, most: int | None) -> None:
    done = _length(partial)
    if total is not None and shutil.disk_usage(partial.parent).free < total - done:
        raise OSError(errno.ENOSPC, "no room")
    if done:
        say(f"  {megabytes(done)} already downloaded")
    with open(partial, "ab", buffering=0) as file, progress(done, total) as advance:
        since, come = time.monotonic(), 0
        # `read1` returns what there is, so that nothing is lost or shown late.
        while chunk := answer.raw.read1(1 << 16):
            file.write(chunk)
            advance(len(chunk))
            come += len(chunk)
            done += len(chunk)
            _check_length(done, most)
            if (elapsed := time.monotonic() - since) > SLOW_FOR:
                if come < SLOWEST * elapsed and done != total:
                    raise Passing(f"only {come:,} bytes arrived in {elapsed:.0f} s")
                since, come = time.monotonic(), 0


def _not_written(partial: Path, error: OSError) -> NotWritten:
    folder = partial.parent.parent
    if error.errno in _NO_ROOM:
        _discard(partial)
        problem = f"the disk is too full for {partial.name} in {folder}"
    else:
        problem = f"{partial.name} cannot be written in {folder}: {error.strerror}"
    return NotWritten(f"{problem}. Set KERAS_CONVNEXT_CACHE to another folder")


def _kept(partial: Path) -> str:
    """Describes what has been kept of an interrupted download."""
    if not _length(partial) or not _version_of(partial).is_file():
        return ""
    return (
        f"{megabytes(_length(partial))} of {partial.name} are kept, and the next download "
        "continues from there"
    )


def _name_of_version(answer: requests.Response) -> str:
    """Returns how the server identifies this version; a weak ETag does not identify bytes."""
    tag = answer.headers.get("ETag", "")
    return tag if tag.startswith('"') else answer.headers.get("Last-Modified", "")


def _kept_version(partial: Path) -> str:
    """Returns the version of which a part was kept; empty if there is none, or it is damaged."""
    path = _version_of(partial)
    version = path.read_text("ascii", "replace") if path.is_file() else ""
    return version if re.fullmatch(r'"[ !#-~]{1,200}"|[A-Z][\w ,:]{1,40}', version) else ""


def _version_of(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.version")


def _length(partial: Path) -> int:
    return partial.stat().st_size if partial.is_file() else 0


def _discard(partial: Path) -> None:
    partial.unlink(missing_ok=True)
    _version_of(partial).unlink(missing_ok=True)
