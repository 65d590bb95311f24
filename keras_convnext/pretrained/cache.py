"""Published weights as models load them: ported once, and cached next to the published file."""

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from keras_convnext.pretrained.catalog import DENSE_NETWORKS, find, list_weights
from keras_convnext.pretrained.catalog_row import Checkpoint
from keras_convnext.pretrained.digests import check_digest, pinned, recorded
from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.folder import PORT, cache_folder, port_of, usable_cache
from keras_convnext.pretrained.foreign_files import missing_file
from keras_convnext.pretrained.notices import warn_user
from keras_convnext.pretrained.published import (
    check,
    locked,
    obtained,
    present,
    published_file,
)
from keras_convnext.pretrained.rewriting import rewrite_checkpoint
from keras_convnext.printable import printable
from keras_convnext.shipped import shipped
from keras_convnext.variants import VARIANTS


def weights_file(head: str, backbone: object, weights: str | Path) -> Path:
    """Returns the file of `weights=` of a dense network, downloading it if it is published.

    Args:
        head: str. Name of the head, such as "upernet".
        backbone: str or keras.Model. The backbone, or its name.
        weights: str or path. A file, or the name of published weights.

    Raises:
        ValueError: If the network has no such published weights.
        DownloadError: If they cannot be downloaded.
        FileNotFoundError: If there is no such file.
    """
    if Path(weights).exists():
        return Path(weights)
    if Path(weights).suffix or not isinstance(weights, str):
        told = missing_file(str(weights)) or "File not found"
        raise FileNotFoundError(f"{told}. Received: weights={printable(weights)}")
    name = backbone if isinstance(backbone, str) else getattr(backbone, "name", "")
    return model_file(find(f"{head}_{name}", weights))


@usable_cache()
def ported_weights(copies: Sequence[Checkpoint]) -> Path:
    """Returns a file to load published weights from, downloading and porting them if necessary.

    Of processes that ask for the same at once, one does it and the others wait.

    Args:
        copies: sequence of Checkpoint. The same weights in several places, the best first.

    Returns:
        Path of a `.weights.h5` file, or of the published one where no port is kept.

    Raises:
        CheckpointError: If a file in the cache is not the published one.
        DownloadError: If the weights are not in the cache and cannot be downloaded, or the cache
            cannot be read.
    """
    if copies[0].source == "shipped":
        return shipped(f"weights/{copies[0].url}")
    if port := port_of(copies):
        return port
    with locked(copies):
        if port := port_of(copies):
            return port
        if found := present(copies):
            _check_present(*found)
        copy, published = found or obtained(copies)
        port = cache_folder() / f"{copy.stem}{PORT}"
        for left in port.parent.glob(f"{port.name}.*.partial"):  # by one that was killed
            with suppress(OSError):
                left.unlink()
        try:
            _reserve(port, copy.expected_bytes)
            rewrite_checkpoint(published, port)
        except OSError as error:
            reason = error.strerror or error
            warn_user(
                [
                    f"The port of these weights cannot be kept, so it is repeated each time: "
                    f"{reason}. Set KERAS_CONVNEXT_CACHE to a folder that you can write and that "
                    "has room for it"
                ],
                published,
            )
            return published
        return port


def _reserve(port: Path, size: int) -> None:
    """Raises an `OSError` if there is no room for a port.

    If a disk fills up while h5py writes, h5py prints a traceback for each tensor.
    """
    if hasattr(os, "posix_fallocate"):  # not on Windows and macOS
        trial = port.with_name(f"{port.name}.{os.getpid()}.partial")
        try:
            with open(trial, "wb") as file:
                os.posix_fallocate(file.fileno(), 0, size)
        finally:
            trial.unlink(missing_ok=True)


def _check_present(copy: Checkpoint, path: Path) -> None:
    try:
        check(copy, path)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}. Remove it with `keras-convnext cache remove {copy.file}`, and it is "
            "downloaded again"
        ) from error


def download_weights(model: str, weights: str | None = None, sha256: str | None = None) -> Path:
    """Downloads published weights into the cache, so that models load them without a connection.

    Does nothing if they are already there.

    Example:

    ```python
    keras_convnext.download_weights("convnext_tiny", "imagenet22k")
    ```

    Args:
        model: str. The network, such as "convnext_tiny" or "upernet_convnext_tiny".
        weights: str or None. The name of published weights, as `list_weights` has them. Defaults to
            None, those that the network's builder loads by default.
        sha256: str or None. The SHA-256 that the published file must have, in hexadecimal digits.
            Copies of the weights in other files are not used. Defaults to None, for the digest that
            its publisher provides, if any.

    Returns:
        Path of the file that models load.

    Raises:
        ValueError: If there is no such network, it has no such weights, or `sha256` is not one.
        CheckpointError: If a file in the cache is not the published one, or does not have the
            SHA-256.
        DownloadError: If the weights cannot be downloaded; the message says what to do.
    """
    if model not in (*VARIANTS, *DENSE_NETWORKS):
        raise ValueError(
            f"model is one of {', '.join((*VARIANTS, *DENSE_NETWORKS))}. Received: model={model!r}"
        )
    copies: Sequence[Checkpoint] = find(model, weights or list_weights(model)[0].tag)
    if sha256 is not None:
        copies = pinned(copies, sha256)
        _check_pinned(copies, sha256.lower())
    return model_file(copies)


def model_file(copies: Sequence[Checkpoint]) -> Path:
    """Returns the file that a model loads: ported, or as published for dense networks.

    Args and errors are those of `ported_weights`.
    """
    return published_file(copies)[1] if copies[0].head else ported_weights(copies)


@usable_cache()
def _check_pinned(copies: Sequence[Checkpoint], sha256: str) -> None:
    """Checks weights that are already on this machine."""
    if copies[0].source == "shipped":
        check_digest(shipped(f"weights/{copies[0].url}"), copies[0])
    elif port := port_of(copies):
        (copy,) = (copy for copy in copies if f"{copy.stem}{PORT}" == port.name)
        if recorded(copy).sha256 != sha256:
            raise CheckpointError(
                "The weights in the cache were not converted from the file with this SHA-256. "
                f"Remove them with `keras-convnext cache remove {port.name} {copy.file}`, and "
                f"download them again. Received: sha256={sha256} (file: {port})"
            )
