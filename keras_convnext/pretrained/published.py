"""Published files on this machine: found, or downloaded and checked once.

The cache is the folder `models/keras_convnext` of Keras' own (`~/.keras`, or KERAS_HOME), unless
KERAS_CONVNEXT_CACHE names another. Of each file that was downloaded it keeps the size and the
SHA-256. Weights that come with the package are read where they lie.
"""

import itertools
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from filelock import BaseFileLock, FileLock, Timeout

from keras_convnext.pretrained.catalog_row import Checkpoint
from keras_convnext.pretrained.checks import check_network, check_numbers
from keras_convnext.pretrained.classifier_rows import COCO_LOGITS
from keras_convnext.pretrained.digests import check_digest, record, recorded
from keras_convnext.pretrained.download import NotWritten, download
from keras_convnext.pretrained.errors import CheckpointError, DownloadError
from keras_convnext.pretrained.folder import cache_folder, usable_cache
from keras_convnext.pretrained.notices import warn_user
from keras_convnext.pretrained.other_caches import in_other_cache
from keras_convnext.pretrained.servers import address_of, addresses, is_offline
from keras_convnext.pretrained.transfer_display import megabytes, say
from keras_convnext.pretrained.web import Unreachable
from keras_convnext.printable import without_login
from keras_convnext.shipped import shipped

_MOST_TIMES_EXPECTED = 4  # of bytes: a training run's state beside the weights is no more


@usable_cache()
def published_file(copies: Sequence[Checkpoint]) -> tuple[Checkpoint, Path]:
    """Returns a published file, downloading it if necessary, and which of the copies it is.

    One that was in the cache is not checked.

    Args:
        copies: sequence of Checkpoint. The same weights in several places, the best first.

    Raises:
        DownloadError: If the weights are not in the cache and cannot be downloaded.
    """
    if copies[0].source == "shipped":
        return copies[0], shipped(f"weights/{copies[0].url}")
    with locked(copies):
        return present(copies) or obtained(copies)


@contextmanager
def locked(copies: Sequence[Checkpoint]) -> Iterator[None]:
    """Keeps other processes from downloading the same weights, unless none can write here."""
    folder = cache_folder()
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{copies[0].file}.lock")
    holder = folder / f"{copies[0].file}.holder"
    try:
        if os.access(folder, os.W_OK):
            # The lock may belong to another user, or the file system may have none. Then nobody is
            # waited for, and what is in the cache can still be read.
            with suppress(OSError, NotImplementedError):
                _acquire(lock, holder, copies[0])
                holder.write_text(f"process {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        if lock.is_locked:
            with suppress(OSError):
                holder.unlink(missing_ok=True)
            lock.release()


def _acquire(lock: BaseFileLock, holder: Path, copy: Checkpoint) -> None:
    """Waits for a lock, and says for whom."""
    try:
        lock.acquire(timeout=0)
    except Timeout:
        named = "another process"
        with suppress(OSError):
            named = holder.read_text(errors="replace")[:100] or named
        say(f"Waiting for {named}, which downloads {_title(copy)}")
        lock.acquire()


def present(copies: Sequence[Checkpoint]) -> tuple[Checkpoint, Path] | None:
    """Returns the first of the copies that is in the cache, and its path."""
    paths = [(copy, cache_folder() / copy.file) for copy in copies]
    return next(((copy, path) for copy, path in paths if path.is_file()), None)


def obtained(copies: Sequence[Checkpoint]) -> tuple[Checkpoint, Path]:
    """Finds one of the copies in the cache of another package, or downloads it into our own."""
    title = _title(copies[0])
    for copy in copies:
        if path := in_other_cache(copy):
            try:
                check(copy, path)
            except (CheckpointError, OSError) as error:
                say(f"{path} is not used: {error}")
            else:
                say(f"Found {title} in {path}")
                return copy, path
    if is_offline():
        raise DownloadError("\n".join([
            f"{title.capitalize()} are not in the cache, and KERAS_CONVNEXT_OFFLINE forbids "
            "connections",
            *_by_hand(copies),
        ]))  # fmt: skip
    failures: list[tuple[str, str]] = []  # addresses, and why not
    unreachable: set[str] = set()
    for copy, url in addresses(copies):
        server = urlsplit(url).netloc
        if server in unreachable:
            continue
        if failures:
            say(*failures[-1])
        path = cache_folder() / copy.file
        size = copy.bytes or recorded(copy).bytes
        most = _MOST_TIMES_EXPECTED * copy.expected_bytes
        try:
            download(url, path, partial(check, copy), size, most, partial(_announce, copy, url))
        except NotWritten:
            raise
        except DownloadError as error:
            reason = str(error)
            if isinstance(error, Unreachable):
                unreachable.add(server)
        except CheckpointError as error:
            reason = f"it sent a wrong file, which was deleted. {error}"
        else:
            return copy, path
        failures.append((f"  {without_login(url)}", f"    {reason}"))
    raise DownloadError("\n".join([
        f"{title.capitalize()} are not in the cache, and could not be downloaded",
        *itertools.chain(*failures),
        *_by_hand(copies),
    ]))  # fmt: skip


def _announce(copy: Checkpoint, url: str, size: int | None) -> None:
    license = copy.license
    about = megabytes(size) if size else f"about {megabytes(copy.expected_bytes)}"
    say(
        f"Downloading {_title(copy)}: {about}, "
        + (f"{license.name} license" if license.is_open else license.name),
        *[] if license.is_open else [f"  license terms: {license.url}"],
        f"  from {without_login(url)}",
        f"  to {cache_folder()}",
    )


def _by_hand(copies: Sequence[Checkpoint]) -> list[str]:
    """Describes what to do without a connection."""
    lines = ["Without a connection, download one of these files elsewhere, and save it as shown:"]
    for copy in copies:
        about = f"{copy.expected_bytes / 1e6:,.0f} MB"
        digest = f", {copy.known_digest}" if copy.known_digest else ""
        lines.append(f"  {address_of(copy)} ({about}{digest})")
        lines.append(f"    as {cache_folder() / copy.file}")
    return [
        *lines,
        "Or set KERAS_CONVNEXT_MIRROR to the address of a folder that serves one of them, or "
        "KERAS_CONVNEXT_CACHE to a folder that contains one",
    ]


def _title(copy: Checkpoint) -> str:
    return f"the {copy.tag} weights of {copy.model}"


def check(copy: Checkpoint, path: Path) -> None:
    """Checks a published file, and keeps its size and SHA-256.

    A warning is issued at its first use if its publisher provides no digest.

    Raises:
        CheckpointError: If it is not what it should be.
    """
    sha256 = check_digest(path, copy)
    check_network(path, copy.model, copy.classes, parameters=copy.parameters)
    check_numbers(path)
    if copy.known_digest is None and not recorded(copy).sha256:
        is_partial = path.parent.name == "partial"  # and moved once it is checked
        warn_user(
            [_unverified(copy, sha256)], path.parent.parent / path.name if is_partial else path
        )
    record(copy, path, sha256)


def _unverified(copy: Checkpoint, sha256: str) -> str:
    """Describes what is known about a file without a published digest."""
    logits = (
        f" To compare its logits with published ones: keras-convnext verify {copy.tag} --model "
        f"{copy.model} --image 000000039769.jpg, an image of COCO val2017."
    ) * (copy.file in COCO_LOGITS)
    return (
        f"{copy.file} has the right network and valid numbers, but its publisher provides no "
        f"digest to check it against. Its SHA-256 is {sha256}, and later copies must have the "
        f"same. If you know the right one: keras-convnext download {copy.model} {copy.tag} "
        f"--sha256 DIGEST.{logits}"
    )
