"""A network as a LiteRT file (TensorFlow Lite)."""

import io
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import singledispatch
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_convnext.export.served import follow
from keras_convnext.layers import DepthwiseConv2D, PatchConv2D, PointwiseDense

SIGNATURE = "serving_default"


def write_litert(
    network: keras.Model,
    path: Path,
    pixels: str = "float32",
    dtype: str = "float32",
    samples: Iterable[np.ndarray] = (),
) -> None:
    """Writes a network as a `.tflite` file with the signature `serving_default`.

    Args:
        network: keras.Model. As `served_network` makes it.
        path: path. The file to write.
        pixels: str. What it takes, "float32" or "uint8". Defaults to "float32".
        dtype: str. "float32"; "float16" for weights kept in half the bytes; "int8" for products of
            integers, whose ranges are those seen on `samples`. Defaults to "float32".
        samples: iterable of arrays (N, H, W, 3), the pixels of images. Needed for "int8" alone.
    """
    shape = network.input.shape

    weights = {id(weight): weight.numpy() for weight in network.weights}

    @tf.function(input_signature=[tf.TensorSpec(shape, pixels, name="pixels")], autograph=False)
    def serve(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return follow(
            network,
            tf.cast(x, tf.float32),
            lambda layer, *inputs: _written(layer, weights, *inputs),
        )

    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [serve.get_concrete_function()], tf.Module()
    )
    if dtype == "float16":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    path.write_bytes(converter.convert())
    if dtype == "int8":
        _quantize(path, samples)


@singledispatch
def _written(layer: keras.layers.Layer, weights: dict[int, np.ndarray], *inputs: Any) -> Any:
    """What a layer does, in operations that LiteRT has one of its own for.

    Weights are constants, since a variable is read anew at each call; a product is a convolution of
    one pixel, since a map whose batch is open cannot become a matrix without open shapes, which no
    delegate takes.
    """
    return layer(inputs[0] if len(inputs) == 1 else list(inputs))


@_written.register
def _(layer: PatchConv2D, weights: dict[int, np.ndarray], x: Any) -> Any:
    kernel, bias = (weights[id(weight)] for weight in (layer.kernel, layer.bias))
    return tf.nn.conv2d(x, kernel, layer.patch_size, "VALID") + bias


@_written.register
def _(layer: DepthwiseConv2D, weights: dict[int, np.ndarray], x: Any) -> Any:
    kernel, bias = (weights[id(weight)] for weight in (layer.kernel, layer.bias))
    return tf.nn.depthwise_conv2d(x, kernel, (1, 1, 1, 1), "SAME") + bias


@_written.register
def _(layer: PointwiseDense, weights: dict[int, np.ndarray], x: Any) -> Any:
    kernel, bias = (weights[id(weight)] for weight in (layer.kernel, layer.bias))
    return layer.activation(tf.nn.conv2d(x, kernel[None, None], 1, "VALID") + bias)


@_written.register
def _(layer: keras.layers.Dense, weights: dict[int, np.ndarray], x: Any) -> Any:
    kernel, bias = (weights[id(weight)] for weight in (layer.kernel, layer.bias))
    return layer.activation(x @ kernel + bias)


@_written.register
def _(layer: keras.layers.LayerNormalization, weights: dict[int, np.ndarray], x: Any) -> Any:
    x = x - tf.reduce_mean(x, -1, keepdims=True)
    x = x * tf.math.rsqrt(tf.reduce_mean(tf.square(x), -1, keepdims=True) + layer.epsilon)
    if layer.scale:
        x = x * weights[id(layer.gamma)]
    return x + weights[id(layer.beta)] if layer.center else x


def _quantize(path: Path, samples: Iterable[np.ndarray]) -> None:
    """Turns the products of a LiteRT file into products of integers."""
    from ai_edge_quantizer import qtyping, quantizer

    made = quantizer.Quantizer(str(path))
    operations = qtyping.TFLOperationName
    # The norms stay in float32: the mean of their squares does not fit 256 steps. So does what the
    # head takes and gives, of which the quantizer would lose the logits, as an output that is used.
    for operation in (operations.CONV_2D, operations.DEPTHWISE_CONV_2D):
        made.add_static_config(".*", operation, activation_num_bits=8, weight_num_bits=8)
    made.add_dynamic_config(".*", operations.FULLY_CONNECTED, num_bits=8)
    with _quiet():
        ranges = made.calibrate({SIGNATURE: [{"pixels": sample} for sample in samples]})
        path.unlink()
        made.quantize(ranges).export_model(str(path))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the bars, tables and warnings of a quantizer to itself."""
    with (
        warnings.catch_warnings(),
        redirect_stdout(io.StringIO()),
        redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield
