"""The updates of `AdamW` in TensorFlow: on each device of a strategy, with one kernel per variable.

The results are those of the rule in `optimizer`. The device-specific parts are the sum of gradients
over devices, branches taken by all devices together, and a kernel that updates a variable and its
moments in place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

if TYPE_CHECKING:
    from keras_convnext.training.optimizer import AdamW

_merge_call = tf.__internal__.distribute.interim.maybe_merge_call


def apply_gradients(optimizer: AdamW, indices: Sequence[int], gradients: Sequence[Any]) -> None:
    """Applies gradients, or accumulates them with those of earlier batches.

    Each device accumulates its own gradients. They are summed over devices once per update.

    Args:
        optimizer: AdamW. The optimizer.
        indices: sequence of int. The optimizer's indices of the variables that have a gradient.
        gradients: sequence of tensors. The gradients on this device, one for each of `indices`.
    """
    if not optimizer.gradient_accumulation_steps:
        _reduce_and_update(optimizer, indices, gradients)
        return
    for index, gradient in zip(indices, gradients):
        accumulated = optimizer._accumulated_gradients[index].value
        accumulated.assign_add(tf.cast(tf.convert_to_tensor(gradient), accumulated.dtype))
    # A branch that updates variables on all devices must be taken in cross-replica context.
    _merge_call(_update_after_last, optimizer._distribution_strategy, optimizer, indices)


def _update_after_last(
    strategy: tf.distribute.Strategy, optimizer: AdamW, indices: Sequence[int]
) -> None:
    """Updates the weights if this was the last batch of an update."""

    def update() -> None:
        if tf.distribute.in_cross_replica_context():
            strategy.extended.call_for_each_replica(_update_with_sums, args=(optimizer, indices))
        else:
            _update_with_sums(optimizer, indices)

    batches = optimizer.gradient_accumulation_steps
    tf.cond((optimizer._iterations.value + 1) % batches == 0, update, lambda: None)


def _update_with_sums(optimizer: AdamW, indices: Sequence[int]) -> None:
    # Reading a variable in a branch gives a tensor without a device, to which several machines
    # could not reduce.
    sums = [tf.identity(optimizer._accumulated_gradients[index].value) for index in indices]
    _reduce_and_update(optimizer, indices, sums)


def _reduce_and_update(optimizer: AdamW, indices: Sequence[int], sums: Sequence[Any]) -> None:
    """Sums gradients over devices and updates the weights with their mean over the batches."""
    reduced = optimizer._all_reduce_sum_gradients(list(zip(sums, indices)))
    means = [total / (optimizer.gradient_accumulation_steps or 1) for total, _ in reduced]
    # The sum over devices is the same on each of them, and with it the decision.
    is_finite = optimizer.skips_overflows and optimizer._are_finite(means)
    clipped = optimizer._clip_gradients(means)
    strategy = optimizer._distribution_strategy
    _merge_call(_update_or_skip, strategy, optimizer, indices, clipped, is_finite)


def _update_or_skip(
    strategy: tf.distribute.Strategy,
    optimizer: AdamW,
    indices: Sequence[int],
    gradients: Sequence[Any],
    is_finite: Any,
) -> None:
    updates = tf.convert_to_tensor(optimizer.iterations)
    if optimizer.use_ema:
        tf.cond(updates == 0, lambda: _start_averages(strategy, optimizer), lambda: None)

    def update() -> None:
        _update(strategy, optimizer, indices, gradients, updates)

    def skip() -> None:
        optimizer.skipped.value.assign_add(1)
        for index in indices:
            variable = optimizer._trainable_variables[index]
            _on_each_device(strategy, variable, _finish_variable, optimizer, index)

    if optimizer.skips_overflows:
        tf.cond(strategy.experimental_local_results(is_finite)[0], update, skip)
    else:
        update()


def _update(
    strategy: tf.distribute.Strategy,
    optimizer: AdamW,
    indices: Sequence[int],
    gradients: Sequence[Any],
    updates: tf.Tensor,
) -> None:
    steps = updates - optimizer.skipped.value if optimizer.skips_overflows else updates
    step_size, epsilon = _bias_correction(optimizer, steps)
    rates = optimizer._rates(indices, updates)
    for index, gradient, rate in zip(indices, gradients, rates):
        _on_each_device(
            strategy,
            optimizer._trainable_variables[index],
            _update_variable,
            gradient,
            optimizer,
            index,
            rate,
            rate * step_size,
            epsilon,
        )


def _start_averages(strategy: tf.distribute.Strategy, optimizer: AdamW) -> None:
    for variable, average in zip(optimizer._trainable_variables, optimizer.averages):
        _on_each_device(strategy, average, _assign, variable.value)


def _bias_correction(optimizer: AdamW, steps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the learning rate factor and the epsilon that correct the bias of the moments.

    Computed in float64 from the betas rounded to float32, because the kernel uses those.
    """
    count = tf.cast(steps + 1, tf.float64)
    first, second = (
        1 - tf.cast(tf.constant(beta, tf.float32), tf.float64) ** count
        for beta in (optimizer.beta_1, optimizer.beta_2)
    )
    root = tf.sqrt(second)
    return tf.cast(root / first, tf.float32), tf.cast(optimizer.epsilon * root, tf.float32)


def _update_variable(
    variable: tf.Variable,
    gradient: tf.Tensor,
    optimizer: AdamW,
    index: int,
    rate: tf.Tensor,
    step_size: tf.Tensor,
    epsilon: tf.Tensor,
) -> None:
    dtype = variable.dtype
    if optimizer._decays(index):
        # Only after the gradient has been computed: earlier, TensorFlow would have to keep a copy
        # of the old weight, which the gradients of lower layers still need.
        with tf.control_dependencies([gradient]):
            variable.assign_sub(variable * tf.cast(rate * optimizer.weight_decay, dtype))
    if optimizer._has_adam_step(index):
        _adam_step(variable, gradient, optimizer, index, step_size, epsilon)
    else:
        optimizer._move(variable, gradient, index, rate, step_size, epsilon)
    _finish_variable(variable, optimizer, index)


def _finish_variable(variable: tf.Variable, optimizer: AdamW, index: int) -> None:
    """Clears the accumulated gradient of a variable, and moves its average."""
    if optimizer.gradient_accumulation_steps:
        accumulated = optimizer._accumulated_gradients[index].value
        accumulated.assign(tf.zeros_like(accumulated))
    if optimizer.use_ema:
        average = optimizer.averages[index].value
        momentum = tf.cast(1 - optimizer.ema_momentum, variable.dtype)
        average.assign_sub((average - variable) * momentum)


def _adam_step(
    variable: tf.Variable,
    gradient: tf.Tensor,
    optimizer: AdamW,
    index: int,
    step_size: tf.Tensor,
    epsilon: tf.Tensor,
) -> None:
    """Makes one Adam step in place; Keras uses eight operations with a temporary each."""
    dtype = variable.dtype
    tf.raw_ops.ResourceApplyAdam(
        var=variable.handle,
        m=optimizer._momentums[index].value.handle,
        v=optimizer._velocities[index].value.handle,
        beta1_power=tf.zeros((), dtype),
        beta2_power=tf.zeros((), dtype),
        lr=tf.cast(step_size, dtype),
        beta1=tf.constant(optimizer.beta_1, dtype),
        beta2=tf.constant(optimizer.beta_2, dtype),
        epsilon=tf.cast(epsilon, dtype),
        grad=tf.cast(gradient, dtype),
    )


def _on_each_device(
    strategy: tf.distribute.Strategy,
    variable: keras.Variable,
    function: Callable[..., None],
    *args: Any,
) -> None:
    strategy.extended.update(variable.value, function, args=args, group=False)


def _assign(variable: tf.Variable, value: tf.Tensor) -> None:
    variable.assign(tf.cast(value, variable.dtype))
