"""Adds the nodes that the layers of detectors consist of to an ONNX graph."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import keras
import numpy as np
from onnx import TensorProto, helper

from keras_convnext.export.onnx_graph import Writer
from keras_convnext.export.onnx_maps import TO_CHANNELS_FIRST, TO_CHANNELS_LAST


def scoped(write: Callable[..., Any]) -> Callable[..., Any]:
    """Puts the name of the layer before those of its nodes."""

    @wraps(write)
    def within(self: "NodeWriter", layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        self.scope = f"{layer.name}/"
        names = write(self, layer, *args, **kwargs)
        self.scope = ""
        return names

    return within


def longs(*values: int) -> np.ndarray:
    """Returns a vector of integers, as shapes and axes are in ONNX."""
    return np.array(values, "int64")


class NodeWriter(Writer):
    """Adds nodes by their operation, and all that `Writer` does."""

    def __init__(self, dtype: str) -> None:
        super().__init__(dtype)
        self.count = 0

    def add(self, operation: str, *inputs: Any, **attributes: Any) -> str:
        """Adds a node with a name of its own. Inputs that are not names are constants."""
        self.count += 1
        name = f"{self.scope}{operation.lower()}_{self.count}"
        named = [
            each if isinstance(each, str) else self.constant(f"{name}_{place}", each)
            for place, each in enumerate(inputs)
        ]
        return self.node(operation, named, name, **attributes)

    def sides(self, x: str, start: int, end: int) -> str:
        """Adds a vector of some of the sides of a tensor."""
        return self.add("Shape", x, start=start, end=end)

    def side(self, x: str, axis: int) -> str:
        """Adds the length of an axis, a scalar."""
        return self.add("Squeeze", self.sides(x, axis, axis + 1), longs(0))

    def shaped(self, x: str, *sides: Any) -> str:
        """Adds a reshaping; sides are numbers or names of vectors."""
        vectors = [each if isinstance(each, str) else longs(each) for each in sides]
        return self.add("Reshape", x, self.add("Concat", *vectors, axis=0))

    def part(self, x: str, start: int, end: int, axis: int = -1) -> str:
        """Adds a slice of an axis."""
        return self.add("Slice", x, longs(start), longs(end), longs(axis))

    def halves(self, x: str) -> tuple[str, str]:
        """Adds the first and the second half of the last axis."""
        return self.part(x, 0, 2), self.part(x, 2, 4)

    def zeros(self, shape: str, value: float = 0.0, dtype: str = "float32") -> str:
        """Adds a tensor of one value."""
        return self.add("Expand", np.array(value, dtype), shape)

    def places(self, x: str, axis: int) -> str:
        """Adds the positions of an axis, as floats."""
        zero, one = np.array(0, "int64"), np.array(1, "int64")
        return self.add(
            "Cast", self.add("Range", zero, self.side(x, axis), one), to=TensorProto.FLOAT
        )

    def best(self, scores: str, count: Any) -> tuple[str, str]:
        """Adds the largest of each row of scores (N, K), and their indices."""
        self.count += 1
        name = f"{self.scope}topk_{self.count}"
        count = count if isinstance(count, str) else self.constant(f"{name}_k", count)
        outputs = [f"{name}_values", f"{name}_indices"]
        self.nodes.append(helper.make_node("TopK", [scores, count], outputs, name=name))
        return outputs[0], outputs[1]

    def taken(self, x: str, indices: str) -> str:
        """Adds rows (N, D, 4) of a tensor (N, K, 4), by their indices (N, D)."""
        return self.add("GatherND", x, self.add("Unsqueeze", indices, longs(2)), batch_dims=1)

    def kernel_of(self, layer: keras.layers.Conv2D) -> list[str]:
        """Adds the weights of a convolution, which may be called several times."""
        return self.stored(layer, *layer.get_weights())

    def stored(self, layer: keras.layers.Conv2D, kernel: np.ndarray, bias: np.ndarray) -> list[str]:
        """Adds a kernel and a bias."""
        name = f"{self.scope}{layer.name}"
        # Also of a transposed one: Keras' is (height, width, out, in), and ONNX' (in, out, ...).
        kernel = kernel.transpose(3, 2, 0, 1)
        return [self.weight(f"{name}_kernel", kernel), *self._bias(name, [bias])]

    def convolved(self, layer: keras.layers.Conv2D, x: str, weights: list[str]) -> str:
        """Adds a convolution with the activation of its layer."""
        x = self.add("Transpose", x, perm=TO_CHANNELS_FIRST)
        side = layer.kernel_size[0]
        if isinstance(layer, keras.layers.Conv2DTranspose):
            x = self.add("ConvTranspose", x, *weights, strides=list(layer.strides))
        else:
            strides = list(layer.strides)
            x = self.add("Conv", x, *weights, pads=[side // 2] * 4, strides=strides)
        if layer.activation is keras.activations.relu:
            x = self.add("Relu", x)
        return self.add("Transpose", x, perm=TO_CHANNELS_LAST)
