"""A checkpoint as a dict from our variables to its tensors, whatever names it uses for them."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.layouts import LAYOUTS, Place, Row, place_of
from keras_convnext.pretrained.torch_file import StoredTensor, read_torch_file


class Source(NamedTuple):
    """A tensor of a checkpoint, whose numbers are still in the file.

    Args:
        key: str. Its name in the file.
        tensor: StoredTensor.
        axes: tuple of int. The axes of the tensor in the order of ours.
    """

    key: str
    tensor: StoredTensor
    axes: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape in our order of axes."""
        return tuple(self.tensor.shape[axis] for axis in self.axes)

    def read(self) -> np.ndarray:
        """Reads the numbers, in our order of axes, without checking them again."""
        return self.tensor.read(verify=False).transpose(self.axes)

    def check(self) -> None:
        """Reads the numbers and looks at them.

        Raises:
            CheckpointError: If they are damaged, or one is not finite.
        """
        if not np.isfinite(self.tensor.read()).all():
            raise CheckpointError(f"{self.key} holds NaN or infinite numbers")


def open_checkpoint(path: str | Path, entry: str | None = None) -> dict[Place, Source]:
    """Reads the names and shapes in a checkpoint; the numbers stay in the file until asked for.

    Args:
        path: str or path. A `.pth` file with the official names.
        entry: str or None. Which dict of tensors to take. Defaults to `model`, else `model_ema`,
            else the file is the dict.

    Raises:
        CheckpointError: If the file is damaged or is no ConvNeXt; the message names the file.
        FileNotFoundError: If there is no such file.
    """
    saved = read_torch_file(path)
    try:
        return _sources(_state_dict(saved, entry))
    except CheckpointError as error:
        raise CheckpointError(f"{error} (file: {path})") from error


def _state_dict(saved: Any, entry: str | None) -> dict[str, StoredTensor]:
    """The dict of tensors in what a file holds."""
    if not isinstance(saved, dict):
        raise CheckpointError(f"The file holds no dict but a {type(saved).__name__}")
    if entry is None:
        entry = next((name for name in ("model", "model_ema") if name in saved), None)
    elif entry not in saved:
        raise CheckpointError(f"The file has no entry {entry!r}, but {listed(saved)}")
    state = saved if entry is None else saved[entry]
    if not isinstance(state, dict) or not state:
        raise CheckpointError(f"The entry {entry!r} holds no tensors")
    others = [key for key, value in state.items() if not isinstance(value, StoredTensor)]
    if others:
        raise CheckpointError(f"There are no tensors but something else at {listed(others)}")
    return state


def _sources(state: Mapping[str, StoredTensor]) -> dict[Place, Source]:
    """The tensors under our names, by the layout that knows most of them."""

    def known(layout: tuple[Row, ...]) -> list:
        return [place_of(key, layout) for key in state]

    found = max(map(known, LAYOUTS.values()), key=lambda places: len(places) - places.count(None))
    unknown = [key for key, place in zip(state, found) if place is None]
    if len(unknown) > len(state) / 2:
        raise CheckpointError(
            f"Not an official ConvNeXt checkpoint: it has no place for {listed(unknown)}"
        )
    if unknown:
        raise CheckpointError(f"ConvNeXt has no place for the tensors {listed(unknown)}")
    sources = {}
    for (key, tensor), (place, axes) in zip(state.items(), found):
        if len(tensor.shape) != len(axes):
            raise CheckpointError(
                f"{key} has {len(axes)} axes in ConvNeXt. Received: a shape of {tensor.shape}"
            )
        sources[place] = Source(key, tensor, axes)
    return sources


def listed(names: Iterable) -> str:
    """The first names of many, for a message."""
    names = list(names)
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(map(str, names[:5])) + more if names else "nothing"
