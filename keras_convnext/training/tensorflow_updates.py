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


def apply_gradients(optimizer: AdamW, indices: Sequence[int], gradients: Sequence[Any]) -> None:
    """Applies gradients, or accumulates them with those of earlier batches.

    Args:
        optimizer: AdamW. The optimizer.
        indices: sequence of int. The optimizer's indices of the variables that have a gradient.
        gradients: sequence of tensors. The gradients on this device, one for each of `indices`.
    """
    reduced = optimizer._all_reduce_sum_gradients(list(zip(gradients, indices)))
    sums = [gradient for gradient, _ in reduced]
    if batches := optimizer.gradient_accumulation_steps:
        sums = [
            total + optimizer._accumulated_gradients[index] for total, index in zip(sums, indices)
        ]
    means = optimizer._clip_gradients([total / (batches or 1) for total in sums])
    # A branch that updates variables on all devices must be taken in cross-replica context.
    tf.__internal__.distribute.interim.maybe_merge_call(
        _accumulate_or_update, optimizer._distribution_strategy, optimizer, indices, sums, means
    )


def holds_on_every_device(condition: tf.Tensor) -> tf.Tensor:
    """Returns whether a bool scalar is true on all devices."""
    failures = tf.cast(tf.logical_not(condition), tf.int32)
    context = tf.distribute.get_replica_context()
    if context is not None and context.num_replicas_in_sync > 1:
        failures = context.all_reduce(tf.distribute.ReduceOp.SUM, failures)
    return tf.equal(failures, 0)


def _accumulate_or_update(
    strategy: tf.distribute.Strategy,
    optimizer: AdamW,
    indices: Sequence[int],
    sums: Sequence[Any],
    means: Sequence[Any],
) -> None:
    def accumulate() -> None:
        for index, total in zip(indices, sums):
            _on_each_device(strategy, optimizer._accumulated_gradients[index], _assign, total)

    def update() -> None:
        _update(strategy, optimizer, indices, means)

    batches = optimizer.gradient_accumulation_steps
    if not batches:
        update()
    else:
        tf.cond((optimizer._iterations.value + 1) % batches == 0, update, accumulate)


def _update(
    strategy: tf.distribute.Strategy,
    optimizer: AdamW,
    indices: Sequence[int],
    gradients: Sequence[Any],
) -> None:
    updates = tf.convert_to_tensor(optimizer.iterations)
    if optimizer.use_ema:
        tf.cond(updates == 0, lambda: _start_averages(strategy, optimizer), lambda: None)
    step_size, epsilon = _bias_correction(optimizer, updates)
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


def _bias_correction(optimizer: AdamW, updates: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the learning rate factor and the epsilon that correct the bias of the moments.

    Computed in float64 from the betas rounded to float32, because the kernel uses those.
    """
    count = tf.cast(updates + 1, tf.float64)
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
    if optimizer.gradient_accumulation_steps:
        accumulated = optimizer._accumulated_gradients[index].value
        accumulated.assign(tf.zeros_like(gradient))
    if optimizer.use_ema:
        average = optimizer.averages[index].value
        average.assign_sub((average - variable) * tf.cast(1 - optimizer.ema_momentum, dtype))


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
