"""HDF5 files of weights that Keras saved, read a tensor at a time.

Keras 3 (`.weights.h5`) has a layer by its class and its number in that class, a variable by its
place in the layer: `layers/dense_2/vars/0`. This comes from here as it is. The legacy form (`.h5`)
has both by name: `head/head/kernel`, which comes from here as `head.0`, and, of a layer within a
block, `blocks_1/blocks_1/dwconv/kernel`, as `blocks_1.dwconv.0`.
"""

import io
import math
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np

from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.memory import Unshared

SUFFIXES = (".h5", ".hdf5")

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

# What the tensors of a file may claim, in files: weights compress to half of their size at best.
_MAX_EXPANSION = 16
_PLAIN = "Write it anew with `h5repack -f NONE -l CONTI in.h5 out.h5`"
_NO_WEIGHTS = {"optimizer", "optimizer_weights"}
_FETCH = "Fetch the file again, from its publisher"
_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}

# The place of a variable in its layer, by the name that it has in the legacy form; a layer scale's
# is a nameless `Variable:0`, or `variable_7`.
_PLACES = {"kernel": "0", "bias": "1", "gamma": "0", "beta": "1"}

# The layers with layers of the same name in each; those in a Sequential have names of their own.
_BLOCK = re.compile(r"(.+_)?blocks_\d+")


@dataclass(frozen=True)
class H5Tensor:
    """A tensor whose numbers are still in the file.

    Args:
        path: Path. The file.
        address: str. The dataset in the file.
        shape: tuple of int.
        dtype: np.dtype.
        start: int or None. Where its numbers begin in the file; None if they are in chunks.
    """

    path: Path
    address: str
    shape: tuple[int, ...]
    dtype: np.dtype
    start: int | None

    def read(self, verify: bool = True) -> np.ndarray:
        """Reads the numbers. What Keras writes has no checksum to verify."""
        if self.start is None:
            return self._read_chunks()
        array = Unshared.empty(self.shape, self.dtype)
        with open(self.path, "rb") as file:
            file.seek(self.start)
            self._fill(array.reshape(-1), file)
        return array

    def pieces(self, elements: int, verify: bool = True) -> Iterator[np.ndarray]:
        """Reads the numbers in C order, so many at a time, each piece over the last."""
        count = math.prod(self.shape)
        if self.start is None:
            flat = self._read_chunks().reshape(-1)
            yield from (flat[start : start + elements] for start in range(0, count, elements))
            return
        piece = np.empty(min(elements, count), self.dtype)
        with open(self.path, "rb", buffering=0) as file:
            file.seek(self.start)
            for start in range(0, count, elements):
                piece = piece[: count - start]
                self._fill(piece, file)
                yield piece

    def _fill(self, flat: np.ndarray, file: io.FileIO | io.BufferedReader) -> None:
        if file.readinto(flat.view(np.uint8).data) != flat.nbytes:
            raise CheckpointError(f"{self.path} was cut while it was read. {_FETCH}")

    def _read_chunks(self) -> np.ndarray:
        """Reads the chunks as they are stored, since HDF5 would inflate one to any size."""
        array = np.empty(self.shape, self.dtype)
        try:
            with h5py.File(self.path, "r") as file:
                dataset = file[self.address]
                filters = _filters(dataset)
                for place in dataset.iter_chunks():
                    mask, data = dataset.id.read_direct_chunk(tuple(side.start for side in place))
                    used = [name for bit, name in enumerate(filters) if not mask >> bit & 1]
                    whole = _unpacked(data, used, dataset.chunks, self.dtype)
                    array[place] = whole[tuple(slice(s.stop - s.start) for s in place)]
        except (OSError, RuntimeError, ValueError, zlib.error) as error:
            raise CheckpointError(
                f"The numbers in {self.path} are damaged at {self.address}: {error}. {_FETCH}"
            ) from error
        return array


def _filters(dataset: h5py.Dataset) -> list[int]:
    """What the chunks went through when they were written, in that order."""
    settings = dataset.id.get_create_plist()
    return [settings.get_filter(index)[0] for index in range(settings.get_nfilters())]


def _unpacked(
    data: bytes, filters: list[int], shape: tuple[int, ...], dtype: np.dtype
) -> np.ndarray:
    size = math.prod(shape) * dtype.itemsize
    checksum = 4
    for name in reversed(filters):
        if name == h5py.h5z.FILTER_FLETCHER32:
            data = data[:-checksum]
        elif name == h5py.h5z.FILTER_DEFLATE:
            data = zlib.decompressobj().decompress(data, size + checksum)
        else:  # the first bytes of all numbers, then the second ones
            data = np.frombuffer(data, np.uint8).reshape(dtype.itemsize, -1).T.tobytes()
    return np.frombuffer(data, np.uint8, size).view(dtype).reshape(shape)


def read_h5(path: str | Path) -> dict[str, H5Tensor]:
    """Reads the names and shapes in an HDF5 file that Keras saved, leaving the numbers there.

    No link is followed, no object made and no filter run, and what the tensors may take in memory
    is bounded by the size of the file. The states of an optimizer and of random generators are left
    out.

    Raises:
        CheckpointError: If the file is damaged, or is none that Keras saved.
        FileNotFoundError: If there is no such file.
    """
    path = Path(path)
    return read_h5_within(path, path, 0, None)


def read_h5_within(
    path: str | Path, opened: Any, offset: int, size: int | None
) -> dict[str, H5Tensor]:
    """Reads an HDF5 file that may be part of another file, as `read_h5` does.

    Args:
        path: str or path. The file that it is, or is in.
        opened: path, or a binary file that is open. What h5py reads.
        offset: int. Where it begins in `path`, in bytes.
        size: int or None. Its size in bytes. None if it is all of `path`.
    """
    path = Path(path)
    tensors: dict[str, H5Tensor] = {}
    try:
        with h5py.File(opened, "r") as file:
            size = path.stat().st_size if size is None else size
            room = _MAX_EXPANSION * size
            for address, dataset in _datasets(file.id):
                key = _key(address)
                if key in tensors:
                    raise CheckpointError(
                        f"{tensors[key].address!r:.200} and {address!r:.200} are of layers with "
                        "the same name. Take a file of one network"
                    )
                tensors[key] = _tensor(path, address, dataset, offset, size)
                room -= _claimed(dataset)
                if room < 0:
                    raise CheckpointError(
                        f"The tensors claim far more bytes than the file has. {_FETCH}"
                    )
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except CheckpointError as error:
        raise CheckpointError(f"{error} (file: {path})") from error
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"Not an HDF5 file, or a damaged one: {error}. {_FETCH} (file: {path})"
        ) from error
    return tensors


def _datasets(root: h5py.h5g.GroupID) -> Iterator[tuple[str, h5py.Dataset]]:
    """The datasets with weights, each after its address."""
    groups, seen = [("", root)], {root}
    while groups:
        place, group = groups.pop()
        for name in group:
            address = place + name.decode("utf-8", "surrogateescape")
            if group.links.get_info(name).type != h5py.h5l.TYPE_HARD:
                raise CheckpointError(
                    f"{address!r:.200} is a link, which Keras does not save. {_FETCH}"
                )
            if address in _NO_WEIGHTS or name == b"seed_generator":
                continue
            member = h5py.h5o.open(group, name)
            if isinstance(member, h5py.h5d.DatasetID):
                yield address, h5py.Dataset(member)
            elif not isinstance(member, h5py.h5g.GroupID) or member in seen:
                raise CheckpointError(f"{address!r:.200} is not what Keras saves. {_FETCH}")
            else:
                seen.add(member)
                groups.append((f"{address}/", member))


def _key(address: str) -> str:
    """The address, or in the legacy form the layer's name and the variable's place in it."""
    *_, around, layer, variable = ["", "", *address.split("/")]
    if layer == "vars":
        return address
    if _BLOCK.fullmatch(around) and layer != around:
        layer = f"{around}.{layer}"
    variable = variable.removesuffix(":0")
    nameless = re.fullmatch(r"[Vv]ariable(_\d+)?", variable)
    return f"{layer}.{'0' if nameless else _PLACES.get(variable, variable)}"


def _tensor(path: Path, address: str, dataset: h5py.Dataset, offset: int, size: int) -> H5Tensor:
    settings = dataset.id.get_create_plist()
    layout = settings.get_layout()
    if layout == h5py.h5d.VIRTUAL or settings.get_external_count():
        raise CheckpointError(f"{address!r:.200} has its numbers in another file. {_FETCH}")
    is_within = offset > 0  # then h5py cannot be asked for the chunks later
    if (
        layout == h5py.h5d.COMPACT
        or (is_within and layout == h5py.h5d.CHUNKED)
        or not _FILTERS.issuperset(_filters(dataset))
    ):
        raise CheckpointError(f"{address!r:.200} is packed as Keras packs nothing. {_PLAIN}")
    shape, dtype = dataset.shape, _dtype(dataset)
    if shape is None or dtype is None:
        raise CheckpointError(
            f"{address!r:.200} holds no numbers but {dataset.dtype!s:.200}. Take a file of weights"
        )
    if layout == h5py.h5d.CHUNKED:
        chunks = math.prod(-(-side // step) for side, step in zip(shape, dataset.chunks))
        whole, start = dataset.id.get_num_chunks() == chunks, None
    else:
        start = dataset.id.get_offset() or 0  # 0 is the file's own header
        whole = 0 < start <= size - _claimed(dataset) or 0 in shape
        start += offset
    if not whole:
        raise CheckpointError(f"{address!r:.200} claims more bytes than the file has. {_FETCH}")
    return H5Tensor(path, address, shape, dtype, start)


def _claimed(dataset: h5py.Dataset) -> int:
    """The bytes that it takes to read a dataset, and one chunk of it."""
    elements = math.prod(dataset.shape) + math.prod(dataset.chunks or (0,))
    return elements * dataset.dtype.itemsize


def _dtype(dataset: h5py.Dataset) -> np.dtype | None:
    """The dtype of numbers that numpy has as they are stored; bfloat16 are two bytes of nothing."""
    dtype = dataset.dtype
    if dtype in (BFLOAT16, np.dtype("V2")):
        return BFLOAT16
    plain = dtype.kind in "fiu" and dtype.byteorder in "<=|"
    return dtype if plain and dataset.id.get_type().equal(h5py.h5t.py_create(dtype)) else None
