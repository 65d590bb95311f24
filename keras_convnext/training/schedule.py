"""The learning rate schedule."""

import math
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_convnext")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warmup from 0, followed by a half-cosine decay.

    The learning rate is `linspace(0, learning_rate, warmup_steps)[i]` in update `i` of the warmup,
    and `end + (learning_rate - end) (1 + cos(pi i / n)) / 2` in update `i` of the `n` after it.

    Args:
        learning_rate: float. Peak learning rate.
        steps: int. Total number of updates.
        warmup_steps: int. Number of warmup updates. Defaults to 0.
        end_learning_rate: float. Final learning rate. Defaults to 1e-6.

    Raises:
        ValueError: If the warmup is longer than the run.

    References:
        facebookresearch/ConvNeXt, utils.py, `cosine_scheduler`.
    """

    def __init__(
        self,
        learning_rate: float,
        steps: int,
        warmup_steps: int = 0,
        end_learning_rate: float = 1e-6,
    ) -> None:
        super().__init__()
        if not 0 <= warmup_steps <= steps:
            raise ValueError(
                "warmup_steps must be in 0..steps. "
                f"Received: steps={steps}, warmup_steps={warmup_steps}"
            )
        self.learning_rate = learning_rate
        self.steps = steps
        self.warmup_steps = warmup_steps
        self.end_learning_rate = end_learning_rate

    def __call__(self, step: Any) -> Any:
        """Returns the learning rate of an update as a float32 scalar, constant after the end."""
        step = ops.cast(step, "float32")
        warmup = self.learning_rate * step / max(self.warmup_steps - 1, 1)
        left = ops.clip((self.steps - step) / max(self.steps - self.warmup_steps, 1), 0, 1)
        # (1 + cos x) / 2 without cancellation near a cosine of -1.
        falling = ops.square(ops.sin(left * (math.pi / 2)))
        cosine = self.end_learning_rate + (self.learning_rate - self.end_learning_rate) * falling
        return ops.where(step < self.warmup_steps, warmup, cosine)

    def get_config(self) -> dict[str, float]:
        """Returns the arguments of the constructor."""
        return {
            "learning_rate": self.learning_rate,
            "steps": self.steps,
            "warmup_steps": self.warmup_steps,
            "end_learning_rate": self.end_learning_rate,
        }
