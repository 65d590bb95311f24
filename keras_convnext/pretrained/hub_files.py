"""Weights by the id of a repository on the Hugging Face hub: `hf://OWNER/NAME[@REVISION]`.

The hub lists the size and digest of each file of a commit. The weights and their configuration are
downloaded once, checked against these, and kept by commit. The commit that a branch or tag stood
for at the first download is kept, too, so that later runs need no connection.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from filelock import FileLock

from keras_convnext.pretrained import download as transfer
from keras_convnext.pretrained.digests import file_digest
from keras_convnext.pretrained.errors import CheckpointError, DownloadError
from keras_convnext.pretrained.folder import cache_folder, usable_cache
from keras_convnext.pretrained.servers import HUGGING_FACE, check_encrypted, is_offline
from keras_convnext.pretrained.snapshot import is_plain_name
from keras_convnext.pretrained.transfer_display import megabytes, say
from keras_convnext.pretrained.web import Passing, response_of
from keras_convnext.printable import printable, without_login

SCHEME = "hf://"
_ID = re.compile(r"hf://([\w.-]{1,96})/([\w.-]{1,96})(?:@([\w.-]{1,100}(?:/[\w.-]{1,100}){0,4}))?")
_MOST_LISTED = 8 << 20  # bytes of a listing
_MOST_CONFIGURED = 1 << 20  # bytes of a configuration
_CONFIGURATION = ("config.json", "preprocessor_config.json")
_SHARD = re.compile(r"-[0-9]{5}-of-[0-9]{5}\.(safetensors|bin)")


class HubFile(NamedTuple):
    """A file of a commit.

    Args:
        name: str.
        size: int. In bytes.
        digest: str. "sha256:" and its digits, or "git:" and those of Git's own digest.
    """

    name: str
    size: int
    digest: str


def is_hub_id(source: object) -> bool:
    """Whether weights are given by the id of a repository."""
    return isinstance(source, str) and source.startswith(SCHEME)


def local_source(source: str | Path) -> str | Path:
    """Returns the folder with the files of a repository, downloading them if necessary.

    Args:
        source: str or path. Anything but the id of a repository is returned as it is.

    Raises:
        ValueError: If it starts as an id but is none.
        CheckpointError: If the repository has no weights.
        DownloadError: If the files are not in the cache and cannot be downloaded.
    """
    return _downloaded(source) if isinstance(source, str) and is_hub_id(source) else source


@usable_cache()
def _downloaded(source: str) -> Path:
    match = _ID.fullmatch(source)
    if match is None or any(set(part or "x") == {"."} for part in re.split("[/@]", source[5:])):
        raise ValueError(
            "A repository of the Hugging Face hub is given as hf://OWNER/NAME, or as "
            "hf://OWNER/NAME@REVISION with a branch, tag or commit. "
            f"Received: {printable(source)}"
        )
    owner, name, revision = match[1], match[2], match[3] or "main"
    folder = cache_folder() / "hub" / f"{owner}--{name}"
    reference = folder / "refs" / quote(revision, safe="")
    if known := _known(folder, reference):
        return known
    if is_offline():
        raise DownloadError(
            f"{source} is not in the cache, and KERAS_CONVNEXT_OFFLINE forbids connections. Load "
            f"it once with a connection, and copy {folder} here, or pass the path of its files"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "download.lock"):
        if known := _known(folder, reference):
            return known
        try:
            commit = _fetch(f"{owner}/{name}", revision, folder)
        except DownloadError as error:
            raise DownloadError(
                f"{source} is not in the cache, and could not be downloaded: {error}. HF_ENDPOINT "
                "may name a mirror of huggingface.co. You can also download its files elsewhere, "
                "and pass the path of their folder"
            ) from error
        reference.parent.mkdir(exist_ok=True)
        written = reference.with_name(f"{reference.name}.partial")
        written.write_text(commit)
        written.replace(reference)
    return folder / commit


def _known(folder: Path, reference: Path) -> Path | None:
    """Returns the folder of a commit whose files were all downloaded and checked."""
    if not reference.is_file():
        return None
    commit = reference.read_text("ascii", "replace")[:40]
    return folder / commit if re.fullmatch("[0-9a-f]{40}", commit) else None


def _fetch(repository: str, revision: str, folder: Path) -> str:
    """Downloads the files of a revision, and returns its commit."""
    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or HUGGING_FACE
    check_encrypted(endpoint, "HF_ENDPOINT")
    listed = _listing(
        f"{endpoint}/api/models/{repository}/revision/{quote(revision, safe='')}?blobs=true"
    )
    commit = listed.get("sha")
    if not isinstance(commit, str) or not re.fullmatch("[0-9a-f]{40}", commit):
        raise DownloadError("the hub does not say which commit it is")
    files = _chosen(_files(listed), repository)
    total = sum(file.size for file in files)
    say(
        f"Downloading {repository} at {commit[:7]}: {megabytes(total)}, {_license(listed)}",
        f"  from {without_login(endpoint)}/{repository}",
        f"  to {folder / commit}",
    )
    for file in files:
        path = folder / commit / file.name
        if not path.is_file() or path.stat().st_size != file.size:
            url = f"{endpoint}/{repository}/resolve/{commit}/{quote(file.name)}"
            transfer.download(url, path, partial(_check, file), file.size, file.size)
    return commit


def _listing(url: str) -> Mapping[str, Any]:
    for attempt in range(transfer.ATTEMPTS):
        try:
            with response_of(url, {"Accept-Encoding": "identity"}) as answer:
                content = answer.raw.read(_MOST_LISTED + 1)
            break
        except Passing as error:
            if attempt == transfer.ATTEMPTS - 1:
                raise DownloadError(str(error)) from error
            time.sleep(error.wait or transfer.PAUSE * 2**attempt)
    try:
        listed = json.loads(content) if len(content) <= _MOST_LISTED else None
    except (ValueError, RecursionError):
        listed = None
    if not isinstance(listed, dict):
        raise DownloadError("it does not answer like the hub: its list of files is no JSON")
    return listed


def _files(listed: Mapping[str, Any]) -> dict[str, HubFile]:
    """Returns the files of a commit by name. Those in folders are not of interest."""
    files = {}
    siblings = listed.get("siblings")
    for row in siblings if isinstance(siblings, list) else ():
        row = row if isinstance(row, dict) else {}
        name, size, stored = row.get("rfilename"), row.get("size"), row.get("lfs")
        digest = stored.get("sha256") if isinstance(stored, dict) else row.get("blobId")
        digits = 64 if isinstance(stored, dict) else 40
        if (
            isinstance(name, str)
            and is_plain_name(name)
            and isinstance(size, int)
            and size >= 0
            and isinstance(digest, str)
            and re.fullmatch(f"[0-9a-f]{{{digits}}}", digest)
        ):
            files[name] = HubFile(name, size, f"{'sha256' if digits == 64 else 'git'}:{digest}")
    return files


def _chosen(files: Mapping[str, HubFile], repository: str) -> list[HubFile]:
    """Returns the weights, safetensors first, and their configuration."""
    configured = [
        files[name]
        for name in _CONFIGURATION
        if name in files and files[name].size <= _MOST_CONFIGURED
    ]
    for stem, suffix in (("model", ".safetensors"), ("pytorch_model", ".bin")):
        if whole := files.get(f"{stem}{suffix}"):
            return [*configured, whole]
        if index := files.get(f"{stem}{suffix}.index.json"):
            shards = [
                file
                for name, file in files.items()
                if name.startswith(f"{stem}-") and _SHARD.fullmatch(name.removeprefix(stem))
            ]
            return [*configured, index, *shards]
    names = ", ".join(sorted(files)[:5]) or "nothing"
    raise CheckpointError(
        "The repository has no weights of timm or transformers, which are called "
        "model.safetensors or pytorch_model.bin. "
        f"Received: {printable(repository)} with {printable(names)}"
    )


def _license(listed: Mapping[str, Any]) -> str:
    card = listed.get("cardData")
    names = card if isinstance(card, dict) else {}
    name = names.get("license_name") or names.get("license")
    return f"license: {printable(name)[:100]}" if isinstance(name, str) else "license: not stated"


def _check(file: HubFile, path: Path) -> None:
    """Checks a downloaded file.

    Raises:
        CheckpointError: If its size or digest is not the one that the hub lists.
    """
    algorithm, _, expected = file.digest.partition(":")
    size = path.stat().st_size
    if algorithm == "sha256":
        found = file_digest(path)
    else:
        content = path.read_bytes()[: _MOST_CONFIGURED + 1] if size <= _MOST_CONFIGURED else b""
        found = hashlib.sha1(b"blob %d\0" % size + content, usedforsecurity=False).hexdigest()
    if size != file.size or found != expected:
        raise CheckpointError(
            f"The server sent a wrong file, which was deleted: {file.name} has {size:,} bytes and "
            f"the digest {found}, and not {file.size:,} and {expected} as the hub lists"
        )
