"""What the layers see of the backend: where it is to run, and what made a tensor of a graph."""

from typing import Any

import keras


def tensorflow_on_cpu() -> bool:
    """Whether TensorFlow computes, and has nothing but CPUs."""
    if keras.config.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return all(device.device_type == "CPU" for device in tf.config.list_physical_devices())


def jax_on_cpu() -> bool:
    """Whether JAX computes, on a CPU unless it is told otherwise."""
    if keras.config.backend() != "jax":
        return False
    import jax

    return jax.default_backend() == "cpu"


def trains_on_cpu(inputs: Any, training: bool | None) -> bool:
    """Whether the operations of `tensorflow_cpu` are in place: `fit` and its like, in float32."""
    return (
        bool(training)
        and tensorflow_on_cpu()
        and keras.backend.standardize_dtype(inputs.dtype) == "float32"
        and is_symbolic(inputs)
    )


def runs_eagerly_on_cpu(inputs: Any) -> bool:
    """Whether TensorFlow computes step by step, on a CPU and in float32: `model(x)`."""
    return (
        tensorflow_on_cpu()
        and keras.backend.standardize_dtype(inputs.dtype) == "float32"
        and not isinstance(inputs, keras.KerasTensor)
        and not is_symbolic(inputs)
    )


def is_symbolic(tensor: Any) -> bool:
    """Whether a tensor belongs to a TensorFlow graph."""
    if keras.config.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return tf.is_symbolic_tensor(tensor)


def made(output: Any, layer: keras.layers.Layer, inputs: Any) -> Any:
    """Notes on a tensor of a graph what made it, as Keras notes its mask on it."""
    if is_symbolic(output):
        output._keras_convnext_maker = (layer, inputs)
    return output


def makers(output: Any, first: type) -> tuple[list[keras.layers.Layer], Any] | None:
    """The layers that made a tensor, one after the other, and what the first of them took.

    Args:
        output: tensor.
        first: The type of the layer to go back to.

    Returns:
        A list of layers and a tensor, or None if there is no such layer on the way.
    """
    layers = []
    while maker := getattr(output, "_keras_convnext_maker", None):
        layer, output = maker
        layers.insert(0, layer)
        if type(layer) is first:
            return layers, output
    return None
