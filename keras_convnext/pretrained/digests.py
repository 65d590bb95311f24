"""Digests of published files: those of their publishers, and those of their first use here."""

import hashlib
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from keras_convnext.pretrained.catalog import CATALOG
from keras_convnext.pretrained.catalog_row import Checkpoint
from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.folder import cache_folder


class Recorded(NamedTuple):
    """What a file was at its first use on this machine.

    Args:
        bytes: int or None. Its size. None if it was not recorded.
        sha256: str. Its SHA-256, in hexadecimal digits. Empty if it was not recorded.
    """

    bytes: int | None = None
    sha256: str = ""


def recorded(copy: Checkpoint) -> Recorded:
    """Returns what a published file was at its first use. A damaged record counts as none."""
    try:
        text = _record(copy).read_text("ascii", "replace")
    except OSError:
        return Recorded()
    found = re.fullmatch(r"(?:# ([0-9]{1,15}) bytes\n)?([0-9a-f]{64})  .*\n?", text)
    if found is None:
        return Recorded()
    return Recorded(int(found[1]) if found[1] else None, found[2])


def record(copy: Checkpoint, path: Path, sha256: str) -> None:
    """Records the size and SHA-256 of a file, unless the cache is read-only."""
    with suppress(OSError):
        _record(copy).write_text(
            # as sha256sum writes and checks it, after a comment
            f"# {path.stat().st_size} bytes\n{sha256}  {copy.file}\n"
        )


def _record(copy: Checkpoint) -> Path:
    return cache_folder() / f"{copy.file}.sha256"


def pinned(copies: Sequence[Checkpoint], sha256: str) -> list[Checkpoint]:
    """Returns the same weights with a digest that replaces those of their publishers.

    Raises:
        ValueError: If it is not a SHA-256.
    """
    if not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise ValueError(f"sha256 must have 64 hexadecimal digits. Received: sha256={sha256!r}")
    return [copy._replace(digest=f"sha256:{sha256.lower()}") for copy in copies]


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
    seen, size = recorded(copy), path.stat().st_size
    if seen.bytes not in (None, size):
        raise CheckpointError(
            f"This is not the file that was published: it has {size:,} bytes and not, as "
            f"{_record(copy)} says, {seen.bytes:,} (file: {path})"
        )
    sha256 = file_digest(path)
    for told_by, known in (
        ("its publisher or sha256=", copy.known_digest),
        (_record(copy), f"sha256:{seen.sha256}"),
    ):
        algorithm, _, digits = (known or "sha256:").partition(":")
        digest = sha256 if algorithm == "sha256" else file_digest(path, algorithm)
        if not digest.startswith(digits):
            raise CheckpointError(
                f"This is not the file that was published: its {algorithm} is {digest} and not, "
                f"as {told_by} says, {digits} (file: {path})"
            )
    return sha256


def row_of_file(path: Path) -> Checkpoint | None:
    """Returns the row of the catalog whose digest is that of a file, or None.

    The digest is the published one, or that of the file when it was first used here.
    """
    found: dict[str, str] = {}
    for row in CATALOG:
        digest = row.known_digest or f"sha256:{recorded(row).sha256}"
        algorithm, _, digits = digest.partition(":")
        if not digits or row.bytes not in (None, path.stat().st_size):
            continue
        if algorithm not in found:
            found[algorithm] = file_digest(path, algorithm)
        if found[algorithm].startswith(digits):
            return row
    return None


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """Returns the digest of a file, in hexadecimal digits."""
    digest, piece = hashlib.new(algorithm), bytearray(1 << 20)
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(piece):
            digest.update(memoryview(piece)[:count])
    return digest.hexdigest()
