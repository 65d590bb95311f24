"""Updates by an optimizer as `fit` makes them, on whichever backend Keras has."""

from functools import cache

import keras
import numpy as np
from keras import ops


def apply(optimizer, variables, gradients):
    """An update. With JAX it is compiled, and has no side effects."""
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
    """Copies, since PyTorch's arrays change with their variables."""
    return [np.array(ops.convert_to_numpy(variable)) for variable in variables]
