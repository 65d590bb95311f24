"""Whatever holds weights, opened by what is in it rather than by what it is called."""

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
    """Reads the names and shapes of all that a file or folder holds; the numbers stay there.

    Args:
        path: str or path. A file in any format and under any name; the index of a sharded one; or a
            folder as of Hugging Face or DeepSpeed.

    Returns:
        Of HDF5 and `.keras` a dict of `H5Tensor`s; of safetensors a dict of `SafeTensor`s; of a
        PyTorch file what was saved, as `read_torch_file` has it; of shards all of their tensors.

    Raises:
        CheckpointError: If a file is damaged or unsafe or of another format, or if a folder holds
            no weights or several; the message names the file.
        FileNotFoundError: If there is no such file.
    """
    path = weight_file(path)
    form = format_of(path)
    if form == "index":
        return read_shards(path, _read_file)
    _check_whole(path)
    return _READERS[form](path)


def format_of(path: str | Path) -> Format:
    """Tells the format of a file, or of the file of weights in a folder, by how it starts.

    Raises:
        CheckpointError: If a folder holds no weights or several, or the file is of a kind that is
            not read here.
        FileNotFoundError: If there is no such file.
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
    # Damaged: its reader says so.
    if path.suffix in SUFFIXES:
        return "hdf5"
    return "safetensors" if path.suffix == ".safetensors" else "torch"


def _read_file(path: Path) -> Any:
    form = format_of(path)
    if form == "index":
        raise CheckpointError(f"An index names another one for its shard (file: {path})")
    return _READERS[form](path)


def _check_whole(path: Path) -> None:
    """Refuses one shard of several if the index stands beside it, and parts without an index."""
    if _PART_OF_DEEPSPEED.fullmatch(path.name):
        raise CheckpointError(
            "This is one of several files over which DeepSpeed has split the weights or the "
            f"optimizer. Give the folder that they are in (file: {path})"
        )
    shard = _SHARD.fullmatch(path.name)
    index = path.with_name(f"{shard[1]}{shard[3]}.index.json") if shard else path
    if shard and int(shard[2]) > 1 and index.is_file():
        raise CheckpointError(
            f"This is one of {int(shard[2])} files that hold the weights together. Give the index "
            f"instead: {index.name} (file: {path})"
        )
