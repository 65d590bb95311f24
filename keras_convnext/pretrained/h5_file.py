"""Reads HDF5 weight files saved by Keras, one tensor at a time.

Keras 3 (`.weights.h5`) addresses a layer by its class and its index in that class, and a variable
by its index in the layer: `layers/dense_2/vars/0`. These addresses are returned unchanged. The
legacy format (`.h5`) uses names for both: `head/head/kernel` is returned as `head.0`, and
`blocks_1/blocks_1/dwconv/kernel`, a layer in a block, as `blocks_1.dwconv.0`.
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
from keras_convnext.pretrained.limits import MAX_EXPANSION, MAX_TENSORS
from keras_convnext.pretrained.memory import Unshared

SUFFIXES = (".h5", ".hdf5")

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

_PLAIN = "Rewrite it with `h5repack -f NONE -l CONTI in.h5 out.h5`"
_MAX_ADDRESS = 1000  # characters
_NO_WEIGHTS = {"optimizer", "optimizer_weights"}
_NO_WEIGHT = "seed_generator"  # a state, which Keras reads with the model
_FETCH = "Download the file again from its publisher"
_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}

# The index of a variable in its layer, by its name in the legacy format; layer scale's variable is
# called `Variable:0` or `variable_7` there.
_PLACES = {"kernel": "0", "bias": "1", "gamma": "0", "beta": "1", "kernel_2": "2", "bias_2": "3"}

# Blocks contain layers with the same names in each; layers in a Sequential have unique names.
_BLOCK = re.compile(r"(.+_)?blocks_\d+")


@dataclass(frozen=True)
class H5Tensor:
    """A tensor in an HDF5 file, read on demand.

    Args:
        path: Path. The file.
        address: str. The dataset in the file.
        shape: tuple of int.
        dtype: np.dtype.
        start: int or None. Offset of its data in the file in bytes; None if it is chunked.
    """

    path: Path
    address: str
    shape: tuple[int, ...]
    dtype: np.dtype
    start: int | None

    def read(self, verify: bool = True) -> np.ndarray:
        """Reads the tensor. Files written by Keras have no checksum to verify."""
        if self.start is None:
            return self._read_chunks()
        array = Unshared.empty(self.shape, self.dtype)
        with open(self.path, "rb") as file:
            file.seek(self.start)
            self._fill(array.reshape(-1), file)
        return array

    def pieces(self, elements: int, verify: bool = True) -> Iterator[np.ndarray]:
        """Yields the tensor in C order, `elements` at a time, reusing one buffer."""
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
            raise CheckpointError(f"{self.path} was truncated while it was being read. {_FETCH}")

    def _read_chunks(self) -> np.ndarray:
        """Reads and unpacks the stored chunks; HDF5 itself would inflate one to any size."""
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
                f"{self.path} is damaged at {self.address}: {error}. {_FETCH}"
            ) from error
        return array


def _filters(dataset: h5py.Dataset) -> list[int]:
    """The filters that were applied to the chunks when they were written, in that order."""
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
        else:  # shuffle: the first bytes of all elements, then the second bytes
            data = np.frombuffer(data, np.uint8).reshape(dtype.itemsize, -1).T.tobytes()
    return np.frombuffer(data, np.uint8, size).view(dtype).reshape(shape)


def read_h5(path: str | Path) -> dict[str, H5Tensor]:
    """Reads the names and shapes in an HDF5 file saved by Keras, without reading the tensors.

    No link is followed, no object is created and no filter is run, and the memory that the tensors
    may need is bounded by the size of the file. The states of the optimizer and of seed generators
    are skipped.

    Raises:
        CheckpointError: If the file is damaged or was not saved by Keras.
        FileNotFoundError: If the file does not exist.
    """
    path = Path(path)
    return read_h5_within(path, path, 0, None)


def read_h5_within(
    path: str | Path, opened: Any, offset: int, size: int | None
) -> dict[str, H5Tensor]:
    """Does the same as `read_h5` for an HDF5 file that may be embedded in another file.

    Args:
        path: str or path. The HDF5 file, or the file that contains it.
        opened: path or open binary file. The HDF5 file as passed to h5py.
        offset: int. Offset of the HDF5 file in `path`, in bytes.
        size: int or None. Size of the HDF5 file in bytes. None if it is all of `path`.
    """
    path = Path(path)
    tensors: dict[str, H5Tensor] = {}
    try:
        with h5py.File(opened, "r") as file:
            size = path.stat().st_size if size is None else size
            room = MAX_EXPANSION * size
            for address, dataset in _datasets(file.id):
                tensor = _tensor(path, address, dataset, offset, size)
                room -= _claimed(dataset)
                if room < 0:
                    raise CheckpointError(
                        f"The tensors claim far more bytes than the file contains. {_FETCH}"
                    )
                if _NO_WEIGHT in address.split("/"):
                    continue
                key = _key(address)
                if key in tensors:
                    raise CheckpointError(
                        f"{tensors[key].address!r:.200} and {address!r:.200} belong to layers with "
                        "the same name. Use a file with a single network"
                    )
                tensors[key] = tensor
    except (FileNotFoundError, PermissionError, IsADirectoryError):
        raise
    except CheckpointError as error:
        raise CheckpointError(f"{error} (file: {path})") from error
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"Not a valid HDF5 file: {error}. {_FETCH} (file: {path})") from error
    return tensors


def _datasets(root: h5py.h5g.GroupID) -> Iterator[tuple[str, h5py.Dataset]]:
    """Yields the address and dataset of each weight and each state of a seed generator."""
    groups, seen, count = [("", root)], {root}, 0
    while groups:
        place, group = groups.pop()
        for name in group:
            address = place + name.decode("utf-8", "surrogateescape")
            if group.links.get_info(name).type != h5py.h5l.TYPE_HARD:
                raise CheckpointError(
                    f"{address!r:.200} is a link, which Keras never saves. {_FETCH}"
                )
            count += 1
            if count > MAX_TENSORS or len(address) > _MAX_ADDRESS:
                raise CheckpointError(
                    f"The file has more than the limit of {MAX_TENSORS:,} groups and datasets, or "
                    f"of {_MAX_ADDRESS:,} characters in an address. Use a file that contains only "
                    "the weights"
                )
            if address in _NO_WEIGHTS:
                continue
            member = h5py.h5o.open(group, name)
            if isinstance(member, h5py.h5d.DatasetID):
                yield address, h5py.Dataset(member)
            elif not isinstance(member, h5py.h5g.GroupID) or member in seen:
                raise CheckpointError(
                    f"{address!r:.200} is neither a group nor a dataset as Keras saves them. "
                    f"{_FETCH}"
                )
            else:
                seen.add(member)
                groups.append((f"{address}/", member))


def _key(address: str) -> str:
    """The address itself; in the legacy format, the layer's name and the variable's index."""
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
        raise CheckpointError(f"{address!r:.200} stores its data in another file. {_FETCH}")
    is_within = offset > 0  # h5py cannot reopen an embedded file to read chunks later
    if (
        layout == h5py.h5d.COMPACT
        or (is_within and layout == h5py.h5d.CHUNKED)
        or not _FILTERS.issuperset(_filters(dataset))
    ):
        raise CheckpointError(
            f"{address!r:.200} uses an HDF5 layout or filter that Keras does not. {_PLAIN}"
        )
    shape, dtype = dataset.shape, _dtype(dataset)
    if shape is None or dtype is None:
        raise CheckpointError(
            f"{address!r:.200} is not numeric. Use a file of weights. "
            f"Received: dtype {dataset.dtype!s:.200}"
        )
    if layout == h5py.h5d.CHUNKED:
        chunks = math.prod(-(-side // step) for side, step in zip(shape, dataset.chunks))
        whole, start = dataset.id.get_num_chunks() == chunks, None
    else:
        start = dataset.id.get_offset() or 0  # 0 is the file's own header
        whole = 0 < start <= size - _claimed(dataset) or 0 in shape
        start += offset
    if not whole:
        raise CheckpointError(
            f"{address!r:.200} claims more bytes than the file contains. {_FETCH}"
        )
    return H5Tensor(path, address, shape, dtype, start)


def _claimed(dataset: h5py.Dataset) -> int:
    """Bytes of memory needed to read a dataset: all of it, plus one chunk."""
    elements = math.prod(dataset.shape) + math.prod(dataset.chunks or (0,))
    return elements * dataset.dtype.itemsize


def _dtype(dataset: h5py.Dataset) -> np.dtype | None:
    """The NumPy dtype with the stored byte layout, if any; bfloat16 is stored as opaque bytes."""
    dtype = dataset.dtype
    if dtype in (BFLOAT16, np.dtype("V2")):
        return BFLOAT16
    plain = dtype.kind in "fiu" and dtype.byteorder in "<=|"
    return dtype if plain and dataset.id.get_type().equal(h5py.h5t.py_create(dtype)) else None
