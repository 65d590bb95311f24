"""Limits on what a weight file may claim, whatever its format."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import numpy as np

from keras_convnext.pretrained.errors import CheckpointError

# A training checkpoint of the largest network has 3,000, and a trillion-parameter language model
# 92,000.
MAX_TENSORS = 100_000
# The most bytes that tensors may claim, as a multiple of the file size: weights compress to half of
# their size at best, and weights that are stored once may have several names.
MAX_EXPANSION = 16


class Tensor(Protocol):
    """A tensor in a file."""

    @property
    def path(self) -> Path:
        """The file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape."""

    @property
    def dtype(self) -> np.dtype:
        """The dtype."""


def check_number(number: int) -> None:
    """Checks that a file has a plausible number of tensors.

    Raises:
        CheckpointError: If there are more than `MAX_TENSORS`.
    """
    if number > MAX_TENSORS:
        raise CheckpointError(
            f"The file has more than the limit of {MAX_TENSORS:,} tensors. Use a file that "
            "contains only the weights"
        )


def check_claims(tensors: Iterable[Tensor]) -> None:
    """Checks that tensors are not far larger than the files that contain them.

    PyTorch can store a tensor of any shape as one number, or many tensors as one.

    Raises:
        CheckpointError: If they are.
    """
    tensors = list(tensors)
    claimed = sum(math.prod(each.shape) * each.dtype.itemsize for each in tensors)
    held = sum(path.stat().st_size for path in {each.path for each in tensors})
    if claimed > MAX_EXPANSION * held:
        raise CheckpointError(
            f"The weights take {claimed:,} bytes, far more than the file contains. Save copies of "
            "the tensors instead of views: {key: tensor.clone() for key, tensor in "
            "state_dict.items()}. "
            f"Received: {held:,} bytes"
        )
