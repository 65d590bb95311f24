"""Initial values of the weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import keras
from keras import ops

_about_to_load: ContextVar[bool] = ContextVar("about_to_load", default=False)


@contextmanager
def about_to_load() -> Iterator[None]:
    """Skips random initialization within the context, for kernels that are about to be loaded.

    Drawing random numbers for the largest network takes longer than reading its weights, and needs
    additional memory of a third of their size.
    """
    token = _about_to_load.set(True)
    try:
        yield
    finally:
        _about_to_load.reset(token)


@keras.saving.register_keras_serializable(package="keras_convnext")
class TruncatedNormal(keras.initializers.TruncatedNormal):
    """Normal distribution truncated at two standard deviations, with `stddev` after truncation.

    Truncation reduces the standard deviation by a factor of 0.88. The official code truncates at
    +-2, a hundred standard deviations, which changes nothing; the `stddev` of Keras' initializer is
    the one before truncation.
    """

    def __call__(self, shape: tuple[int, ...], dtype: Any = None) -> Any:
        """Draws a tensor."""
        if _about_to_load.get():
            return ops.zeros(shape, dtype)
        return keras.random.truncated_normal(
            shape, self.mean, self.stddev / 0.87962566, dtype, self.seed
        )


def kernel_initializer(stddev: float | None, fan_in: int) -> TruncatedNormal:
    """Creates a new initializer. A shared one would give kernels of the same shape equal values.

    Args:
        stddev: float or None. As in `Variant`.
        fan_in: int. Number of inputs per output.
    """
    return TruncatedNormal(stddev=fan_in**-0.5 if stddev is None else stddev)
