"""Reads PyTorch files in the format of torch before 1.6: a sequence of pickles.

The pickles are a magic number, a version, a description of the machine, the saved object and the
keys of the storages; then follow the storages, each preceded by its number of elements.

References:
    PyTorch, torch/serialization.py: _legacy_save.
"""

import io
import os
from pathlib import Path
from typing import Any

from keras_convnext.pretrained import torch_pickle
from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.stored_tensor import FETCH, Storage
from keras_convnext.pretrained.torch_file import (
    MAX_DESCRIPTION_BYTES,
    rebuild_tensor,
    storage_dtype,
)
from keras_convnext.pretrained.torch_objects import Name, RebuildTensor

MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_VERSION = 1001
_COUNT_BYTES = 8

Claims = dict[object, tuple[object, object]]


def read_legacy_torch_file(path: str | Path) -> Any:
    """Does the same as `read_torch_file` for the legacy format.

    Raises:
        CheckpointError: If the file is damaged, has another format, or would be unsafe to load
            with `torch.load`.
        FileNotFoundError: If the file does not exist.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            return _read(path, file)
    except CheckpointError as error:
        raise CheckpointError(f"{error} (file: {path})") from error


def _read(path: Path, file: io.BufferedReader) -> Any:
    size = os.fstat(file.fileno()).st_size
    description = io.BytesIO(file.read(min(size, MAX_DESCRIPTION_BYTES)))

    def load(
        load_storage: torch_pickle.LoadStorage = _none_here,
        rebuild_tensor: RebuildTensor = _none_here,
    ) -> Any:
        return torch_pickle.load(description, load_storage, rebuild_tensor)

    _, version, machine = (load() for _ in range(3))  # after the magic number
    if version != _VERSION or not isinstance(machine, dict):
        raise CheckpointError(
            "The file has a format of torch before 0.4. Save it again with a newer torch"
        )
    if machine.get("little_endian") is not True:
        raise CheckpointError(
            "The file was written on a big-endian machine. Save it again on a little-endian one"
        )
    start = description.tell()
    claims: Claims = {}
    # Storages are located after the object that uses them, so the object is read twice.
    load(lambda identity: _class(identity) or _claimed(claims, identity), lambda *_: None)
    keys = load()
    file.seek(description.tell())
    storages = _storages(path, file, claims, keys)
    description.seek(start)
    return load(lambda identity: _class(identity) or storages[identity[2]], rebuild_tensor)


def _none_here(*_: object) -> object:
    raise CheckpointError(f"There is a tensor where torch.save never writes one. {FETCH}")


def _class(identity: tuple[object, ...]) -> Name | None:
    """Returns the class if the identity is that of a module, stored with its source code."""
    is_class = len(identity) == 4 and identity[0] == "module"
    return identity[1] if is_class and isinstance(identity[1], Name) else None


def _claimed(claims: Claims, identity: tuple[object, ...]) -> object:
    """Records the class and size that the pickle claims for a storage; returns its key."""
    _, kind, key, _, count, view = identity
    is_flat = isinstance(kind, str) and isinstance(key, str) and isinstance(count, int)
    if not is_flat or view is not None or claims.setdefault(key, (kind, count)) != (kind, count):
        raise CheckpointError(f"The description of a storage is invalid. {FETCH}")
    return key


def _storages(
    path: Path, file: io.BufferedReader, claims: Claims, keys: object
) -> dict[object, Storage]:
    """Locates the storages, which are in the order of their keys."""
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise CheckpointError(f"The description of a storage is invalid. {FETCH}")
    if len(keys) != len(claims) or claims.keys() != set(keys):
        raise CheckpointError(f"The listed storages differ from the described ones. {FETCH}")
    size, storages = os.fstat(file.fileno()).st_size, {}
    for key in keys:
        kind, count = claims[key]
        dtype = storage_dtype(kind)
        if dtype is None:
            raise CheckpointError(
                f"A {kind!a:.100} is not supported in this old format. Save the file again with a "
                "newer torch: torch.save(torch.load(path, weights_only=True), path)"
            )
        there = int.from_bytes(file.read(_COUNT_BYTES), "little", signed=True)
        start = file.tell()
        end = start + there * dtype.itemsize
        if there != count or not start <= end <= size:
            raise CheckpointError(
                f"The file is truncated or damaged at the storage {key!a:.100}. {FETCH}"
            )
        storages[key] = Storage(path, start, end - start, None, dtype)
        file.seek(end)
    return storages
