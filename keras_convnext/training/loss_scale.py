"""Loss scaling for training in float16."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_convnext.training.optimizer import AdamW


@keras.saving.register_keras_serializable(package="keras_convnext")
class LossScaleOptimizer(keras.optimizers.LossScaleOptimizer):
    """Loss scaling for mixed_float16 that applies or skips an update as a whole.

    If a gradient of any accumulated batch overflows on any device, the update is skipped and the
    scale halved. As with `torch.amp.GradScaler`, a skipped update counts for the learning rate
    schedule and moves the average, but not for the bias correction of the moments. Keras' own
    optimizer skips single batches, which delays the schedule, and only checks the first device.

    Args:
        inner_optimizer: AdamW or Muon. The optimizer to wrap.
        **kwargs: `initial_scale`, `dynamic_growth_steps` (the number of updates without
            overflow after which the scale doubles) and `name`, as in
            `keras.optimizers.LossScaleOptimizer`.
    """

    def __init__(self, inner_optimizer: AdamW, **kwargs: Any) -> None:
        if not isinstance(inner_optimizer, AdamW):
            raise ValueError(
                "inner_optimizer must be AdamW or Muon from keras_convnext.training. For others, "
                "use keras.optimizers.LossScaleOptimizer. "
                f"Received: inner_optimizer={inner_optimizer}"
            )
        super().__init__(inner_optimizer, **kwargs)
        inner_optimizer.skips_overflows = True

    def apply(
        self,
        grads: Sequence[Any],
        trainable_variables: Sequence[keras.Variable] | None = None,
    ) -> None:
        """Applies scaled gradients, or accumulates them with those of earlier batches."""
        if not self.built:
            with keras.name_scope(self.name):
                self.build(trainable_variables)
        inner = self.inner_optimizer
        skipped = inner.skipped + 0  # a copy
        variables = trainable_variables or inner._trainable_variables
        unscaled = [
            # float8 layers pass new values of their variables as gradients.
            gradient
            if gradient is None or self._overwrite_variable_with_gradient(variable)
            else ops.divide(gradient, self.dynamic_scale)
            for gradient, variable in zip(grads, variables)
        ]
        inner.apply(unscaled, trainable_variables)
        is_last = ops.equal(inner._iterations % (inner.gradient_accumulation_steps or 1), 0)
        self._adapt_scale(is_last, has_overflowed=inner.skipped > skipped)

    def _adapt_scale(self, is_last: Any, has_overflowed: Any) -> None:
        """Halves the scale after an overflow, and doubles it after enough updates without one."""
        updates = ops.where(has_overflowed, 0, self.step_counter + ops.cast(is_last, "int32"))
        is_due = ops.equal(updates, self.dynamic_growth_steps)
        self.step_counter.assign(ops.where(is_due, 0, updates))
        factor = ops.where(has_overflowed, 0.5, ops.where(is_due, 2.0, 1.0))
        self.dynamic_scale.assign(self.dynamic_scale * factor)

    def stateless_apply(
        self,
        optimizer_variables: Sequence[Any],
        grads: Sequence[Any],
        trainable_variables: Sequence[Any],
    ) -> tuple[list[Any], list[Any]]:
        """Applies gradients without side effects, as in `keras.optimizers.Optimizer`.

        That method cannot be used: before Keras 3.12, only `inner_optimizer` knows the variables.
        """
        variables = [*self.inner_optimizer._trainable_variables, *self.variables]
        given = [*trainable_variables, *optimizer_variables]
        with keras.StatelessScope(state_mapping=list(zip(variables, given))) as scope:
            self.apply(grads)
        values = [scope.get_current_value(variable) for variable in variables]
        return values[: len(trainable_variables)], values[len(trainable_variables) :]
