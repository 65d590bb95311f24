"""Verifies weight files against their published digest, network and logits."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from keras_convnext.builders import BUILDERS
from keras_convnext.pictures import ImageSource, open_image
from keras_convnext.preprocessing import WARP_FROM
from keras_convnext.pretrained.catalog import find, list_weights
from keras_convnext.pretrained.catalog_row import Checkpoint
from keras_convnext.pretrained.checks import check_network, check_numbers
from keras_convnext.pretrained.classifier_rows import COCO_LOGITS
from keras_convnext.pretrained.digests import check_digest, file_digest
from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.identify import identify
from keras_convnext.pretrained.published import published_file
from keras_convnext.resizing import resized

COCO_TOLERANCE = 1e-3  # the tolerance used by the publishers of the logits


class Finding(NamedTuple):
    """The result of one check.

    Args:
        question: str. What was checked: "digest", "network", "numbers" or "logits".
        passed: bool or None. None if there is no reference to compare with.
        answer: str. The result in words.
    """

    question: str
    passed: bool | None
    answer: str


def verify(
    model: str,
    weights: str | Path,
    image: ImageSource | None = None,
    *,
    entry: str | None = None,
    prefix: str | None = None,
    ignore: str | Iterable[str] = (),
) -> list[Finding]:
    """Compares weights with everything published about them.

    Example:

    ```python
    for question, passed, answer in keras_convnext.verify("convnext_tiny", "imagenet"):
        print(passed, question, answer)
    ```

    Args:
        model: str. Name of the network, such as "convnext_tiny".
        weights: str or path. Name of published weights, which are downloaded if needed, or a file.
            A file is compared with the published file of the same name.
        image: a source as in `load_image`, or None. Image 000000039769 of COCO val2017, for which
            the first logits of most official checkpoints have been published. Defaults to None, to
            skip this check.
        entry: str or None. For a file, as in `load_checkpoint`.
        prefix: str or None. For a file, as in `load_checkpoint`.
        ignore: str or iterable of str. For a file, as in `load_checkpoint`.

    Returns:
        List of `Finding`s about the digest, the network, the numbers and the logits.

    Raises:
        ValueError: If the network has no such published weights.
        DownloadError: If the weights cannot be downloaded.
        FileNotFoundError: If the file does not exist.
        ImageError: If `image` is not an image.
    """
    where = (entry, prefix, ignore)
    if Path(weights).suffix or Path(weights).is_file():
        path = Path(weights)
        copies = [row for row in list_weights(model, copies=True) if row.file == path.name]
        copy = copies[0] if copies else None
        classes = copy.classes if copy else _classes(path, *where)
    else:
        copy, path = published_file(find(model, str(weights)))
        classes = copy.classes
    findings = [
        _ask("digest", lambda: _digest(path, copy)),
        _ask("network", lambda: _network(path, model, classes, *where)),
        _ask("numbers", lambda: _numbers(path, *where)),
    ]
    if image is not None:
        findings.append(_ask("logits", lambda: _logits(path, copy, image)))
    return findings


def _classes(path: Path, *where: Any) -> int | None:
    try:
        return identify(path, *where).classes
    except CheckpointError:
        return None  # reported by the check of the network


def _ask(question: str, ask: Callable[[], tuple[bool | None, str]]) -> Finding:
    try:
        return Finding(question, *ask())
    except CheckpointError as error:
        return Finding(question, False, str(error))


def _digest(path: Path, copy: Checkpoint | None) -> tuple[bool | None, str]:
    if copy is None:
        return None, f"no published file has this name; SHA-256 {file_digest(path)}"
    sha256 = check_digest(path, copy)
    if copy.known_digest is None:
        return None, f"no digest has been published; SHA-256 {sha256}"
    return True, f"matches the published digest; SHA-256 {sha256}"


def _network(path: Path, model: str, classes: int | None, *where: Any) -> tuple[bool, str]:
    parameters = check_network(path, model, classes, *where)
    return True, f"{model}, {classes or 'no'} classes, {parameters:,} parameters"


def _numbers(path: Path, *where: Any) -> tuple[bool, str]:
    check_numbers(path, *where)
    return True, "all values are finite"


def _logits(path: Path, copy: Checkpoint | None, image: ImageSource) -> tuple[bool | None, str]:
    if copy is None or copy.file not in COCO_LOGITS:
        return None, "no logits have been published"
    network = BUILDERS[copy.model](
        weights=path, input_shape=(None, None, 3), classifier_activation=None
    )
    expected = COCO_LOGITS[copy.file]
    differences = [
        np.abs(network.predict(pixels[None], verbose=0)[0, : len(expected)] - expected).max()
        for pixels in _readings(open_image(image), copy.size)
    ]
    passed = bool(min(differences) <= COCO_TOLERANCE)
    hint = "" if passed else "; is this image 000000039769 of COCO val2017?"
    return passed, f"differ from the published logits by {min(differences):.1e}{hint}"


def _readings(image: Image.Image, size: int) -> Iterator[np.ndarray]:
    """Yields the image in the sizes from which the published logits may have been computed.

    They were computed "without center cropping", which does not determine the size below 384 px.
    """
    sizes = [(size, size)]
    if size < WARP_FROM:
        width, height = image.size
        for short in (size, 256):
            sizes.append((short * width // min(image.size), short * height // min(image.size)))
    for each in sizes:
        yield np.asarray(resized(image, each))
