"""AdamW as the official code trains with it, under `model.fit` and tf.distribute."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_convnext.training.layer_decay import HEAD, layer_groups


@keras.saving.register_keras_serializable(package="keras_convnext")
class AdamW(keras.optimizers.Optimizer):
    """AdamW with layer-wise decay, and with accumulation and averaging that hold on many devices.

    The numbers are those of `torch.optim.AdamW`. Weight decay leaves out tensors of rank 1: biases,
    norms and layer scales. Every learning rate, and with it the decoupled decay, is scaled by
    `layer_decay ** (13 - group)`, the groups being those of `layer_groups`.

    `keras.optimizers.AdamW` has no learning rate per layer, fails to accumulate under a strategy
    (keras issue 20582), and averages at each batch that it accumulates.

    Example:

    ```python
    optimizer = AdamW(WarmupCosine(5e-5, steps), weight_decay=1e-8, layer_decay=0.8)
    model.compile(optimizer, "categorical_crossentropy")
    ```

    Args:
        learning_rate: float or schedule. A schedule is asked with the number of updates, not of
            batches. Defaults to 4e-3.
        weight_decay: float. Defaults to 0.05.
        beta_1: float. Defaults to 0.9.
        beta_2: float. Defaults to 0.999.
        epsilon: float. Added after the bias correction, as in PyTorch. Defaults to 1e-8.
        layer_decay: float. Factor from one group of layers to the one before it. Defaults to 1.
        frozen_steps: int. Updates at the start in which the head alone is changed. Defaults to 0.
        name: str. Defaults to "adamw".
        **kwargs: `gradient_accumulation_steps` (the mean over so many batches makes an update),
            `use_ema` and `ema_momentum` (the average starts as the weights before the first update,
            and moves once an update), `global_clipnorm`, `clipnorm`, `clipvalue` (of the gradients
            as they are after accumulation, over all devices).

    References:
        Loshchilov and Hutter, "Decoupled Weight Decay Regularization", arXiv 1711.05101.
        facebookresearch/ConvNeXt, optim_factory.py.
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 4e-3,
        weight_decay: float = 0.05,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        layer_decay: float = 1.0,
        frozen_steps: int = 0,
        name: str = "adamw",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, name=name, **kwargs)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.layer_decay = layer_decay
        self.frozen_steps = frozen_steps

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Makes the state: two moments of each variable, its average and its accumulator."""
        if self.built:
            return
        super().build(variables)
        self._momentums = self.add_optimizer_variables(variables, "momentum")
        self._velocities = self.add_optimizer_variables(variables, "velocity")
        self._groups = layer_groups([variable.path for variable in variables])

    @property
    def averages(self) -> list[keras.Variable]:
        """The average of each trainable variable, where `use_ema` is on."""
        return self._model_variables_moving_average

    def finalize_variable_values(self, var_list: Sequence[keras.Variable]) -> None:
        """Leaves the weights as they are when `fit` ends, so that another `fit` goes on with them.

        Keras' optimizers put the averages in their place.
        """

    def _get_current_learning_rate(self) -> Any:
        if isinstance(self._learning_rate, keras.optimizers.schedules.LearningRateSchedule):
            return self._learning_rate(self.iterations)
        return super()._get_current_learning_rate()

    def _use_weight_decay(self, variable: Any) -> bool:
        return len(variable.shape) > 1 and super()._use_weight_decay(variable)

    def _backend_apply_gradients(
        self, grads: Sequence[tf.Tensor], trainable_variables: Sequence[keras.Variable]
    ) -> None:
        indices = [self._get_variable_index(variable) for variable in trainable_variables]
        reduced = self._all_reduce_sum_gradients(list(zip(grads, trainable_variables)))
        sums = [grad for grad, _ in reduced]
        if batches := self.gradient_accumulation_steps:
            sums = [
                total + self._accumulated_gradients[index] for total, index in zip(sums, indices)
            ]
        means = self._clip_gradients([total / (batches or 1) for total in sums])
        # A branch that updates variables of all devices has to be taken where all of them meet.
        tf.__internal__.distribute.interim.maybe_merge_call(
            self._accumulate_or_update, self._distribution_strategy, indices, sums, means
        )

    def _accumulate_or_update(
        self,
        strategy: tf.distribute.Strategy,
        indices: Sequence[int],
        sums: Sequence[Any],
        means: Sequence[Any],
    ) -> None:
        def accumulate() -> None:
            for index, total in zip(indices, sums):
                _on_each_device(strategy, self._accumulated_gradients[index], _assign, total)

        def update() -> None:
            self._update(strategy, indices, means)

        batches = self.gradient_accumulation_steps
        if not batches:
            update()
        else:
            tf.cond((self._iterations.value + 1) % batches == 0, update, accumulate)

    def _update(
        self, strategy: tf.distribute.Strategy, indices: Sequence[int], gradients: Sequence[Any]
    ) -> None:
        steps = tf.convert_to_tensor(self.iterations)
        if self.use_ema:
            tf.cond(steps == 0, lambda: self._start_averages(strategy), lambda: None)
        step_size, epsilon = self._corrected(steps)
        rate = tf.convert_to_tensor(self._get_current_learning_rate())
        of_trunk = tf.where(steps < self.frozen_steps, 0.0, rate)
        for index, gradient in zip(indices, gradients):
            group = self._groups[index]
            own_rate = (rate if group == HEAD else of_trunk) * self.layer_decay ** (HEAD - group)
            _on_each_device(
                strategy,
                self._trainable_variables[index],
                self._update_variable,
                gradient,
                index,
                own_rate,
                own_rate * step_size,
                epsilon,
            )

    def _corrected(self, steps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The factor on the learning rate, and the epsilon, that undo the bias of the moments.

        In float64, and of the betas as float32 holds them, since the update applies those: there
        1 - 0.999 has lost four digits.
        """
        count = tf.cast(steps + 1, tf.float64)
        first, second = (
            1 - tf.cast(tf.constant(beta, tf.float32), tf.float64) ** count
            for beta in (self.beta_1, self.beta_2)
        )
        root = tf.sqrt(second)
        return tf.cast(root / first, tf.float32), tf.cast(self.epsilon * root, tf.float32)

    def _update_variable(
        self,
        variable: tf.Variable,
        gradient: tf.Tensor,
        index: int,
        rate: tf.Tensor,
        step_size: tf.Tensor,
        epsilon: tf.Tensor,
    ) -> None:
        dtype = variable.dtype
        if self.weight_decay and self._use_weight_decay(self._trainable_variables[index]):
            # Once the gradient is there. Before, TensorFlow would have to keep the weight as it was
            # as well, since the gradients of layers below are still to read it.
            with tf.control_dependencies([gradient]):
                variable.assign_sub(variable * tf.cast(rate * self.weight_decay, dtype))
        self._move(variable, gradient, index, rate, step_size, epsilon)
        if self.gradient_accumulation_steps:
            accumulated = self._accumulated_gradients[index].value
            accumulated.assign(tf.zeros_like(gradient))
        if self.use_ema:
            average = self._model_variables_moving_average[index].value
            average.assign_sub((average - variable) * tf.cast(1 - self.ema_momentum, dtype))

    def _move(
        self,
        variable: tf.Variable,
        gradient: tf.Tensor,
        index: int,
        rate: tf.Tensor,
        step_size: tf.Tensor,
        epsilon: tf.Tensor,
    ) -> None:
        """Moves a variable by its step, weight decay apart."""
        dtype = variable.dtype
        # One kernel that changes variable and moments in place: what Keras does in eight
        # operations, each with a temporary of the variable's size.
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=tf.zeros((), dtype),
            beta2_power=tf.zeros((), dtype),
            lr=tf.cast(step_size, dtype),
            beta1=tf.constant(self.beta_1, dtype),
            beta2=tf.constant(self.beta_2, dtype),
            epsilon=tf.cast(epsilon, dtype),
            grad=tf.cast(gradient, dtype),
        )

    def _start_averages(self, strategy: tf.distribute.Strategy) -> None:
        for variable, average in zip(self._trainable_variables, self.averages):
            _on_each_device(strategy, average, _assign, variable.value)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
            "layer_decay": self.layer_decay,
            "frozen_steps": self.frozen_steps,
        }


def _on_each_device(
    strategy: tf.distribute.Strategy, variable: keras.Variable, function: Any, *args: Any
) -> None:
    strategy.extended.update(variable.value, function, args=args, group=False)


def _assign(variable: tf.Variable, value: tf.Tensor) -> None:
    variable.assign(tf.cast(value, variable.dtype))


@keras.saving.register_keras_serializable(package="keras_convnext")
class LossScaleOptimizer(keras.optimizers.LossScaleOptimizer):
    """Loss scaling for mixed_float16 that skips a batch if it overflows on any device.

    Keras' own looks at the gradients of the first device alone, before they are summed.
    """

    def check_finite(self, grads: Sequence[tf.Tensor]) -> tf.Tensor:
        """Returns whether every gradient on every device is finite."""
        overflows = tf.cast(tf.logical_not(super().check_finite(grads)), tf.int32)
        context = tf.distribute.get_replica_context()
        if context is not None and context.num_replicas_in_sync > 1:
            overflows = context.all_reduce(tf.distribute.ReduceOp.SUM, overflows)
        return tf.equal(overflows, 0)
