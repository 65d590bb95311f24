"""What weights are before they are learned or loaded."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import keras
from keras import ops

_about_to_load: ContextVar[bool] = ContextVar("about_to_load", default=False)


@contextmanager
def about_to_load() -> Iterator[None]:
    """Leaves the kernels that are built inside at zero, since their weights are about to be loaded.

    Random numbers for the largest network take longer than reading it, and a third of its memory
    over again.
    """
    token = _about_to_load.set(True)
    try:
        yield
    finally:
        _about_to_load.reset(token)


@keras.saving.register_keras_serializable(package="keras_convnext")
class TruncatedNormal(keras.initializers.TruncatedNormal):
    """Normal distribution cut at two deviations, whose deviation is `stddev` after the cut.

    The cut leaves a normal distribution 0.88 of its deviation. The official code cuts at +-2, which
    is a hundred deviations and leaves all of it; Keras' initializer means the one before the cut.
    """

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        """Draws a tensor."""
        if _about_to_load.get():
            return ops.zeros(shape, dtype)
        return keras.random.truncated_normal(
            shape, self.mean, self.stddev / 0.87962566, dtype, self.seed
        )


def kernel_initializer(stddev: float | None, fan_in: int) -> TruncatedNormal:
    """Makes a new initializer: one that layers share gives equal shapes equal values.

    Args:
        stddev: float or None. As in `Variant`.
        fan_in: int. Inputs that one output is the sum of.
    """
    return TruncatedNormal(stddev=fan_in**-0.5 if stddev is None else stddev)
