"""Which arithmetic computes a block: the one place that looks at backend, device and mode.

The plain arithmetic is `Block.branch`, in Keras' operations. Others give the same numbers faster:

| backend on a CPU      | training                            | inference              |
|-----------------------|-------------------------------------|------------------------|
| TensorFlow, in a graph | `tensorflow_cpu.branch`            | plain                  |
| TensorFlow, eager     | `tensorflow_cpu.branch`, compiled   | plain, compiled        |
| JAX                   | `jax_cpu.branch`                    | `jax_cpu.branch`       |
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import keras

if TYPE_CHECKING:
    from keras_convnext.block import Block


def branch_of(block: "Block", inputs: Any, training: bool | None) -> Callable[[Any], Any]:
    """Chooses how to compute the residual branch of a block.

    Args:
        block: Block.
        inputs: tensor of shape `(N, H, W, dim)`, what the branch is going to be computed of.
        training: bool or None.

    Returns:
        A function from `inputs` to the branch, of the same shape.
    """
    dense = block.pwconv1, block.pwconv2
    is_quantized = any(layer.quantization_mode for layer in dense)
    if tensorflow_on_cpu() and _is_float32(inputs) and not is_quantized:
        from keras_convnext import tensorflow_cpu

        arithmetic = tensorflow_cpu.branch if training else type(block).branch
        # What is compiled holds the weights as they were, of one device and without LoRA, and
        # keras.remat finds no weights in it to give gradients to.
        has_lora = any(layer.lora_enabled for layer in dense)
        has_remat = (block.remat and training) or is_recomputed()
        if _is_eager() and not (has_lora or has_remat or _has_strategy()):
            return tensorflow_cpu.compiled(arithmetic, block)
        return partial(arithmetic, block)
    if jax_on_cpu():
        from keras_convnext import jax_cpu

        return partial(jax_cpu.branch, block)
    return block.branch


def trains_on_cpu(inputs: Any, training: bool | None) -> bool:
    """Whether `tensorflow_cpu` computes a norm or a convolution: `fit` in float32."""
    return bool(training) and tensorflow_on_cpu() and _is_float32(inputs) and not _is_eager()


def is_recomputed() -> bool:
    """Whether what is computed now is computed twice, by Keras' rematerialization.

    TensorFlow stops all tapes for the first time, and PyTorch comes from a backward pass for the
    second. JAX computes once, and repeats what it has written down.
    """
    if keras.config.backend() == "tensorflow":
        from tensorflow.python import pywrap_tfe  # nothing public tells

        return pywrap_tfe.TFE_Py_TapeSetIsStopped()
    if keras.config.backend() == "torch":
        import torch

        return torch._C._current_graph_task_id() != -1
    return False


def tensorflow_on_cpu() -> bool:
    """Whether TensorFlow is the backend and sees only CPUs."""
    if keras.config.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return all(device.device_type == "CPU" for device in tf.config.list_physical_devices())


def jax_on_cpu() -> bool:
    """Whether JAX is the backend and computes on a CPU by default."""
    if keras.config.backend() != "jax":
        return False
    import jax

    return jax.default_backend() == "cpu"


def _is_float32(tensor: Any) -> bool:
    return keras.backend.standardize_dtype(tensor.dtype) == "float32"


def _is_eager() -> bool:
    """Whether TensorFlow computes at once, outside of a graph."""
    import tensorflow as tf

    return tf.executing_eagerly()


def _has_strategy() -> bool:
    """Whether TensorFlow may hold a copy of each weight for each device."""
    import tensorflow as tf

    return tf.distribute.has_strategy()
