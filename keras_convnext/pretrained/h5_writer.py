"""HDF5 files of weights as Keras saves them, written whole; `h5_file.py` tells their two forms."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from keras_convnext.pretrained.addresses import Addresses
from keras_convnext.pretrained.h5_file import BFLOAT16


class H5Entry(NamedTuple):
    """A variable to write.

    Args:
        module: str. Its layer, as `Addresses.of` takes it.
        kind: str. The class of the layer, as addresses have it.
        place: str. Its place in the layer.
        name: str. Its name, in the legacy form.
        array: np.ndarray.
    """

    module: str
    kind: str
    place: str
    name: str
    array: np.ndarray


def write_h5(path: str | Path, entries: Iterable[H5Entry]) -> None:
    """Writes weights for `load_weights`: in the legacy form, if it is no `.weights.h5`.

    The file appears under its name once it is whole.

    Args:
        path: str or path.
        entries: iterable of H5Entry, in the order of the network. Taken one at a time, so a
            generator saves memory.

    Raises:
        ValueError: If the legacy form does not hold the dtype.
        OSError: If the file cannot be written; nothing is left of it.
    """
    path = Path(path)
    write = _write if path.name.endswith(".weights.h5") else _write_legacy
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with h5py.File(partial, "w") as file:
            write(file, entries)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _write(file: h5py.File, entries: Iterable[H5Entry]) -> None:
    file.create_group("vars")
    addresses = Addresses()
    for entry in entries:
        group = file.require_group(f"{addresses.of(entry.module, entry.kind)}/vars")
        group.attrs["name"] = re.split("[/.]", entry.module)[-1]
        dataset = group.create_dataset(entry.place, data=entry.array)
        if entry.array.dtype == BFLOAT16:
            dataset.attrs["dtype"] = BFLOAT16.name


def _write_legacy(file: h5py.File, entries: Iterable[H5Entry]) -> None:
    weights: dict[str, list[str]] = {}
    for entry in entries:
        if entry.array.dtype == BFLOAT16:
            raise ValueError("Only a .weights.h5 holds bfloat16. Received: a legacy .h5 to write")
        layer, *parts = re.split("[/.]", entry.module)
        weight = "/".join((layer, *parts, entry.name))
        file.create_dataset(f"{layer}/{weight}", data=entry.array)
        weights.setdefault(layer, []).append(weight)
    for layer, names in weights.items():
        # Keras counts a layer's own variables before those of the layers in it.
        file[layer].attrs["weight_names"] = sorted(names, key=_depth)
    file.attrs["layer_names"] = list(weights)


def _depth(name: str) -> int:
    return name.count("/")
