"""Writes a network as a LiteRT (TensorFlow Lite) file."""

import io
import math
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from functools import singledispatchmethod
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_convnext.block import Block
from keras_convnext.call_graph import call_at_inference
from keras_convnext.export.inference import InferenceLayerNormalization, LargestChannel
from keras_convnext.export.served import follow
from keras_convnext.layers import GlobalResponseNormalization, PatchConv2D

SIGNATURE = "serving_default"

# The largest number of taps of XNNPACK's depthwise kernels. Larger kernels, such as 7 x 7, run as a
# convolution with C groups, which took a third of the time of ConvNeXt-T in float32 for a fortieth
# of the multiplications, and nearly two thirds in int8.
_MOST_TAPS = 25

_PLAIN = (
    Block,
    InferenceLayerNormalization,
    PatchConv2D,
    keras.layers.Activation,
    keras.layers.Dense,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.GlobalMaxPooling2D,
    keras.layers.InputLayer,
    keras.layers.Rescaling,
    keras.layers.Softmax,
)


def write_litert(
    network: keras.Model,
    path: Path,
    pixels: str = "float32",
    dtype: str = "float32",
    samples: Iterable[np.ndarray] = (),
) -> None:
    """Writes a network as a `.tflite` file with the signature `serving_default`.

    Args:
        network: keras.Model. As returned by `served_network`.
        path: path. Output file.
        pixels: str. Type of the input, "float32" or "uint8". Defaults to "float32".
        dtype: str. "float32"; "float16" for weights of half the size; "int8" for convolutions in
            integers, calibrated on `samples`. Defaults to "float32".
        samples: iterable of arrays (N, H, W, 3). Pixels of images, only needed for "int8".

    Raises:
        ValueError: If LiteRT lacks an operation of the network; the message names it.
    """
    writer = _Writer(network)

    @tf.function(
        input_signature=[tf.TensorSpec(network.input.shape, pixels, name="pixels")], autograph=False
    )
    def serve(x: tf.Tensor) -> dict[str, tf.Tensor]:
        return follow(network, tf.cast(x, tf.float32), writer.write)

    module = tf.Module()
    if not writer.is_plain:  # other layers use their own variables
        module.held = [weight.value for weight in network.weights]
    with _expanded_axes():
        traced = serve.get_concrete_function()
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced], module)
    if dtype == "float16":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]
    file = bytearray(_converted(converter))
    _fill(file, writer.weights)
    path.write_bytes(file)
    if dtype == "int8":
        _quantize(path, samples)


@contextmanager
def _expanded_axes() -> Iterator[None]:
    """Makes `x[:, None]` an `ExpandDims`: LiteRT cannot slice so where shapes are dynamic."""
    original = tf.Tensor.__getitem__

    def sliced(x: tf.Tensor, key: Any) -> tf.Tensor:
        keys = key if isinstance(key, tuple) else (key,)
        if all(each is not None for each in keys):
            return original(x, key)
        taken = sum(each is not None and each is not Ellipsis for each in keys)
        whole: list[Any] = []
        for each in keys:
            whole += [slice(None)] * (x.shape.rank - taken) if each is Ellipsis else [each]
        x = original(x, tuple(each for each in whole if each is not None))
        kept = [each for each in whole if each is None or isinstance(each, slice)]
        for axis, each in enumerate(kept):
            if each is None:
                x = tf.expand_dims(x, axis)
        return x

    tf.Tensor.__getitem__ = sliced
    try:
        yield
    finally:
        tf.Tensor.__getitem__ = original


def _converted(converter: tf.lite.TFLiteConverter) -> bytes:
    try:
        return converter.convert()
    except Exception as error:  # its class is private
        lacking = sorted(set(re.findall(r"'(tf\.\w+)' op is neither", str(error))))
        if not lacking:
            raise
        raise ValueError(
            "LiteRT cannot run all operations of this network: export to saved_model, onnx or "
            f"openvino. Received: {', '.join(lacking)} on tensors of dynamic shape"
        ) from error


class _Writer:
    """Rebuilds layers from operations that LiteRT supports natively.

    Each weight is replaced by a constant filled with the weight's number, which takes no memory:
    the converter keeps over thirty copies of real weights. `_fill` inserts the weights afterwards.
    Matrix products are 1 x 1 convolutions: flattening a map with a dynamic batch size would create
    dynamic shapes, which no delegate supports.

    Args:
        network: keras.Model. As returned by `served_network`.

    Attributes:
        weights: list of arrays. The first has the number `FIRST`.
    """

    FIRST = 2  # the converter removes products with 1; float16 represents all integers to 2048

    def __init__(self, network: keras.Model) -> None:
        # The converter would fold other layers into the weights of a head.
        self.is_plain = all(isinstance(layer, _PLAIN) for layer in network.layers)
        self.weights: list[np.ndarray] = []
        self._norms: dict[Any, tuple[tf.Tensor, InferenceLayerNormalization]] = {}

    def _constant(self, weight: Any, *ones: int) -> tf.Tensor:
        if math.prod(weight.shape) == 1:  # `_fill` would take any scalar for its placeholder
            return tf.constant(_array(weight).reshape(*ones, *weight.shape))
        self.weights.append(_array(weight).reshape(*ones, *weight.shape))
        number = self.FIRST + len(self.weights) - 1
        return tf.constant(float(number), tf.float32, self.weights[-1].shape)

    @singledispatchmethod
    def write(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        return call_at_inference(layer, *args, **kwargs)

    @write.register
    def _(self, layer: PatchConv2D, x: Any) -> Any:
        if layer.overlap is None:
            x = tf.nn.conv2d(x, self._constant(layer.kernel), layer.patch_size, "VALID")
            return x + self._constant(layer.bias)
        border = [[0, 0], [1, 1], [1, 1], [0, 0]]
        for kernel, bias in ((layer.kernel, layer.bias), (layer.kernel_2, layer.bias_2)):
            x = tf.nn.conv2d(tf.pad(x, border), self._constant(kernel), 2, "VALID")
            x = x + self._constant(bias)
        return x

    @write.register
    def _(self, block: Block, x: Any) -> Any:
        branch = self._depthwise(block.dwconv, x)
        branch = self.write(block.norm, branch)
        branch = tf.nn.gelu(self._product(block.pwconv1, branch))
        if block.grn is not None:
            branch = self.write(block.grn, branch)
        return x + self._product(block.pwconv2, branch)

    @write.register
    def _(self, layer: GlobalResponseNormalization, x: Any) -> Any:
        norms = tf.sqrt(tf.reduce_sum(tf.square(x), (1, 2), keepdims=True))  # (N, 1, 1, 4C)
        shares = norms / (tf.reduce_mean(norms, -1, keepdims=True) + layer.epsilon)
        x = x + x * (shares * self._constant(layer.gamma))
        return x if layer.beta is None else x + self._constant(layer.beta)

    def _depthwise(self, layer: keras.layers.DepthwiseConv2D, x: Any) -> Any:
        """Splits a large kernel into a sum of convolutions with some of its rows each."""
        total = self._constant(layer.bias)
        for rows, dilation in _shared_rows(_array(layer.kernel), x.shape[1]):
            total += tf.raw_ops.DepthwiseConv2dNative(
                input=x,
                filter=self._constant(rows),
                strides=[1, 1, 1, 1],
                padding="SAME",
                dilations=[1, dilation, 1, 1],
            )
        return total

    def _product(self, layer: keras.layers.Dense, x: Any) -> Any:
        x = tf.nn.conv2d(x, self._constant(layer.kernel, 1, 1), 1, "VALID")
        return x + self._constant(layer.bias)

    @write.register
    def _(self, layer: keras.layers.Dense, x: Any) -> Any:
        kernel = _array(layer.kernel)
        bias = np.zeros(layer.units, "float32") if layer.bias is None else _array(layer.bias)
        if x.ref() in self._norms:  # or the converter would fold the placeholder numbers
            x, norm = self._norms[x.ref()]
            bias = bias + _array(norm.beta) @ kernel
            kernel = _array(norm.gamma)[:, None] * kernel
        if not self.is_plain:
            return layer.activation(x @ tf.constant(kernel) + tf.constant(bias))
        return layer.activation(x @ self._constant(kernel) + self._constant(bias))

    @write.register
    def _(self, layer: LargestChannel, x: Any) -> Any:
        return tf.argmax(x, -1, tf.int32)  # Keras' has an operation that LiteRT lacks

    @write.register
    def _(self, layer: InferenceLayerNormalization, x: Any) -> Any:
        x = x - tf.reduce_mean(x, -1, keepdims=True)
        x = x * tf.math.rsqrt(tf.reduce_mean(tf.square(x), -1, keepdims=True) + layer.epsilon)
        if not (layer.scale and layer.center):
            return x if not layer.scale else x * self._constant(layer.gamma)
        scaled = x * self._constant(layer.gamma) + self._constant(layer.beta)
        self._norms[scaled.ref()] = x, layer
        return scaled


def _shared_rows(kernel: np.ndarray, height: int | None) -> Iterator[tuple[np.ndarray, int]]:
    """Distributes the rows of a kernel over kernels of at most `_MOST_TAPS` taps.

    Args:
        kernel: array of shape (size, size, C, 1).
        height: int or None. Height of the feature map, None if it is dynamic. If all rows but one
            may lie outside the map, XNNPACK frees memory twice, so such a kernel is not split.

    Yields:
        A kernel, whose rows are symmetric about the middle row, and its vertical dilation.
    """
    size = len(kernel)
    middle = size // 2
    if size**2 <= _MOST_TAPS or 3 * size > _MOST_TAPS or height is None or height <= middle:
        yield kernel, 1
        return
    yield kernel[middle - 1 : middle + 2], 1
    for distance in range(2, middle + 1):
        yield kernel[[middle - distance, middle + distance]], 2 * distance


def _array(weight: Any) -> np.ndarray:
    with tf.init_scope():  # outside of the graph that is being traced
        return np.asarray(weight)


def _fill(file: bytearray, weights: Sequence[np.ndarray]) -> None:
    """Replaces the placeholder constants in a LiteRT file by the weights."""
    from ai_edge_litert import schema_py_generated as schema

    found = schema.Model.GetRootAsModel(file, 0)
    graph = found.Subgraphs(0)
    waiting = {float(number): weight for number, weight in enumerate(weights, _Writer.FIRST)}
    dtypes = {schema.TensorType.FLOAT32: np.float32, schema.TensorType.FLOAT16: np.float16}
    for tensor in map(graph.Tensors, range(graph.TensorsLength())):
        buffer = found.Buffers(tensor.Buffer())
        if not buffer.DataLength() or tensor.Type() not in dtypes:
            continue
        values = buffer.DataAsNumpy().view(dtypes[tensor.Type()])
        number = float(values[0])
        if number not in waiting or len(values) < 2 or (values != number).any():
            continue
        # In LiteRT the output channels are the first axis of a kernel.
        weight = np.moveaxis(waiting.pop(number), -1, 0)
        if list(tensor.ShapeAsNumpy()) != list(weight.shape):
            raise RuntimeError(
                f"LiteRT's converter changed the shape of a weight. Received: "
                f"{tuple(tensor.ShapeAsNumpy())} for {weight.shape}"
            )
        values[:] = weight.ravel()
    if waiting:
        shapes = ", ".join(str(weight.shape) for weight in waiting.values())
        raise RuntimeError(f"LiteRT's converter removed weights. Missing: shapes {shapes}")


def _quantize(path: Path, samples: Iterable[np.ndarray]) -> None:
    """Quantizes the convolutions and products of a LiteRT file."""
    from ai_edge_quantizer import qtyping, quantizer

    made = quantizer.Quantizer(str(path))
    operations = qtyping.TFLOperationName
    # The norms stay in float32, as 256 levels are too few for the mean of squares. So do the
    # activations of the head: the quantizer would lose the logits, an output with a consumer.
    for operation in (operations.CONV_2D, operations.DEPTHWISE_CONV_2D):
        made.add_static_config(".*", operation, activation_num_bits=8, weight_num_bits=8)
    made.add_dynamic_config(".*", operations.FULLY_CONNECTED, num_bits=8)
    with _quiet():
        ranges = made.calibrate({SIGNATURE: [{"pixels": sample} for sample in samples]})
        path.unlink()
        made.quantize(ranges).export_model(str(path))


@contextmanager
def _quiet() -> Iterator[None]:
    """Hides the progress bars, tables and warnings of the quantizer."""
    with (
        warnings.catch_warnings(),
        redirect_stdout(io.StringIO()),
        redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield
