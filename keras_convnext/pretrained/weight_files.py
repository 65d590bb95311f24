"""Reads weight files in any format, detected by content rather than by suffix."""

import os
import re
from pathlib import Path
from typing import Any, Literal

from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.foreign_files import foreign_file
from keras_convnext.pretrained.h5_file import SUFFIXES, read_h5
from keras_convnext.pretrained.keras_file import SUFFIX as KERAS_SUFFIX
from keras_convnext.pretrained.keras_file import read_keras
from keras_convnext.pretrained.safetensors_file import read_safetensors
from keras_convnext.pretrained.sharded import read_shards
from keras_convnext.pretrained.snapshot import weight_file
from keras_convnext.pretrained.torch_file import read_torch_file
from keras_convnext.pretrained.torch_legacy import MAGIC, read_legacy_torch_file

Format = Literal["hdf5", "keras", "safetensors", "torch", "legacy torch", "index"]

_READERS = {
    "hdf5": read_h5,
    "keras": read_keras,
    "safetensors": read_safetensors,
    "torch": read_torch_file,
    "legacy torch": read_legacy_torch_file,
}
_PART_OF_DEEPSPEED = re.compile(r"(bf16_|fp16_)?zero_pp_rank_\d+_mp_rank_\d+_\w+_states\.pt")
_SHARD = re.compile(r"(.+)-\d{5}-of-(\d{5})(\.\w+)")


def read(path: str | Path) -> Any:
    """Reads the names and shapes of the tensors in a file or folder, but not the tensors.

    Args:
        path: str or path. A file in any format and with any suffix, the index of a sharded
            checkpoint, or a folder from Hugging Face or DeepSpeed.

    Returns:
        For HDF5 and `.keras` files, a dict of `H5Tensor`s; for safetensors, a dict of
        `SafeTensor`s; for PyTorch files, the result of `read_torch_file`; for shards, a dict of all
        their tensors.

    Raises:
        CheckpointError: If a file is damaged, unsafe or has another format, or if a folder contains
            no weight file or several; the message names the file.
        FileNotFoundError: If the file does not exist.
    """
    path = weight_file(path)
    form = format_of(path)
    if form == "index":
        return read_shards(path, _read_file)
    _check_whole(path)
    return _READERS[form](path)


def format_of(path: str | Path) -> Format:
    """Detects the format of a file, or of the weight file in a folder, from its first bytes.

    Raises:
        CheckpointError: If a folder contains no weight file or several, or the file is of an
            unsupported kind.
        FileNotFoundError: If the file does not exist.
    """
    path = weight_file(path)
    if foreign := foreign_file(path):
        raise CheckpointError(f"{foreign} (file: {path})")
    with open(path, "rb") as file:
        start, size = file.read(64), os.fstat(file.fileno()).st_size
    header = int.from_bytes(start[:8], "little")
    if start.startswith(b"\x89HDF\r\n\x1a\n"):
        return "hdf5"
    if path.suffix == KERAS_SUFFIX:
        return "keras"
    if start.startswith(b"PK\x03\x04"):
        return "torch"
    if start[8:9] == b"{" and header <= size - 8:
        return "safetensors"
    if MAGIC in start:
        return "legacy torch"
    if start.lstrip().startswith(b"{") or path.suffix == ".json":
        return "index"
    # The file is damaged, which its reader reports.
    if path.suffix in SUFFIXES:
        return "hdf5"
    return "safetensors" if path.suffix == ".safetensors" else "torch"


def _read_file(path: Path) -> Any:
    form = format_of(path)
    if form == "index":
        raise CheckpointError(f"A shard cannot be an index itself (file: {path})")
    return _READERS[form](path)


def _check_whole(path: Path) -> None:
    """Refuses a single shard whose index is in the same folder, and parts without an index."""
    if _PART_OF_DEEPSPEED.fullmatch(path.name):
        raise CheckpointError(
            "This is one of several files across which DeepSpeed has split the weights or the "
            f"optimizer state. Pass their folder instead (file: {path})"
        )
    shard = _SHARD.fullmatch(path.name)
    index = path.with_name(f"{shard[1]}{shard[3]}.index.json") if shard else path
    if shard and int(shard[2]) > 1 and index.is_file():
        raise CheckpointError(
            f"This is one of {int(shard[2])} shards of the weights. Pass the index instead: "
            f"{index.name} (file: {path})"
        )
