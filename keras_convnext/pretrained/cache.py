"""Published weights as models load them: ported once, and cached next to the published file."""

import warnings
from collections.abc import Sequence
from pathlib import Path

from keras_convnext.pretrained.catalog import Checkpoint, find, list_weights
from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.folder import PORT, cache_folder, port_of
from keras_convnext.pretrained.published import check, locked, obtained, present
from keras_convnext.pretrained.rewriting import rewrite_checkpoint
from keras_convnext.printable import printable
from keras_convnext.shipped import shipped
from keras_convnext.variants import VARIANTS


def ported_weights(copies: Sequence[Checkpoint]) -> Path:
    """Returns a file to load published weights from, downloading and porting them if necessary.

    Of processes that ask for the same at once, one does it and the others wait.

    Args:
        copies: sequence of Checkpoint. The same weights in several places, the best first.

    Returns:
        Path of a `.weights.h5` file, or of the published one where no port is kept.

    Raises:
        CheckpointError: If a file in the cache is not the published one.
        DownloadError: If the weights are not in the cache and cannot be downloaded.
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
            left.unlink()
        try:
            rewrite_checkpoint(published, port)
        except OSError as error:
            warnings.warn(
                f"The port of {published.name} cannot be saved, so it is repeated each time: "
                f"{printable(error)}",
                stacklevel=2,
            )
            return published
        return port


def _check_present(copy: Checkpoint, path: Path) -> None:
    try:
        check(copy, path)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}. Remove it with `keras-convnext cache remove {copy.file}`, and it is "
            "downloaded again"
        ) from error


def download_weights(model: str, weights: str | None = None) -> Path:
    """Downloads published weights into the cache, so that models load them without a connection.

    Does nothing if they are already there.

    Example:

    ```python
    keras_convnext.download_weights("convnext_tiny", "imagenet22k")
    ```

    Args:
        model: str. The network, such as "convnext_tiny".
        weights: str or None. The name of published weights, as `list_weights` has them. Defaults to
            None, those that the network's builder loads by default.

    Returns:
        Path of the file that models load.

    Raises:
        ValueError: If there is no such network, or it has no such weights.
        CheckpointError: If a file in the cache is not the published one.
        DownloadError: If the weights cannot be downloaded; the message says what to do.
    """
    if model not in VARIANTS:
        raise ValueError(f"model is one of {', '.join(VARIANTS)}. Received: model={model!r}")
    return ported_weights(find(model, weights or list_weights(model)[0].tag))
