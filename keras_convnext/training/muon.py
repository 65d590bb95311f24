"""Muon: orthogonalized momentum for matrices, and AdamW for all other weights."""

import math
import re
from typing import Any

import keras
from keras import ops

from keras_convnext.training.optimizer import AdamW

_MATRICES = re.compile(r"blocks_\d+/pwconv[12]/kernel$|downsample_\d+_conv/kernel$")
_QUINTIC = (3.4445, -4.7750, 2.0315)  # steep at 0: five iterations take 0.01 to about 1


@keras.saving.register_keras_serializable(package="keras_convnext")
class Muon(AdamW):
    """Muon for the kernels of pointwise and downsampling layers, and AdamW for all other weights.

    The momentum of a kernel is orthogonalized and scaled to the typical size of an AdamW step, so
    that learning rate and weight decay mean the same for both parts. Layer-wise decay, accumulation
    and averaging work as in `AdamW`. Depthwise kernels are not matrices, and the stem and head use
    AdamW, as the reference recommends.

    An update takes as long as processing ten to twenty images, so use batches of at least a hundred
    images. Matrix products are computed in float32; the reference uses bfloat16.

    Args:
        learning_rate: float or schedule. As in `AdamW`. Defaults to 4e-3.
        weight_decay: float. As in `AdamW`. Defaults to 0.05.
        momentum: float. Nesterov momentum of the matrices. Defaults to 0.95.
        name: str. Defaults to "muon".
        **kwargs: As in `AdamW`.

    References:
        Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024.
        Liu et al., "Muon is Scalable for LLM Training", arXiv 2502.16982 (the scale of a step).
    """

    def __init__(
        self,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule = 4e-3,
        weight_decay: float = 0.05,
        momentum: float = 0.95,
        name: str = "muon",
        **kwargs: Any,
    ) -> None:
        super().__init__(learning_rate, weight_decay, name=name, **kwargs)
        self.momentum = momentum

    def _has_adam_step(self, index: int) -> bool:
        return not _MATRICES.search(self._trainable_variables[index].path)

    def _move(
        self,
        variable: Any,
        gradient: Any,
        index: int,
        rate: Any,
        step_size: Any,
        epsilon: Any,
    ) -> None:
        if self._has_adam_step(index):
            super()._move(variable, gradient, index, rate, step_size, epsilon)
            return
        average = self._momentums[index]
        self.assign_sub(average, (average - gradient) * (1 - self.momentum))
        ahead = gradient + (average - gradient) * self.momentum
        outputs = variable.shape[-1]
        matrix = ops.reshape(ahead, (-1, outputs))
        scale = 0.2 * math.sqrt(max(matrix.shape[0], outputs))
        step = ops.reshape(orthogonal(matrix), variable.shape)
        self.assign_sub(variable, step * ops.cast(rate * scale, variable.dtype))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "momentum": self.momentum}


def orthogonal(matrix: Any) -> Any:
    """Maps the singular values of a matrix to about 0.7..1.2, except for the smallest ones.

    Singular values below a hundredth of the matrix's norm are increased, but not as far.

    Args:
        matrix: tensor (M, N).

    Returns:
        A tensor (M, N).
    """
    a, b, c = _QUINTIC
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = ops.transpose(matrix) if is_tall else matrix  # for the smaller Gram matrix
    x = x / (ops.sqrt(ops.sum(ops.square(x))) + 1e-7)
    for _ in range(5):
        gram = ops.matmul(x, ops.transpose(x))
        x = a * x + ops.matmul(b * gram + c * ops.matmul(gram, gram), x)
    return ops.transpose(x) if is_tall else x
