"""Weights in several files, with an index that says which tensor is in which."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.snapshot import is_plain_name

_MAX_INDEX_BYTES = 8 << 20  # that of a network of 100 billion parameters has 0.1 MB


def read_shards(index: Path, read: Callable[[Path], Any]) -> dict[str, Any]:
    """Reads all files that an index names, which stand beside it.

    Args:
        index: path. `model.safetensors.index.json` or `pytorch_model.bin.index.json`.
        read: function of the path of a shard. Returns its dict of tensors.

    Returns:
        The tensors of all shards by name.

    Raises:
        CheckpointError: If the index is damaged or names anything but files beside it, if one of
            these is absent, damaged or no dict of tensors, or if a tensor is absent or there twice.
        FileNotFoundError: If there is no such index.
    """
    where = _where(index)
    shards = sorted(set(where.values()))
    absent = [shard for shard in shards if not (index.parent / shard).is_file()]
    if absent:
        raise CheckpointError(
            f"The weights are in {len(shards)} files, of which {len(absent)} are not beside the "
            f"index: {_shown(absent)}. Put all of them into one folder (file: {index})"
        )
    tensors: dict[str, Any] = {}
    for shard in shards:
        held = read(index.parent / shard)
        if not isinstance(held, dict) or not all(isinstance(key, str) for key in held):
            raise CheckpointError(f"{shard!a:.200} is no dict of tensors (file: {index})")
        if twice := held.keys() & tensors.keys():
            raise CheckpointError(
                f"Two files have the same tensors: {_shown(sorted(twice))} (file: {index})"
            )
        tensors.update(held)
    if lacking := where.keys() - tensors.keys():
        raise CheckpointError(
            "The files lack tensors that the index has in them: "
            f"{_shown(sorted(lacking))}. Fetch them again (file: {index})"
        )
    return tensors


def _where(index: Path) -> dict[str, str]:
    """The file of each tensor."""
    try:
        is_small = index.stat().st_size <= _MAX_INDEX_BYTES
        found = json.loads(index.read_text("utf-8")) if is_small else None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"Not the index of sharded weights: {error} (file: {index})"
        ) from error
    where = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(where, dict) or not where:
        raise CheckpointError(
            "Not the index of sharded weights: it has no weight_map. Give the file of weights, or "
            f"the folder that it is in (file: {index})"
        )
    for shard in where.values():
        if not isinstance(shard, str) or not is_plain_name(shard):
            raise CheckpointError(
                "An index names files beside it and nothing else. "
                f"Received: {shard!a:.200} (file: {index})"
            )
    return where


def _shown(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(ascii(name)[1:-1][:100] for name in names[:3]) + more
