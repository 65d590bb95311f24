"""Published weights on this machine: fetched, checked and ported once, and found after that.

The cache is the folder `models/keras_convnext` of Keras' own (`~/.keras`, or KERAS_HOME), unless
KERAS_CONVNEXT_CACHE names another. Of each checkpoint it holds the file as published, its SHA-256,
and the port of it that models load. KERAS_CONVNEXT_MIRROR is the address of a folder with files of
the same names, to fetch them from instead. Weights that come with the package are read where they
lie.
"""

import hashlib
import os
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from pathlib import Path

from filelock import FileLock

from keras_convnext.pretrained.catalog import Checkpoint
from keras_convnext.pretrained.checkpoint import check_numbers
from keras_convnext.pretrained.download import download
from keras_convnext.pretrained.errors import CheckpointError, DownloadError
from keras_convnext.pretrained.folder import cache_folder
from keras_convnext.pretrained.identify import check_network
from keras_convnext.pretrained.rewriting import rewrite_checkpoint
from keras_convnext.shipped import shipped


def ported_weights(copies: Sequence[Checkpoint]) -> Path:
    """Returns a file to load published weights from, fetching and porting them if need be.

    Of processes that ask for the same at once, one does it and the others wait.

    Args:
        copies: sequence of Checkpoint. The same weights in several places, the best first.

    Returns:
        Path of a `.weights.h5` file, or of the published one where no port is kept.

    Raises:
        CheckpointError: If a file in the cache or from a server is not the published one.
        DownloadError: If the weights are not there and cannot be fetched.
    """
    if copies[0].source == "shipped":
        return shipped(f"weights/{copies[0].url}")
    ports = [cache_folder() / f"{copy.stem}.weights.h5" for copy in copies]
    with nullcontext() if any(map(Path.is_file, ports)) else _lock(copies):
        for port in ports:
            if port.is_file():
                return port
        if found := _present(copies):
            _check(*found)
        copy, published = found or _fetched(copies)
        port = ports[copies.index(copy)]
        for left in port.parent.glob(f"{port.name}.*.partial"):  # by one that was killed
            left.unlink()
        try:
            rewrite_checkpoint(published, port)
        except OSError as error:
            warnings.warn(
                f"The port of {published.name} cannot be kept, so it is made anew each time: "
                f"{error}",
                stacklevel=2,
            )
            return published
        return port


def published_file(copies: Sequence[Checkpoint]) -> tuple[Checkpoint, Path]:
    """Returns a published file, fetching it if need be, and which of the copies it is.

    One that was in the cache is not checked.

    Args:
        copies: as in `ported_weights`.

    Raises:
        CheckpointError: If the file from a server is not the published one.
        DownloadError: As in `ported_weights`.
    """
    if copies[0].source == "shipped":
        return copies[0], shipped(f"weights/{copies[0].url}")
    with _lock(copies):
        return _present(copies) or _fetched(copies)


def _lock(copies: Sequence[Checkpoint]) -> AbstractContextManager[object]:
    """Keeps other processes away, unless none can write here anyway."""
    folder = cache_folder()
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):
        return nullcontext()
    return FileLock(folder / f"{copies[0].file}.lock")


def _present(copies: Sequence[Checkpoint]) -> tuple[Checkpoint, Path] | None:
    paths = [(copy, cache_folder() / copy.file) for copy in copies]
    return next(((copy, path) for copy, path in paths if path.is_file()), None)


def _fetched(copies: Sequence[Checkpoint]) -> tuple[Checkpoint, Path]:
    mirror = os.environ.get("KERAS_CONVNEXT_MIRROR")
    failures = []
    for copy in copies:
        path = cache_folder() / copy.file
        url = f"{mirror.rstrip('/')}/{copy.file}" if mirror else copy.url
        try:
            download(url, path, partial(_check, copy), copy.bytes)
        except DownloadError as error:
            failures.append(str(error))
        else:
            if failures:
                warnings.warn(f"{failures[0]}. Took {copy.source}'s copy instead", stacklevel=4)
            return copy, path
    failures.append(
        f"On a machine that reaches it, fetch {copies[0].url} and put it here as "
        f"{cache_folder() / copies[0].file}; or let KERAS_CONVNEXT_MIRROR be the address of a "
        "folder that has it"
    )
    raise DownloadError(". ".join(failures))


def _check(copy: Checkpoint, path: Path) -> None:
    sha256 = check_digest(path, copy)
    check_network(path, copy.model, copy.classes)
    check_numbers(path)
    with suppress(OSError):  # a cache that somebody else filled may be read-only
        _record(copy).write_text(f"{sha256}  {copy.file}\n")  # as sha256sum writes and checks it


def check_digest(path: Path, copy: Checkpoint) -> str:
    """Checks that a file is what its publisher tells, and what it was when first seen here.

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
                f"as {told_by} tells, {digits}. Delete it and fetch it again (file: {path})"
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
