"""Writes a network as an ONNX graph, layer by layer.

Feature maps are channels-last between layers, as in Keras. ONNX convolutions are channels-first,
with transposes around them. These cost nothing in runtimes that reorder to blocked layouts anyway.
Pointwise layers are matrix products, which every runtime fuses with bias and GELU.
"""

from functools import singledispatchmethod
from typing import Any

import keras
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from keras_convnext.block import Block
from keras_convnext.export.inference import InferenceLayerNormalization, LargestChannel
from keras_convnext.export.onnx_maps import TO_CHANNELS_FIRST, TO_CHANNELS_LAST, write_maps
from keras_convnext.export.served import follow
from keras_convnext.feature_maps import PoolToGrid, PyramidConv2D, ResizeLike
from keras_convnext.layers import DropPath, GlobalResponseNormalization, PatchConv2D
from keras_convnext.printable import printable

OPSET = 20  # the first opset with Gelu
_ACTIVATIONS = {
    "linear": "Identity", "softmax": "Softmax", "sigmoid": "Sigmoid", "relu": "Relu",
    "gelu": "Gelu", "tanh": "Tanh",
}  # fmt: skip
_KINDS = {"float32": TensorProto.FLOAT, "int32": TensorProto.INT32}
_STORED = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
}


def onnx_graph(
    network: keras.Model,
    pixels: str = "float32",
    dtype: str = "float32",
    writer: "type[Writer] | None" = None,
) -> onnx.ModelProto:
    """Converts a network to ONNX.

    Args:
        network: keras.Model. As returned by `served_network`.
        pixels: str. Type of the input, "float32" or "uint8". Defaults to "float32".
        dtype: str. Type of the stored weights, "float32", "float16" or "bfloat16". The graph
            computes in float32. Defaults to "float32".
        writer: type or None. What writes the layers. Defaults to None, for `Writer`.

    Returns:
        An onnx.ModelProto, validated by the ONNX checker.

    Raises:
        ValueError: If the model contains an unsupported layer or activation.
    """
    return (writer or Writer)(dtype).model(network, pixels)


class Writer:
    """Writes the layers of classifiers and segmenters.

    Args:
        dtype: str. Type of the stored weights.
    """

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype
        self.reserved: set[str] = set()  # names of the graph's input and outputs
        self.scope = ""  # prefix of names, for the layers of a block
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def model(self, network: keras.Model, pixels: str) -> onnx.ModelProto:
        """Converts a network, as `onnx_graph` does."""
        x = "pixels"
        self.reserved = {x, *network.output}
        if pixels != "float32":
            x = self.node("Cast", [x], "pixels_float32", to=TensorProto.FLOAT)
        outputs = []
        for name, last in follow(network, x, self.write).items():
            self.nodes.append(helper.make_node("Identity", [last], [name], name=name))
            made = network.output[name]
            outputs.append(_value(name, _KINDS[made.dtype], made.shape))
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(pixels))
        inputs = [_value("pixels", kind, network.input.shape)]
        graph = helper.make_graph(self.nodes, network.name, inputs, outputs, self.weights)
        made = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=9,  # matches the opset
            producer_name="keras_convnext",
        )
        onnx.checker.check_model(made, full_check=True)
        return made

    def node(self, operation: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Adds a node with one output of the same name, or with `_layer` if the graph has that."""
        name = f"{name}_layer" if name in self.reserved else name
        self.nodes.append(helper.make_node(operation, inputs, [name], name=name, **attributes))
        return name

    def constant(self, name: str, values: Any) -> str:
        """Adds a constant without conversion."""
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def weight(self, name: str, values: np.ndarray) -> str:
        """Adds weights, stored in the dtype of the file and cast to float32."""
        values = np.ascontiguousarray(values, "float32")
        if self.dtype == "float32":
            return self.constant(name, values)
        kind = _STORED[self.dtype]
        kept = values.astype(helper.tensor_dtype_to_np_dtype(kind))
        self.weights.append(numpy_helper.from_array(kept, f"{name}_{self.dtype}"))
        return self.node("Cast", [f"{name}_{self.dtype}"], name, to=TensorProto.FLOAT)

    @singledispatchmethod
    def write(self, layer: Any, *args: Any, **kwargs: Any) -> str:
        """Adds the nodes of a layer, and returns the name of its output."""
        raise _unsupported(layer)

    @write.register
    def _(self, block: Block, x: str) -> str:
        self.scope = f"{block.name}/"
        mixed = self.write(block.norm, self.write(block.dwconv, x))
        wide = self.node("Gelu", [self.product(block.pwconv1, mixed)], f"{self.scope}gelu")
        if block.grn is not None:
            wide = self.write(block.grn, wide)
        branch = self.product(block.pwconv2, wide)
        self.scope = ""
        return self.node("Add", [x, branch], block.name)

    @write.register(keras.layers.Conv2D)
    @write.register(keras.layers.DepthwiseConv2D)
    def _(self, layer: Any, x: str) -> str:
        if getattr(layer, "overlap", None) is not None:
            return self.overlapping(layer, x)
        name = self.scope + layer.name
        _check_is_plain(layer)
        kernel, *bias = layer.get_weights()
        grouped = isinstance(layer, keras.layers.DepthwiseConv2D)
        kernel = kernel.transpose((2, 3, 0, 1) if grouped else (3, 2, 0, 1))
        side = kernel.shape[-1]
        x = self.node("Transpose", [x], f"{name}_in", perm=TO_CHANNELS_FIRST)
        x = self.node(
            "Conv",
            [x, self.weight(f"{name}_kernel", kernel), *self._bias(name, bias)],
            f"{name}_conv",
            kernel_shape=[side, side],
            strides=list(layer.strides),
            pads=[(side - 1) // 2] * 4 if layer.padding == "same" else [0] * 4,
            group=len(kernel) if grouped else 1,
        )
        return self.node("Transpose", [x], name, perm=TO_CHANNELS_LAST)

    def overlapping(self, layer: PatchConv2D, x: str) -> str:
        """Adds the two convolutions of a stem whose patches overlap."""
        x = self.node("Transpose", [x], f"{layer.name}_in", perm=TO_CHANNELS_FIRST)
        weights = layer.get_weights()
        for number, (kernel, bias) in enumerate((weights[:2], weights[2:])):
            name = f"{layer.name}_{number}"
            x = self.node(
                "Conv",
                [x, self.weight(f"{name}_kernel", kernel.transpose(3, 2, 0, 1)),
                 *self._bias(name, [bias])],
                f"{name}_conv", kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4,
            )  # fmt: skip
        return self.node("Transpose", [x], layer.name, perm=TO_CHANNELS_LAST)

    @write.register
    def _(self, layer: keras.layers.ZeroPadding2D, x: str) -> str:
        (top, bottom), (left, right) = layer.padding
        pads = np.array([0, top, left, 0, 0, bottom, right, 0], "int64")
        return self.node("Pad", [x, self.constant(f"{layer.name}_pads", pads)], layer.name)

    @write.register
    def _(self, layer: keras.layers.MaxPooling2D, x: str) -> str:
        if layer.padding != "valid":
            raise _unsupported(layer)
        sides, strides = list(layer.pool_size), list(layer.strides)
        x = self.node("Transpose", [x], f"{layer.name}_in", perm=TO_CHANNELS_FIRST)
        x = self.node("MaxPool", [x], f"{layer.name}_max", kernel_shape=sides, strides=strides)
        return self.node("Transpose", [x], layer.name, perm=TO_CHANNELS_LAST)

    @write.register
    def _(self, layer: DropPath, x: str) -> str:
        return x

    @write.register
    def _(self, layer: InferenceLayerNormalization, x: str) -> str:
        name = self.scope + layer.name
        weights = layer.get_weights()
        # gamma is required in ONNX
        gamma = weights.pop(0) if layer.scale else np.ones(layer.channels or 0)
        scale = self.weight(f"{name}_gamma", gamma)
        return self.node(
            "LayerNormalization",
            [x, scale, *self._bias(name, weights)],
            name,
            axis=-1,
            epsilon=layer.epsilon,
        )

    @write.register
    def _(self, layer: GlobalResponseNormalization, x: str) -> str:
        name = self.scope + layer.name
        gamma, *beta = layer.get_weights()
        places, channels = (
            self.constant(f"{name}_{axes}_axes", np.array(values, "int64"))
            for axes, values in (("map", [1, 2]), ("channel", [3]))
        )
        epsilon, one = (
            self.constant(f"{name}_{what}", np.float32(value))
            for what, value in (("epsilon", layer.epsilon), ("one", 1))
        )
        norms = self.node("ReduceL2", [x, places], f"{name}_norms")  # (N, 1, 1, 4C)
        mean = self.node("ReduceMean", [norms, channels], f"{name}_mean")
        divisor = self.node("Add", [mean, epsilon], f"{name}_divisor")
        shares = self.node("Div", [norms, divisor], f"{name}_shares")
        added = self.node("Mul", [shares, self.weight(f"{name}_gamma", gamma)], f"{name}_added")
        scale = self.node("Add", [added, one], f"{name}_scale")
        x = self.node("Mul", [x, scale], f"{name}_product" if beta else name)
        return self.node("Add", [x, *self._bias(name, beta)], name) if beta else x

    def product(self, layer: keras.layers.Dense, x: str) -> str:
        """Adds a dense layer over the last axis of a feature map."""
        name = self.scope + layer.name
        kernel, bias = layer.get_weights()
        x = self.node("MatMul", [x, self.weight(f"{name}_kernel", kernel)], f"{name}_product")
        return self.node("Add", [x, *self._bias(name, [bias])], name)

    @write.register
    def _(self, layer: keras.layers.Dense, x: str) -> str:
        kernel, *bias = layer.get_weights()
        weights = self.weight(f"{layer.name}_kernel", kernel)
        x = self.node("Gemm", [x, weights, *self._bias(layer.name, bias)], f"{layer.name}_product")
        return self._activated(layer, x)

    @write.register
    def _(self, layer: keras.layers.Rescaling, x: str) -> str:
        scale, offset = (np.asarray(value, "float32") for value in (layer.scale, layer.offset))
        return self._scaled(layer.name, x, scale, offset)

    @write.register
    def _(self, layer: keras.layers.BatchNormalization, x: str) -> str:
        *weights, mean, variance = layer.get_weights()
        scale = (weights.pop(0) if layer.scale else 1) / np.sqrt(variance + layer.epsilon)
        shift = weights[0] if layer.center else 0
        return self._scaled(layer.name, x, scale, shift - mean * scale)

    def _scaled(self, name: str, x: str, scale: np.ndarray, offset: np.ndarray) -> str:
        x = self.node("Mul", [x, self.weight(f"{name}_scale", scale)], f"{name}_product")
        return self.node("Add", [x, self.weight(f"{name}_offset", offset)], name)

    @write.register(keras.layers.GlobalAveragePooling2D)
    @write.register(keras.layers.GlobalMaxPooling2D)
    def _(self, layer: Any, x: str) -> str:
        is_mean = isinstance(layer, keras.layers.GlobalAveragePooling2D)
        axes = self.constant(f"{layer.name}_axes", np.array([1, 2], "int64"))
        operation = "ReduceMean" if is_mean else "ReduceMax"
        return self.node(operation, [x, axes], layer.name, keepdims=int(layer.keepdims))

    @write.register(keras.layers.Add)
    @write.register(keras.layers.Concatenate)
    def _(self, layer: Any, x: list[str]) -> str:
        if isinstance(layer, keras.layers.Add):
            return self.node("Sum", x, layer.name)
        return self.node("Concat", x, layer.name, axis=layer.axis)

    @write.register(keras.layers.Activation)
    @write.register(keras.layers.Softmax)
    @write.register(keras.layers.ReLU)
    def _(self, layer: Any, x: str) -> str:
        return self._activated(layer, x)

    @write.register(PoolToGrid)
    @write.register(PyramidConv2D)
    @write.register(ResizeLike)
    def _(self, layer: Any, *inputs: Any) -> str:
        return write_maps(layer, self, *inputs)

    @write.register
    def _(self, layer: LargestChannel, x: str) -> str:
        x = self.node("ArgMax", [x], f"{layer.name}_largest", axis=-1, keepdims=0)
        return self.node("Cast", [x], f"{layer.name}_channels", to=TensorProto.INT32)

    def _activated(self, layer: Any, x: str) -> str:
        plain = {keras.layers.Softmax: "softmax", keras.layers.ReLU: "relu"}.get(type(layer))
        activation = plain or keras.activations.serialize(layer.activation)
        if not isinstance(activation, str) or activation not in _ACTIVATIONS:
            raise ValueError(
                f"The activation must be one of {', '.join(_ACTIVATIONS)}. Export to saved_model "
                f"or litert, or use one of these. Received: {printable(layer.name)} with "
                f"{printable(activation)}"
            )
        return self.node(_ACTIVATIONS[activation], [x], layer.name)

    def _bias(self, name: str, values: list[np.ndarray]) -> list[str]:
        return [self.weight(f"{name}_bias", value) for value in values]


def _unsupported(layer: keras.layers.Layer) -> ValueError:
    return ValueError(
        "ONNX and OpenVINO export supports the layers of this package and common heads. "
        "Export to saved_model or litert, or replace the layer. "
        f"Received: {printable(layer.name)}, a {type(layer).__name__}"
    )


def _check_is_plain(layer: Any) -> None:
    """Refuses convolutions that no network of this package contains.

    Raises:
        ValueError: If a kernel is not square, dilated or grouped, is followed by an activation, or
            pads the sides differently.
    """
    side, *others = layer.kernel_size
    pads_equally = layer.padding == "valid" or (side % 2 == 1 and tuple(layer.strides) == (1, 1))
    if not (
        others == [side]
        and pads_equally
        and layer.activation is keras.activations.linear
        and tuple(layer.dilation_rate) == (1, 1)
        and getattr(layer, "groups", 1) == getattr(layer, "depth_multiplier", 1) == 1
    ):
        raise _unsupported(layer)


def _value(name: str, kind: int, shape: tuple[int | None, ...]) -> onnx.ValueInfoProto:
    sides = ("batch", f"{name}_height", f"{name}_width")
    named = [side or sides[axis] for axis, side in enumerate(shape)]
    return helper.make_tensor_value_info(name, kind, named)
