"""A checkpoint as a dict from our variables to its tensors, whatever names it uses for them."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_convnext.pretrained.addresses import named
from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.h5_file import SUFFIXES, H5Tensor, read_h5
from keras_convnext.pretrained.keras_file import SUFFIX as KERAS_SUFFIX
from keras_convnext.pretrained.keras_file import read_keras
from keras_convnext.pretrained.layouts import KINDS, LAYOUTS, Place, Row
from keras_convnext.pretrained.memory import Unshared
from keras_convnext.pretrained.names import Form, is_skipped, place_of
from keras_convnext.pretrained.safetensors_file import SafeTensor, read_safetensors
from keras_convnext.pretrained.stored_tensor import StoredTensor
from keras_convnext.pretrained.torch_file import read_torch_file
from keras_convnext.variants import Variant

MATRIX_AXES = KINDS["linear"]["kernel"][1]

Tensor = StoredTensor | SafeTensor | H5Tensor

# Where dicts of tensors stand in a file, the first that is there being taken.
ENTRY_NAMES = ("model", "state_dict", "model_ema")

MAX_KEY = 200  # wrappers are taken off one by one, of which a hostile name has a million


class Source(NamedTuple):
    """A tensor of a checkpoint, whose numbers are still in the file.

    Args:
        key: str. Its name in the file.
        tensor: StoredTensor, SafeTensor or H5Tensor.
        axes: tuple of int. The axes of the tensor in the order of ours.
    """

    key: str
    tensor: Tensor
    axes: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape in our order of axes."""
        return tuple(self.tensor.shape[axis] for axis in self.axes)

    def read(self) -> np.ndarray:
        """Reads the numbers, in our order of axes, without checking them again."""
        shape = self.tensor.shape[: len(self.axes)]
        if self.axes == tuple(range(len(self.axes))):
            return self.tensor.read(verify=False).reshape(shape)
        if self.axes != MATRIX_AXES:
            array = self.tensor.read(verify=False).reshape(shape)
            return np.ascontiguousarray(array.transpose(self.axes))
        # A matrix is transposed strip by strip while it is read: each stays in the cache, and
        # there is no second copy of the whole.
        array = Unshared.empty(shape[::-1], self.tensor.dtype)
        rows, columns = 16, shape[1]
        for index, piece in enumerate(self.tensor.pieces(rows * columns, verify=False)):
            strip = piece.reshape(-1, columns).T
            array[:, rows * index : rows * index + strip.shape[1]] = strip
        return array

    def check(self, dtype: str) -> None:
        """Reads the numbers and looks at them.

        Args:
            dtype: str. What they will be rounded to.

        Raises:
            CheckpointError: If they are damaged, or one is not finite or would not be in `dtype`.
        """
        for piece in self.tensor.pieces(1 << 18):
            with np.errstate(over="ignore"):
                finite = np.isfinite(piece.astype(dtype, copy=False)).all()
            if not finite:
                raise CheckpointError(f"{self.key} holds NaN or infinite numbers, in {dtype}")


def open_checkpoint(
    path: str | Path, entry: str | None = None, expected: Variant | None = None
) -> dict[Place, Source]:
    """Reads the names and shapes in a checkpoint; the numbers stay in the file until asked for.

    Args:
        path: str or path. A `.pth`, `.safetensors` or HDF5 file in any of the layouts.
        entry: str or None. Which dict of tensors of a `.pth` to take. Defaults to `model`, else
            `state_dict`, else `model_ema`, else the file is the dict.
        expected: Variant or None. What to take the network for where a `.weights.h5` leaves it
            open. Defaults to None.

    Raises:
        CheckpointError: If the file is damaged or is no ConvNeXt; the message names the file.
        FileNotFoundError: If there is no such file.
    """
    suffix = Path(path).suffix
    readers = {".safetensors": read_safetensors, KERAS_SUFFIX: read_keras}
    readers |= dict.fromkeys(SUFFIXES, read_h5)
    saved = readers.get(suffix, read_torch_file)(path)
    try:
        if suffix in (*SUFFIXES, KERAS_SUFFIX):
            saved = named(saved, expected)
        elif suffix not in readers:
            saved = _state_dict(saved, entry)
        return _sources(saved)
    except CheckpointError as error:
        raise CheckpointError(f"{error} (file: {path})") from error


def check_numbers(path: str | Path) -> None:
    """Reads a checkpoint through.

    Raises:
        CheckpointError: If a checksum in it is wrong, or a number not finite; the message names the
            file.
    """
    sources = open_checkpoint(path)
    try:
        for source in sources.values():
            source.check("float32")
    except CheckpointError as error:
        raise CheckpointError(f"{error} (file: {path})") from error


def _state_dict(saved: object, entry: str | None) -> dict[str, StoredTensor]:
    """The dict of tensors in what a file holds."""
    if not isinstance(saved, dict):
        raise CheckpointError(f"The file holds no dict but a {type(saved).__name__}")
    if entry is None:
        entry = next((name for name in ENTRY_NAMES if name in saved), None)
    elif entry not in saved:
        raise CheckpointError(f"The file has no entry {entry!r}, but {listed(saved)}")
    state = saved if entry is None else saved[entry]
    if not isinstance(state, dict) or not state:
        raise CheckpointError(f"The entry {entry!r} holds no tensors")
    others = [
        key
        for key, value in state.items()
        if not isinstance(key, str) or not isinstance(value, StoredTensor)
    ]
    if others:
        raise CheckpointError(f"There are no tensors but something else at {listed(others)}")
    return state


def _sources(state: Mapping[str, Tensor]) -> dict[Place, Source]:
    """The tensors under our names, by the layout that knows most of them."""
    state = {key: tensor for key, tensor in state.items() if not is_skipped(key)}

    def known(layout: tuple[Row, ...]) -> list[tuple[Place, Form] | None]:
        return [place_of(key, layout) if len(key) <= MAX_KEY else None for key in state]

    found = max(map(known, LAYOUTS.values()), key=lambda places: len(places) - places.count(None))
    unknown = [key for key, place in zip(state, found) if place is None]
    if len(unknown) > len(state) / 2:
        raise CheckpointError(
            f"Not a ConvNeXt in any layout known here: it has no place for {listed(unknown)}"
        )
    if unknown:
        raise CheckpointError(f"ConvNeXt has no place for the tensors {listed(unknown)}")
    sources: dict[Place, Source] = {}
    for tensor, (place, form) in zip(state.values(), filter(None, found)):
        behind = tensor.shape[len(form.axes) :]
        if len(tensor.shape) < len(form.axes) or any(side != 1 for side in behind):
            raise CheckpointError(
                f"{form.key} has {len(form.axes)} axes in ConvNeXt. "
                f"Received: a shape of {tensor.shape}"
            )
        if place in sources:
            raise CheckpointError(f"{sources[place].key} and {form.key} are the same tensor")
        sources[place] = Source(form.key, tensor, _axes(form, tensor.shape))
    return sources


def _axes(form: Form, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes of theirs in the order of ours, for either kernel of a depthwise convolution."""
    if form.kind == "conv2d grouped" and len(shape) == 4 and shape[2] > 1:
        return KINDS["block conv"]["kernel"][1]
    return form.axes


def listed(names: Iterable[object]) -> str:
    """The first names of many, for a message."""
    shown = [str(name)[:100].encode("unicode_escape").decode() for name in names]
    more = f" and {len(shown) - 5} more" if len(shown) > 5 else ""
    return ", ".join(shown[:5]) + more if shown else "nothing"
