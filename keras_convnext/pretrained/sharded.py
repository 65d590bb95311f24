"""Reads sharded checkpoints: several weight files and an index of their tensors."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.snapshot import is_plain_name

_MAX_INDEX_BYTES = 8 << 20  # the index of a network with 100 billion parameters has 0.1 MB


def read_shards(index: Path, read: Callable[[Path], Any]) -> dict[str, Any]:
    """Reads all shards named in an index, which must be in the same folder.

    Args:
        index: path. `model.safetensors.index.json` or `pytorch_model.bin.index.json`.
        read: function. Takes the path of a shard and returns its dict of tensors.

    Returns:
        A dict from names to the tensors of all shards.

    Raises:
        CheckpointError: If the index is damaged or names files outside its folder; if a shard is
            missing, damaged or not a dict of tensors; or if a tensor is missing or duplicated.
        FileNotFoundError: If the index does not exist.
    """
    where = _where(index)
    shards = sorted(set(where.values()))
    absent = [shard for shard in shards if not (index.parent / shard).is_file()]
    if absent:
        raise CheckpointError(
            f"{len(absent)} of the {len(shards)} shards are missing: {_shown(absent)}. Put all "
            f"shards and the index in one folder (file: {index})"
        )
    tensors: dict[str, Any] = {}
    for shard in shards:
        held = read(index.parent / shard)
        if not isinstance(held, dict) or not all(isinstance(key, str) for key in held):
            raise CheckpointError(f"{shard!a:.200} is not a dict of tensors (file: {index})")
        if twice := held.keys() & tensors.keys():
            raise CheckpointError(
                f"Two shards contain the same tensors: {_shown(sorted(twice))} (file: {index})"
            )
        tensors.update(held)
    if lacking := where.keys() - tensors.keys():
        raise CheckpointError(
            f"Tensors in the index are missing from the shards: {_shown(sorted(lacking))}. "
            f"Download them again (file: {index})"
        )
    return tensors


def _where(index: Path) -> dict[str, str]:
    """Returns the file name of each tensor."""
    try:
        is_small = index.stat().st_size <= _MAX_INDEX_BYTES
        found = json.loads(index.read_text("utf-8")) if is_small else None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"Not a valid index of sharded weights: {error} (file: {index})"
        ) from error
    where = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(where, dict) or not where:
        raise CheckpointError(
            "Not a valid index of sharded weights: it has no weight_map. Pass the weight file or "
            f"its folder (file: {index})"
        )
    for shard in where.values():
        if not isinstance(shard, str) or not is_plain_name(shard):
            raise CheckpointError(
                "An index may only name files in its own folder. "
                f"Received: {shard!a:.200} (file: {index})"
            )
    return where


def _shown(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(ascii(name)[1:-1][:100] for name in names[:3]) + more
