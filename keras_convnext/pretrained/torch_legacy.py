"""PyTorch files as torch before 1.6 wrote them, and others for its sake: pickles one after another.

They are a magic number, a version, what the machine was like, what was saved, and the keys of the
storages; then come the numbers of each storage after their count.

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
    """Reads what `torch.save` wrote in the older format, as `read_torch_file` does.

    Raises:
        CheckpointError: If the file is damaged, is of another format, or is unsafe elsewhere.
        FileNotFoundError: If there is no such file.
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
        raise CheckpointError("A format of torch before 0.4. Save it again with a newer torch")
    if machine.get("little_endian") is not True:
        raise CheckpointError(
            "The file was written on a big-endian machine. Save it again on a little-endian one"
        )
    start = description.tell()
    claims: Claims = {}
    # Where the numbers are is said after what they are of, so that is read twice.
    load(lambda identity: _class(identity) or _claimed(claims, identity), lambda *_: None)
    keys = load()
    file.seek(description.tell())
    storages = _storages(path, file, claims, keys)
    description.seek(start)
    return load(lambda identity: _class(identity) or storages[identity[2]], rebuild_tensor)


def _none_here(*_: object) -> object:
    raise CheckpointError(f"There is a tensor where none is in a file of torch. {FETCH}")


def _class(identity: tuple[object, ...]) -> Name | None:
    """The class of a module, which has its source beside it, if the identity is not a storage's."""
    is_class = len(identity) == 4 and identity[0] == "module"
    return identity[1] if is_class and isinstance(identity[1], Name) else None


def _claimed(claims: Claims, identity: tuple[object, ...]) -> object:
    """Notes what is claimed of a storage, whose key is returned."""
    _, kind, key, _, count, view = identity
    is_flat = isinstance(kind, str) and isinstance(key, str) and isinstance(count, int)
    if not is_flat or view is not None or claims.setdefault(key, (kind, count)) != (kind, count):
        raise CheckpointError(f"The description of a storage makes no sense. {FETCH}")
    return key


def _storages(
    path: Path, file: io.BufferedReader, claims: Claims, keys: object
) -> dict[object, Storage]:
    """The places of the storages, which stand in the order of their keys."""
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise CheckpointError(f"The description of a storage makes no sense. {FETCH}")
    if len(keys) != len(claims) or claims.keys() != set(keys):
        raise CheckpointError(f"The file lists other storages than it describes. {FETCH}")
    size, storages = os.fstat(file.fileno()).st_size, {}
    for key in keys:
        kind, count = claims[key]
        dtype = storage_dtype(kind)
        if dtype is None:
            raise CheckpointError(
                f"The numbers of a {kind!a:.100} cannot be skipped in this old format. Save it "
                "again with a newer torch: torch.save(torch.load(path, weights_only=True), path)"
            )
        there = int.from_bytes(file.read(_COUNT_BYTES), "little", signed=True)
        start = file.tell()
        end = start + there * dtype.itemsize
        if there != count or not start <= end <= size:
            raise CheckpointError(
                f"The file is cut or damaged at its storage {key!a:.100}. {FETCH}"
            )
        storages[key] = Storage(path, start, end - start, None, dtype)
        file.seek(end)
    return storages
