"""AdamW as in the official code, for `model.fit` on every backend."""

import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from keras_convnext.training.layer_decay import decay_steps


@keras.saving.register_keras_serializable(package="keras_convnext")
class AdamW(keras.optimizers.Optimizer):
    """AdamW with layer-wise decay, and accumulation and averaging that work on several devices.

    Results match `torch.optim.AdamW` on TensorFlow, JAX and PyTorch. Tensors of rank 1 (biases,
    norms and layer scales) have no weight decay. The learning rate of each variable, and with it
    the decoupled weight decay, is multiplied by `layer_decay` for each group of layers between its
    own and the head.

    `keras.optimizers.AdamW` has no layer-wise learning rates, cannot accumulate gradients under a
    strategy (keras issue 20582), and updates the average for every accumulated batch.

    Example:

    ```python
    optimizer = AdamW(WarmupCosine(5e-5, steps), weight_decay=1e-8, layer_decay=0.8)
    model.compile(optimizer, "categorical_crossentropy")
    ```

    Args:
        learning_rate: float or schedule. A schedule is called with the number of updates, not of
            batches. Defaults to 4e-3.
        weight_decay: float. Decoupled weight decay. Defaults to 0.05.
        beta_1: float. Decay rate of the first moment. Defaults to 0.9.
        beta_2: float. Decay rate of the second moment. Defaults to 0.999.
        epsilon: float. Added after the bias correction, as in PyTorch. Defaults to 1e-8.
        layer_decay: float. Learning rate factor from one group of layers to the group below it.
            Defaults to 1.
        layer_groups: str. The groups: "official" for classifiers, "single" (each block is one),
            "layer_wise" for detection or "stage_wise" for segmentation; see `decay_steps`.
            Defaults to "official".
        frozen: str or None. Regular expression; variables whose path contains a match are not
            trained, such as `"stem|stages_0"`. Defaults to None.
        no_decay: str or None. Regular expression; variables whose path contains a match have no
            weight decay, in addition to those of rank 1. Defaults to None.
        frozen_steps: int. Number of updates at the start in which only the head is trained.
            Defaults to 0.
        name: str. Defaults to "adamw".
        **kwargs: `gradient_accumulation_steps` (number of batches averaged for an update; devices
            exchange their sums once per update), `use_ema` and `ema_momentum` (the average starts
            from the initial weights and is updated once per update), `global_clipnorm`, `clipnorm`,
            `clipvalue` (applied to gradients after accumulation over batches and devices).

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
        layer_groups: str = "official",
        frozen: str | None = None,
        no_decay: str | None = None,
        frozen_steps: int = 0,
        name: str = "adamw",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, weight_decay=weight_decay, name=name, **kwargs)
        self.beta_1 = beta_1
        self.beta_2 = beta_2
        self.epsilon = epsilon
        self.layer_decay = layer_decay
        self.layer_groups = layer_groups
        self.frozen = frozen
        self.no_decay = no_decay
        self.frozen_steps = frozen_steps
        self.skips_overflows = False  # LossScaleOptimizer sets it

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Creates the state: two moments per variable, and its average and accumulator if used."""
        if self.built:
            return
        super().build(variables)
        if self.skips_overflows:
            self.skipped = self.add_variable((), dtype="int", name="skipped_updates")
        self._momentums = self.add_optimizer_variables(variables, "momentum")
        self._velocities = self.add_optimizer_variables(variables, "velocity")
        paths = [variable.path for variable in variables]
        self._decay_steps = decay_steps(paths, self.layer_groups)
        self._is_frozen = [bool(self.frozen and re.search(self.frozen, path)) for path in paths]
        if any(self._is_frozen) == all(self._is_frozen) and self.frozen:
            raise ValueError(
                "frozen must match some variables, but not all of them. "
                f"Received: frozen={self.frozen!r}"
            )

    @property
    def averages(self) -> list[keras.Variable]:
        """The moving average of each trainable variable, if `use_ema` is on."""
        return self._model_variables_moving_average

    def finalize_variable_values(self, var_list: Sequence[keras.Variable]) -> None:
        """Keeps the weights when `fit` ends, so that another `fit` continues from them.

        Keras' optimizers would replace them with their averages.
        """

    def _get_current_learning_rate(self) -> Any:
        if isinstance(self._learning_rate, keras.optimizers.schedules.LearningRateSchedule):
            return self._learning_rate(self.iterations)
        return super()._get_current_learning_rate()

    def _use_weight_decay(self, variable: Any) -> bool:
        if self.no_decay and re.search(self.no_decay, variable.path):
            return False
        return len(variable.shape) > 1 and super()._use_weight_decay(variable)

    def _backend_apply_gradients(
        self, grads: Sequence[Any], trainable_variables: Sequence[keras.Variable]
    ) -> None:
        indices = [self._get_variable_index(variable) for variable in trainable_variables]
        grads = [  # also without influence on the global norm
            ops.zeros_like(gradient) if self._is_frozen[index] else gradient
            for index, gradient in zip(indices, grads)
        ]
        if keras.config.backend() == "tensorflow":
            from keras_convnext.training import tensorflow_updates

            tensorflow_updates.apply_gradients(self, indices, grads)
        elif self.gradient_accumulation_steps:
            self._accumulate_or_update(indices, grads)
        else:
            self._update_or_skip(indices, grads)

    def _accumulate_or_update(self, indices: Sequence[int], gradients: Sequence[Any]) -> None:
        batches = self.gradient_accumulation_steps
        accumulators = [self._accumulated_gradients[index] for index in indices]

        def accumulate() -> None:
            for accumulator, gradient in zip(accumulators, gradients):
                self.assign_add(accumulator, gradient)

        def update() -> None:
            means = [
                (accumulator + gradient) / batches
                for accumulator, gradient in zip(accumulators, gradients)
            ]
            self._update_or_skip(indices, means)
            for accumulator in accumulators:
                self.assign(accumulator, ops.zeros_like(accumulator.value))

        completes = ops.equal((self._iterations + 1) % batches, 0)
        self._do_either(completes, update, accumulate)

    def _do_either(
        self, condition: Any, first: Callable[[], None], second: Callable[[], None]
    ) -> None:
        """Calls the first function if the condition is true, and else the second."""
        if keras.config.backend() == "jax":
            # Branches in JAX must not have side effects: they return the new values instead.
            variables = [*self._trainable_variables, *self.variables]
            values = ops.cond(
                condition, _returning(variables, first), _returning(variables, second)
            )
            for variable, value in zip(variables, values):
                self.assign(variable, value)
        else:
            ops.cond(condition, first, second)

    def _update_or_skip(self, indices: Sequence[int], gradients: Sequence[Any]) -> None:
        updates = ops.convert_to_tensor(self.iterations)
        if self.use_ema:
            for variable, average in zip(self._trainable_variables, self.averages):
                self.assign(average, ops.where(updates == 0, variable.value, average.value))

        def update() -> None:
            self._update(indices, self._clip_gradients(gradients), updates)

        def skip() -> None:
            self.assign_add(self.skipped, 1)

        if self.skips_overflows:
            self._do_either(self._are_finite(gradients), update, skip)
        else:
            update()
        if self.use_ema:
            for variable, average in zip(self._trainable_variables, self.averages):
                self.assign_sub(average, (average - variable) * (1 - self.ema_momentum))

    def _update(self, indices: Sequence[int], gradients: Sequence[Any], updates: Any) -> None:
        steps = updates - self.skipped if self.skips_overflows else updates
        step_size, epsilon = self._bias_correction(steps)
        for index, gradient, rate in zip(indices, gradients, self._rates(indices, updates)):
            variable = self._trainable_variables[index]
            gradient = ops.cast(gradient, variable.dtype)
            if self._decays(index):
                self.assign_sub(variable, variable * (rate * self.weight_decay))
            self._move(variable, gradient, index, rate, rate * step_size, epsilon)

    def _are_finite(self, gradients: Sequence[Any]) -> Any:
        """Whether all values of all gradients are finite, as a bool scalar."""
        return ops.all(ops.stack([ops.all(ops.isfinite(gradient)) for gradient in gradients]))

    def _rates(self, indices: Sequence[int], updates: Any) -> list[Any]:
        """Returns the learning rate of each variable."""
        rate = ops.cast(self._get_current_learning_rate(), "float32")
        of_trunk = ops.where(updates < self.frozen_steps, 0.0, rate)
        return [
            (of_trunk if steps else rate) * (self.layer_decay**steps * (not frozen))
            for steps, frozen in ((self._decay_steps[i], self._is_frozen[i]) for i in indices)
        ]

    def _decays(self, index: int) -> bool:
        return bool(self.weight_decay) and self._use_weight_decay(self._trainable_variables[index])

    def _bias_correction(self, steps: Any) -> tuple[Any, Any]:
        """Returns the learning rate factor and the epsilon that correct the bias of the moments.

        Uses `expm1`, because 1 - 0.999 loses four digits in float32, and JAX has no float64 by
        default.
        """
        count = ops.cast(steps + 1, "float32")
        first, second = (
            -ops.expm1(count * (math.log(beta) if beta else -math.inf))
            for beta in (self.beta_1, self.beta_2)
        )
        root = ops.sqrt(second)
        return root / first, root * self.epsilon

    def _has_adam_step(self, index: int) -> bool:
        """Whether a variable is updated by Adam, for which TensorFlow has a kernel."""
        return True

    def _move(
        self,
        variable: Any,
        gradient: Any,
        index: int,
        rate: Any,
        step_size: Any,
        epsilon: Any,
    ) -> None:
        """Updates a variable, without weight decay."""
        momentum, velocity = self._momentums[index], self._velocities[index]
        self.assign_add(momentum, (gradient - momentum) * (1 - self.beta_1))
        self.assign_add(velocity, (ops.square(gradient) - velocity) * (1 - self.beta_2))
        self.assign_sub(variable, momentum * step_size / (ops.sqrt(velocity) + epsilon))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "beta_1": self.beta_1,
            "beta_2": self.beta_2,
            "epsilon": self.epsilon,
            "layer_decay": self.layer_decay,
            "layer_groups": self.layer_groups,
            "frozen": self.frozen,
            "no_decay": self.no_decay,
            "frozen_steps": self.frozen_steps,
        }


def _returning(
    variables: Sequence[keras.Variable], function: Callable[[], None]
) -> Callable[[], list[Any]]:
    """Returns a function that computes the values `function` would assign to `variables`."""

    def branch() -> list[Any]:
        held = [(variable, variable.value) for variable in variables]
        with keras.StatelessScope(state_mapping=held) as scope:
            function()
        return [scope.get_current_value(variable) for variable in variables]

    return branch
