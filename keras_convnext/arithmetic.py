"""The one place that selects the implementation of a layer by backend, device and mode.

The plain implementation of a layer uses Keras operations. On a CPU these are faster, with the same
results:

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
    """Selects the implementation of `Block.residual`.

    Args:
        block: Block.
        inputs: tensor of shape `(N, H, W, dim)`. Input of the block.
        training: bool or None.

    Returns:
        A function with the arguments of `Block.residual`.
    """
    if jax_on_cpu():
        from keras_convnext import jax_cpu

        return partial(jax_cpu.residual, block)
    dense = block.pwconv1, block.pwconv2
    is_quantized = any(layer.quantization_mode for layer in dense)
    if is_quantized or (training and not block.is_plain):
        return block.residual
    # A compiled function would miss LoRA that is enabled after the first call, and hides its
    # weights from keras.remat, which would compute no gradients for them.
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
    """Selects between a method of a layer and the function of the same name in `tensorflow_cpu`.

    Args:
        layer: keras.layers.Layer. Built.
        name: str. Name of the method, and of the function for training, whose first argument is the
            layer.
        inputs: tensor. Input of the layer.
        training: bool or None.
        may_compile: bool. Whether eager calls may be compiled and cached. Defaults to True.

    Returns:
        A function with the arguments of the method.
    """
    if not tensorflow_on_cpu() or keras.backend.standardize_dtype(inputs.dtype) != "float32":
        return getattr(layer, name)
    import tensorflow as tf

    from keras_convnext import tensorflow_cpu

    function = getattr(tensorflow_cpu if training else type(layer), name)
    # Under a strategy each device has its own weights, but a compiled function captures one set.
    may_compile = may_compile and not tf.distribute.has_strategy() and not is_recomputed()
    if may_compile and tf.executing_eagerly():
        return partial(tensorflow_cpu.call_compiled, function, layer)
    return partial(function, layer)


def remat(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Wraps a function of one tensor so that its gradient recomputes it, like `keras.remat`."""
    if jax_on_cpu():
        from keras_convnext import jax_cpu

        return jax_cpu.remat(function)
    return keras.remat(function)


def is_recomputed() -> bool:
    """Whether Keras' rematerialization runs the current computation twice.

    TensorFlow stops all tapes during the first run, and PyTorch is in a backward pass during the
    second. JAX runs Python code once and repeats the traced operations.
    """
    if keras.config.backend() == "tensorflow":
        from tensorflow.python import pywrap_tfe  # there is no public function

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
