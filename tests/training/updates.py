"""Optimizer updates as in `fit`, on any backend."""

from functools import cache

import keras
import numpy as np
from keras import ops


def apply(optimizer, variables, gradients):
    """Applies an update. With JAX it is compiled and free of side effects."""
    gradients = [ops.convert_to_tensor(gradient) for gradient in gradients]
    if keras.config.backend() != "jax":
        optimizer.apply(gradients, variables)
        return
    if not optimizer.built:
        optimizer.build(variables)
    state = [[variable.value for variable in each] for each in (optimizer.variables, variables)]
    moved, moved_state = compiled(optimizer)(state[0], gradients, state[1])
    for variable, value in zip([*variables, *optimizer.variables], [*moved, *moved_state]):
        variable.assign(value)


@cache
def compiled(optimizer):
    import jax

    return jax.jit(optimizer.stateless_apply)


def values(variables):
    """Returns copies of the values, since PyTorch's arrays share memory with the variables."""
    return [np.array(ops.convert_to_numpy(variable)) for variable in variables]
