"""Writes HDF5 weight files in Keras' format; `h5_file.py` describes its two versions."""

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from keras_convnext.pretrained.addresses import Addresses
from keras_convnext.pretrained.h5_file import BFLOAT16
from keras_convnext.printable import printable


class H5Entry(NamedTuple):
    """A variable to write.

    Args:
        module: str. The layer, as passed to `Addresses.of`.
        kind: str. Class of the layer, as in addresses.
        place: str. Index of the variable in the layer.
        name: str. Name of the variable in the legacy format.
        array: np.ndarray. Its value.
    """

    module: str
    kind: str
    place: str
    name: str
    array: np.ndarray


def write_h5(path: str | Path, entries: Iterable[H5Entry]) -> None:
    """Writes a file for `load_weights`, in the legacy format unless it ends in `.weights.h5`.

    The file is written under a temporary name and renamed when it is complete.

    Args:
        path: str or path. The file to write.
        entries: iterable of H5Entry, in the order of the network. Consumed one at a time, so a
            generator saves memory.

    Raises:
        ValueError: If the legacy format does not support the dtype.
        OSError: If the file cannot be written; no partial file remains.
    """
    path = Path(path)
    write = _write if path.name.endswith(".weights.h5") else _write_legacy
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with h5py.File(partial, "w") as file:
            write(file, entries)
        os.replace(partial, path)
    except RuntimeError as error:  # of h5py, if closing the file fails because the disk is full
        raise OSError(f"{printable(path)} could not be written: {error}") from error
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
            raise ValueError(
                "A legacy .h5 file cannot store bfloat16: use a .weights.h5 file. "
                f"Received: {printable(file.filename)}"
            )
        layer, *parts = re.split("[/.]", entry.module)
        weight = "/".join((layer, *parts, entry.name))
        file.create_dataset(f"{layer}/{weight}", data=entry.array)
        weights.setdefault(layer, []).append(weight)
    for layer, names in weights.items():
        # Keras lists a layer's own variables before those of its sublayers.
        file[layer].attrs["weight_names"] = sorted(names, key=_depth)
    file.attrs["layer_names"] = list(weights)


def _depth(name: str) -> int:
    return name.count("/")
