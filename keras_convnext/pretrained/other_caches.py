"""Published files that PyTorch or `huggingface_hub` have downloaded to this machine."""

import os
from pathlib import Path
from urllib.parse import urlsplit

from keras_convnext.pretrained.catalog_row import Checkpoint


def in_other_cache(copy: Checkpoint) -> Path | None:
    """Returns where a published file is in the cache of another package, if it is there."""
    if not copy.url.startswith(
        "https://huggingface.co/"
    ):  # timm and OpenMMLab let torch.hub download theirs
        path = _folder("TORCH_HOME", "torch") / "hub" / "checkpoints" / copy.file
        return path if path.is_file() else None
    owner, repository, *_, name = urlsplit(copy.url).path.strip("/").split("/")
    hub = os.environ.get("HF_HUB_CACHE")
    snapshots = (Path(hub) if hub else _folder("HF_HOME", "huggingface") / "hub").glob(
        f"models--{owner}--{repository}/snapshots/*/{name}"
    )
    return max(snapshots, key=lambda path: path.stat().st_mtime, default=None)


def _folder(variable: str, name: str) -> Path:
    """Where a package keeps what it downloads: as a variable says, or in the user's cache."""
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(os.environ.get(variable) or f"{caches}/{name}").expanduser()
