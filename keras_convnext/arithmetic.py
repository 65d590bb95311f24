"""Which arithmetic computes a layer: the one place that looks at backend, device and mode.

A layer's plain arithmetic is in Keras' operations. On a CPU others give the same numbers faster:

| backend                | training                   | inference       |
|------------------------|----------------------------|-----------------|
| TensorFlow, in a graph | `tensorflow_cpu`           | plain           |
| TensorFlow, eager      | `tensorflow_cpu`, compiled | plain, compiled |
| JAX                    | `jax_cpu`                  | `jax_cpu`       |
"""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import keras

if TYPE_CHECKING:
    from keras_convnext.block import Block


def residual_of(block: "Block", inputs: Any, training: bool | None) -> Callable[..., Any]:
    """Chooses how to compute a block, but for the draw of drop path.

    Args:
        block: Block.
        inputs: tensor of shape `(N, H, W, dim)`, what is going to be computed with.
        training: bool or None.

    Returns:
        A function of the arguments of `Block.residual`.
    """
    if jax_on_cpu():
        from keras_convnext import jax_cpu

        return partial(jax_cpu.residual, block)
    dense = block.pwconv1, block.pwconv2
    is_quantized = any(layer.quantization_mode for layer in dense)
    if is_quantized or (training and not block.is_plain):
        return block.residual
    # LoRA may be enabled after the first call, and would not be in what that one compiled; and
    # keras.remat finds no weights in it to give gradients to.
    has_lora = any(layer.lora_enabled for layer in dense)
    may_compile = not has_lora and not (block.remat and training)
    return arithmetic_of(block, "residual", inputs, training, may_compile)


def arithmetic_of(
    layer: keras.layers.Layer,
    name: str,
    inputs: Any,
    training: bool | None,
    may_compile: bool = True,
) -> Callable[..., Any]:
    """Chooses between a method of a layer and the function of that name in `tensorflow_cpu`.

    Args:
        layer: keras.layers.Layer. Built.
        name: str. Of the method, and of the function for training, which takes the layer first.
        inputs: tensor, what is going to be computed with.
        training: bool or None.
        may_compile: bool. Whether an eager call may be compiled, and the function kept. Defaults to
            True.

    Returns:
        A function of the arguments of the method.
    """
    if not tensorflow_on_cpu() or keras.backend.standardize_dtype(inputs.dtype) != "float32":
        return getattr(layer, name)
    import tensorflow as tf

    from keras_convnext import tensorflow_cpu

    function = getattr(tensorflow_cpu if training else type(layer), name)
    # Under a strategy each device has weights of its own, and what is compiled holds those of one.
    may_compile = may_compile and not tf.distribute.has_strategy() and not is_recomputed()
    if may_compile and tf.executing_eagerly():
        return partial(tensorflow_cpu.call_compiled, function, layer)
    return partial(function, layer)


def remat(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Wraps a function of one tensor so that its gradient computes it again: `keras.remat`."""
    if jax_on_cpu():
        from keras_convnext import jax_cpu

        return jax_cpu.remat(function)
    return keras.remat(function)


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
