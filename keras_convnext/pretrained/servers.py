"""Where published files are downloaded from, as set by environment variables.

- KERAS_CONVNEXT_OFFLINE: 1 for no connections at all.
- KERAS_CONVNEXT_MIRROR: addresses of folders with the files under their own names, tried in this
  order, between spaces or commas. `direct` among them stands for the publishers.
- HF_ENDPOINT: a server with the files of huggingface.co, as for `huggingface_hub`.
- KERAS_CONVNEXT_ALLOW_HTTP: 1 for addresses that start with http://. Whoever can change what comes
  over such a connection can replace a file, and few files have a published digest.
"""

import os
import re
from collections.abc import Sequence
from urllib.parse import urlsplit
from urllib.request import getproxies

from keras_convnext.pretrained.catalog_row import Checkpoint
from keras_convnext.pretrained.errors import DownloadError
from keras_convnext.printable import without_login

DIRECT = "direct"
HUGGING_FACE = "https://huggingface.co"


def is_offline() -> bool:
    """Whether KERAS_CONVNEXT_OFFLINE forbids connections."""
    return _is_set("KERAS_CONVNEXT_OFFLINE")


def addresses(copies: Sequence[Checkpoint]) -> list[tuple[Checkpoint, str]]:
    """Lists the addresses to try, the best first.

    Args:
        copies: sequence of Checkpoint. The same weights in several places, the best first.

    Raises:
        DownloadError: If KERAS_CONVNEXT_MIRROR holds something else than addresses, or an address
            is not encrypted and KERAS_CONVNEXT_ALLOW_HTTP is not set.
    """
    found = []
    for mirror in _mirrors():
        if mirror != DIRECT and not _is_address(mirror):
            raise DownloadError(
                "KERAS_CONVNEXT_MIRROR holds addresses that start with https:// or http://, and "
                "perhaps the word direct; for a folder on this machine, set KERAS_CONVNEXT_CACHE. "
                f"Received: {without_login(mirror)}"
            )
        for copy in copies:
            at_publisher = mirror == DIRECT
            url = address_of(copy) if at_publisher else f"{mirror.rstrip('/')}/{copy.file}"
            check_encrypted(url, "HF_ENDPOINT" if at_publisher else "KERAS_CONVNEXT_MIRROR")
            found.append((copy, url))
    return found


def address_of(copy: Checkpoint) -> str:
    """Where the publisher serves a file, by way of HF_ENDPOINT if that is set."""
    endpoint = os.environ.get("HF_ENDPOINT")
    if endpoint and copy.url.startswith(f"{HUGGING_FACE}/"):
        return endpoint.rstrip("/") + copy.url.removeprefix(HUGGING_FACE)
    return copy.url


def described() -> str:
    """Where downloads come from, in words."""
    if is_offline():
        return "none, by KERAS_CONVNEXT_OFFLINE"
    servers = ["the publishers" if name == DIRECT else without_login(name) for name in _mirrors()]
    known = getproxies()
    proxies = {without_login(known[kind]) for kind in ("http", "https", "all") if kind in known}
    by = f", by the proxy {' or '.join(sorted(proxies))}" if proxies else ""
    return f"from {', then '.join(servers)}{by}"


def _is_set(name: str) -> bool:
    return os.environ.get(name, "").strip().lower() not in ("", "0", "false", "no", "off")


def check_encrypted(url: str, source: str) -> None:
    """Refuses an address that is not encrypted, unless KERAS_CONVNEXT_ALLOW_HTTP is set.

    Args:
        url: str.
        source: str. What the address comes from, for the message.

    Raises:
        DownloadError: If it is refused.
    """
    if urlsplit(url).scheme != "https" and not _is_set("KERAS_CONVNEXT_ALLOW_HTTP"):
        raise DownloadError(
            f"The address from {source} does not start with https://, so others could replace the "
            "file on its way. If you trust the network, set KERAS_CONVNEXT_ALLOW_HTTP=1. "
            f"Received: {without_login(url)}"
        )


def _is_address(text: str) -> bool:
    try:
        split = urlsplit(text)
    except ValueError:  # brackets around no IPv6 address
        return False
    return split.scheme in ("http", "https") and bool(split.hostname)


def _mirrors() -> list[str]:
    mirrors = re.split(r"[\s,]+", os.environ.get("KERAS_CONVNEXT_MIRROR", ""))
    return list(filter(None, mirrors)) or [DIRECT]
