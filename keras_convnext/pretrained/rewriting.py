"""Converts checkpoints to other layouts and formats, without Keras."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from keras_convnext.pretrained.addresses import layers_of
from keras_convnext.pretrained.checkpoint import open_checkpoint
from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.h5_file import SUFFIXES
from keras_convnext.pretrained.h5_writer import H5Entry, write_h5
from keras_convnext.pretrained.keras_file import SUFFIX as KERAS_SUFFIX
from keras_convnext.pretrained.layouts import (
    ENTRIES,
    HDF5_LAYOUTS,
    HEAD_KERNEL,
    LAYOUTS,
    SECOND_KERNEL,
    Place,
)
from keras_convnext.pretrained.names import Form, form_of
from keras_convnext.pretrained.notices import warn_user
from keras_convnext.pretrained.safetensors_file import write_safetensors
from keras_convnext.pretrained.torch_writer import write_torch_file
from keras_convnext.pretrained.trunks import listed
from keras_convnext.printable import printable

if TYPE_CHECKING:
    from keras_convnext.pretrained.model_weights import Progress


# The dtypes that weights can be cast to.
DTYPES = ("float16", "bfloat16", "float32", "float64")


def rewrite_checkpoint(
    source: str | Path,
    target: str | Path,
    layout: str | None = None,
    dtype: str | None = None,
    entry: str | None = None,
    *,
    prefix: str | None = None,
    ignore: str | Iterable[str] = (),
) -> None:
    """Converts a checkpoint to another layout or format, one tensor at a time, without a model.

    Args:
        source: str or path. As `path` in `load_checkpoint`.
        target: str or path. As `path` in `save_checkpoint`.
        layout: as in `save_checkpoint`.
        dtype: as in `save_checkpoint`.
        entry: as in `load_checkpoint`.
        prefix: as in `load_checkpoint`.
        ignore: as in `load_checkpoint`.

    Raises:
        CheckpointError: If the source is damaged or contains no ConvNeXt or several, or if the
            layout has no names for some of its tensors.
        ValueError: As in `save_checkpoint`.
        OSError: If the target cannot be written; no partial file remains.
    """
    checkpoint = open_checkpoint(source, entry, prefix, ignore)
    order = {layer: index for index, layer in enumerate(layers_of(checkpoint.network))}
    places = sorted(checkpoint.sources, key=lambda place: order[place.layer])
    arrays = {place: checkpoint.sources[place].read for place in places}
    write_arrays(target, arrays, layout, dtype, checkpoint.network.name)
    warn_user([checkpoint.notice], source)


def write_arrays(
    path: str | Path,
    arrays: Mapping[Place, Callable[[], np.ndarray]],
    layout: str | None,
    dtype: str | None,
    model_name: str,
    progress: "Progress" = iter,
) -> None:
    """Writes arrays in the order of the network, each created just before it is written."""
    check_dtype(dtype)
    if Path(path).suffix == KERAS_SUFFIX:
        raise ValueError(f"Use model.save to write a .keras file. Received: path={printable(path)}")
    layout = layout or default_layout(path)
    hdf5 = Path(path).suffix in SUFFIXES
    if layout in LAYOUTS and hdf5 != (layout in HDF5_LAYOUTS):
        raise ValueError(
            f"The layouts {', '.join(HDF5_LAYOUTS)} are for HDF5 files, and all others for other "
            f"files. Received: layout={printable(layout)}, path={printable(path)}"
        )
    forms = forms_of(arrays, layout, model_name)
    theirs = tensors_of(arrays, forms, dtype, progress)
    if hdf5:
        write_h5(path, map(_h5_entry, forms, forms.values(), (array for _, array in theirs)))
    else:
        write_tensors(path, theirs, ENTRIES.get(layout))


def tensors_of(
    arrays: Mapping[Place, Callable[[], np.ndarray]],
    forms: Mapping[Place, Form],
    dtype: str | None,
    progress: "Progress" = iter,
) -> Iterator[tuple[str, np.ndarray]]:
    """Yields the names and tensors of a layout, each created just before it is needed."""
    for place, form in progress(list(forms.items())):
        yield form.key, _theirs(arrays[place](), form, dtype)


def write_tensors(
    path: str | Path, tensors: Iterable[tuple[str, np.ndarray]], entry: str | None
) -> None:
    """Writes named tensors to a safetensors file, or to `entry` of a PyTorch file."""
    if Path(path).suffix == ".safetensors":
        write_safetensors(path, tensors)
    else:
        write_torch_file(path, tensors, entry)


def check_dtype(dtype: str | None) -> None:
    """Checks that weights can be cast to a dtype.

    Raises:
        ValueError: If the dtype is neither one of `DTYPES` nor None.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype must be {', '.join(DTYPES)} or None. Received: dtype={dtype}")


def default_layout(path: str | Path) -> str:
    """Returns the default layout of a file, which depends on its suffix."""
    return "keras" if Path(path).suffix in (*SUFFIXES, ".keras") else "official"


def forms_of(places: Collection[Place], layout: str, model_name: str) -> dict[Place, Form]:
    """Returns how a layout stores each of the weights.

    Raises:
        CheckpointError: If the layout has no name for one of them.
        ValueError: If the layout is unknown.
    """
    if layout not in LAYOUTS:
        raise ValueError(
            f"layout must be one of {', '.join(LAYOUTS)}. Received: layout={printable(layout)}"
        )
    if layout == "official" and any(place.layer.startswith("blocks_") for place in places):
        layout = "official_isotropic"
    if layout == "transformers" and any(place.layer.endswith("/grn") for place in places):
        layout = "transformers_v2"
    if layout.startswith("timm") and SECOND_KERNEL in places:
        layout = "timm_overlap"
    if layout == "keras_applications" and HEAD_KERNEL not in places:
        layout = "keras_applications_notop"
    found = {place: form_of(place, LAYOUTS[layout], model_name) for place in places}
    forms = {place: form for place, form in found.items() if form is not None}
    if unnamed := ["/".join(place) for place in places if place not in forms]:
        raise CheckpointError(f"The layout {layout} has no names for {listed(unnamed)}")
    if layout == "keras_applications_notop" and Place("norm", "gamma") not in places:
        raise CheckpointError(
            "Every network in keras.applications ends in a norm, but this model ends in a feature "
            "map. Build it with pooling='avg'"
        )
    return forms


def _h5_entry(place: Place, form: Form, array: np.ndarray) -> H5Entry:
    module, _, index = form.key.rpartition(".")
    return H5Entry(module, form.kind.split()[0], index, place.variable, array)


def _theirs(array: np.ndarray, form: Form, dtype: str | None) -> np.ndarray:
    if dtype is not None:
        with np.errstate(over="ignore"):
            array = array.astype(dtype, copy=False)
        if not np.isfinite(array).all():
            raise CheckpointError(
                f"{form.key} has values that are too large for {dtype}. Use bfloat16 instead"
            )
    array = array.transpose(np.argsort(form.axes))
    if form.kind.startswith("sparse") and array.ndim == 4:
        channels = array.shape[2:3] if form.kind == "sparse dwconv" else array.shape[2:]
        return array.reshape(-1, *channels)
    return array.reshape((1,) * -form.ones + array.shape + (1,) * form.ones)
