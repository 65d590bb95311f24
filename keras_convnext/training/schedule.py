"""Learning rate schedules with a linear warmup, by update."""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_convnext")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warmup, followed by a half-cosine decay, as for classifiers in the official code.

    The learning rate rises linearly from `warmup_start * learning_rate` in the first update of the
    warmup to `learning_rate` in its last one. In update `i` of the `n` after it, it is
    `end + (learning_rate - end) (1 + cos(pi i / n)) / 2`.

    Args:
        learning_rate: float. Peak learning rate.
        steps: int. Total number of updates.
        warmup_steps: int. Number of warmup updates. Defaults to 0.
        end_learning_rate: float. Final learning rate. Defaults to 1e-6.
        warmup_start: float. Share of the learning rate in the first update. Defaults to 0.

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
        warmup_start: float = 0.0,
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
        self.warmup_start = warmup_start

    def __call__(self, step: Any) -> Any:
        """Returns the learning rate of an update as a float32 scalar, constant after the end."""
        step = ops.cast(step, "float32")
        risen = step / max(self.warmup_steps - 1, 1)
        warmup = self.learning_rate * (self.warmup_start + (1 - self.warmup_start) * risen)
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
            "warmup_start": self.warmup_start,
        }


@keras.saving.register_keras_serializable(package="keras_convnext")
class WarmupPolynomial(keras.optimizers.schedules.LearningRateSchedule):
    """Polynomial decay, as for semantic segmentation in the official code.

    The learning rate of update `i` is `end + (learning_rate - end) (1 - i / steps) ** power`,
    multiplied in the warmup by a factor that rises linearly from `warmup_start` to 1.

    Args:
        learning_rate: float. Peak learning rate.
        steps: int. Total number of updates.
        warmup_steps: int. Number of warmup updates. Defaults to 0.
        end_learning_rate: float. Final learning rate. Defaults to 0.
        power: float. Exponent; 1 for a linear decay. Defaults to 1.
        warmup_start: float. Factor at the first update. Defaults to 0.

    References:
        mmcv 1.x, runner/hooks/lr_updater.py, `PolyLrUpdaterHook`.
    """

    def __init__(
        self,
        learning_rate: float,
        steps: int,
        warmup_steps: int = 0,
        end_learning_rate: float = 0.0,
        power: float = 1.0,
        warmup_start: float = 0.0,
    ) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.steps = steps
        self.warmup_steps = warmup_steps
        self.end_learning_rate = end_learning_rate
        self.power = power
        self.warmup_start = warmup_start

    def __call__(self, step: Any) -> Any:
        """Returns the learning rate of an update as a float32 scalar, constant after the end."""
        step = ops.cast(step, "float32")
        left = ops.clip(1 - step / max(self.steps, 1), 0, 1) ** self.power
        rate = self.end_learning_rate + (self.learning_rate - self.end_learning_rate) * left
        return rate * _warmup_factor(step, self.warmup_steps, self.warmup_start)

    def get_config(self) -> dict[str, float]:
        """Returns the arguments of the constructor."""
        return {
            "learning_rate": self.learning_rate,
            "steps": self.steps,
            "warmup_steps": self.warmup_steps,
            "end_learning_rate": self.end_learning_rate,
            "power": self.power,
            "warmup_start": self.warmup_start,
        }


@keras.saving.register_keras_serializable(package="keras_convnext")
class WarmupSteps(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that falls at some updates, as for object detection in the official code.

    It is multiplied by `factor` from each update in `boundaries` on, and in the warmup by a factor
    that rises linearly from `warmup_start` to 1. Without boundaries it is constant.

    Args:
        learning_rate: float. Peak learning rate.
        boundaries: sequence of int. Updates, in ascending order. Defaults to none.
        warmup_steps: int. Number of warmup updates. Defaults to 0.
        factor: float. Defaults to 0.1.
        warmup_start: float. Factor at the first update. Defaults to 0.

    References:
        mmcv 1.x, runner/hooks/lr_updater.py, `StepLrUpdaterHook`.
    """

    def __init__(
        self,
        learning_rate: float,
        boundaries: Sequence[int] = (),
        warmup_steps: int = 0,
        factor: float = 0.1,
        warmup_start: float = 0.0,
    ) -> None:
        super().__init__()
        self.learning_rate = learning_rate
        self.boundaries = tuple(boundaries)
        self.warmup_steps = warmup_steps
        self.factor = factor
        self.warmup_start = warmup_start

    def __call__(self, step: Any) -> Any:
        """Returns the learning rate of an update as a float32 scalar."""
        step = ops.cast(step, "float32")
        rate = ops.cast(self.learning_rate, "float32")
        for boundary in self.boundaries:
            rate = ops.where(step < boundary, rate, rate * self.factor)
        return rate * _warmup_factor(step, self.warmup_steps, self.warmup_start)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            "learning_rate": self.learning_rate,
            "boundaries": list(self.boundaries),
            "warmup_steps": self.warmup_steps,
            "factor": self.factor,
            "warmup_start": self.warmup_start,
        }


def _warmup_factor(step: Any, warmup_steps: int, start: float) -> Any:
    return start + (1 - start) * ops.minimum(step / max(warmup_steps, 1) + (not warmup_steps), 1.0)
