"""Published files on this machine: found, or downloaded and checked once.

The cache is the folder `models/keras_convnext` of Keras' own (`~/.keras`, or KERAS_HOME), unless
KERAS_CONVNEXT_CACHE names another. Of each file that was downloaded it keeps the SHA-256. Weights
that come with the package are read where they lie.
"""

import hashlib
import itertools
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from keras_convnext.pretrained.catalog import Checkpoint
from keras_convnext.pretrained.checkpoint import check_numbers
from keras_convnext.pretrained.download import NotWritten, download
from keras_convnext.pretrained.errors import CheckpointError, DownloadError
from keras_convnext.pretrained.folder import cache_folder
from keras_convnext.pretrained.identify import check_network
from keras_convnext.pretrained.other_caches import in_other_cache
from keras_convnext.pretrained.servers import address_of, addresses, is_offline
from keras_convnext.pretrained.transfer_display import megabytes, say
from keras_convnext.pretrained.web import Unreachable
from keras_convnext.printable import without_login
from keras_convnext.shipped import shipped

_MOST_TIMES_EXPECTED = 4  # of bytes: a training run's state beside the weights is no more


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
    if not os.access(folder, os.W_OK):
        yield
        return
    lock = FileLock(folder / f"{copies[0].file}.lock")
    holder = folder / f"{copies[0].file}.holder"
    try:
        lock.acquire(timeout=0)
    except Timeout:
        named = "another process"
        with suppress(OSError):
            named = holder.read_text(errors="replace")[:100] or named
        say(f"Waiting for {named}, which downloads {_title(copies[0])}")
        lock.acquire()
    try:
        with suppress(OSError):
            holder.write_text(f"process {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        with suppress(OSError):
            holder.unlink(missing_ok=True)
        lock.release()


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
        most = _MOST_TIMES_EXPECTED * copy.expected_bytes
        try:
            download(
                url, path, partial(check, copy), copy.bytes, most, partial(_announce, copy, url)
            )
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
    """Checks a published file, and keeps its SHA-256.

    Raises:
        CheckpointError: If it is not what it should be.
    """
    sha256 = check_digest(path, copy)
    check_network(path, copy.model, copy.classes)
    check_numbers(path)
    with suppress(OSError):  # a cache that somebody else filled may be read-only
        _record(copy).write_text(f"{sha256}  {copy.file}\n")  # as sha256sum writes and checks it


def check_digest(path: Path, copy: Checkpoint) -> str:
    """Checks that a file is what its publisher says, and what it was when first seen here.

    Args:
        path: path. The file.
        copy: Checkpoint. What it should be.

    Returns:
        Its SHA-256, in hexadecimal digits.

    Raises:
        CheckpointError: If it is not.
    """
    sha256 = file_digest(path)
    record = _record(copy)
    recorded = record.read_text().partition(" ")[0] if record.is_file() else ""
    for told_by, known in (("its publisher", copy.known_digest), (record, f"sha256:{recorded}")):
        algorithm, _, digits = (known or "sha256:").partition(":")
        digest = sha256 if algorithm == "sha256" else file_digest(path, algorithm)
        if not digest.startswith(digits):
            raise CheckpointError(
                f"This is not the file that was published: its {algorithm} is {digest} and not, "
                f"as {told_by} says, {digits} (file: {path})"
            )
    return sha256


def _record(copy: Checkpoint) -> Path:
    return cache_folder() / f"{copy.file}.sha256"


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """Returns the digest of a file, in hexadecimal digits."""
    digest, piece = hashlib.new(algorithm), bytearray(1 << 20)
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(piece):
            digest.update(memoryview(piece)[:count])
    return digest.hexdigest()
