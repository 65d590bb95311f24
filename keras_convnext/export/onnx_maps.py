"""Writes the layers on feature maps that heads for dense prediction share, for `onnx_graph`."""

from functools import singledispatch
from typing import Any, Protocol

import keras
import numpy as np
from onnx import TensorProto

from keras_convnext.feature_maps import PoolToGrid, PyramidConv2D, ResizeLike

TO_CHANNELS_FIRST, TO_CHANNELS_LAST = (0, 3, 1, 2), (0, 2, 3, 1)


class Graph(Protocol):
    """What `onnx_graph` writes to."""

    def node(self, operation: str, inputs: list[str], name: str, **attributes: Any) -> str:
        """Adds a node, and returns the name of its output."""

    def constant(self, name: str, values: Any) -> str:
        """Adds a constant without conversion."""

    def weight(self, name: str, values: np.ndarray) -> str:
        """Adds weights."""


@singledispatch
def write_maps(layer: keras.layers.Layer, graph: Graph, *inputs: Any) -> str:
    """Adds the nodes of a layer, and returns the name of its output."""
    raise NotImplementedError(type(layer).__name__)


@write_maps.register
def _(layer: ResizeLike, graph: Graph, x: str, like: str) -> str:
    name = layer.name
    x = graph.node("Transpose", [x], f"{name}_in", perm=TO_CHANNELS_FIRST)
    counts = graph.node("Shape", [x], f"{name}_counts", end=2)  # of images and channels
    sides = graph.node("Shape", [like], f"{name}_sides", start=1, end=3)
    sizes = graph.node("Concat", [counts, sides], f"{name}_sizes", axis=0)
    x = graph.node("Resize", [x, "", "", sizes], f"{name}_resize", mode="linear")
    return graph.node("Transpose", [x], name, perm=TO_CHANNELS_LAST)


@write_maps.register
def _(layer: PoolToGrid, graph: Graph, x: str) -> str:
    name = layer.name
    rows, columns = (_shares(layer, graph, x, axis) for axis in (1, 2))
    x = graph.node("Einsum", [rows, x], f"{name}_rows_mean", equation="ih,nhwc->niwc")
    return graph.node("Einsum", [columns, x], name, equation="jw,niwc->nijc")


def _shares(layer: PoolToGrid, graph: Graph, x: str, axis: int) -> str:
    """Adds the weight of each position in the mean of each cell, of shape (grid, side)."""
    name = f"{layer.name}_{'nhw'[axis]}"
    cells = np.arange(layer.grid, dtype="int64")[:, None]
    side = graph.node("Shape", [x], f"{name}_side", start=axis, end=axis + 1)
    grid = graph.constant(f"{name}_grid", np.array([layer.grid], "int64"))
    before = graph.node("Mul", [graph.constant(f"{name}_cells", cells), side], f"{name}_before")
    first = graph.node("Div", [before, grid], f"{name}_first")
    after = graph.node("Mul", [graph.constant(f"{name}_next", cells + 1), side], f"{name}_after")
    rest = graph.constant(f"{name}_rest", np.array([layer.grid - 1], "int64"))
    rounded = graph.node("Add", [after, rest], f"{name}_rounded")
    end = graph.node("Div", [rounded, grid], f"{name}_end")
    places = _places(graph, side, name)
    from_first = graph.node("GreaterOrEqual", [places, first], f"{name}_from_first")
    to_end = graph.node("Less", [places, end], f"{name}_to_end")
    inside = graph.node("And", [from_first, to_end], f"{name}_inside")
    count = graph.node("Sub", [end, first], f"{name}_count")
    return graph.node("Div", [_float(graph, inside), _float(graph, count)], f"{name}_shares")


@write_maps.register
def _(layer: PyramidConv2D, graph: Graph, maps: list[str]) -> str:
    name, taps, filters = layer.name, layer.kernel_size, layer.filters
    values, *bias = layer.get_weights()
    kernel, *kernels = np.split(values, np.cumsum(layer.channels)[:-1], axis=2)
    fine, *coarse = maps
    x = graph.node("Transpose", [fine], f"{name}_in", perm=TO_CHANNELS_FIRST)
    x = graph.node(
        "Conv",
        [x, graph.weight(f"{name}_kernel", kernel.transpose(3, 2, 0, 1)),
         *(graph.weight(f"{name}_bias", value) for value in bias)],
        f"{name}_conv", kernel_shape=[taps, taps], pads=[taps // 2] * 4,
    )  # fmt: skip
    terms = [graph.node("Transpose", [x], f"{name}_fine", perm=TO_CHANNELS_LAST)]
    pairs, lines = (  # 0 keeps a dimension, -1 takes the rest
        graph.constant(f"{name}_{what}", np.array(shape, "int64"))
        for what, shape in (
            ("pairs", [0, 0, -1, filters]),
            ("lines", [0, 0, -1]),
        )
    )
    for level, (x, kernel) in enumerate(zip(coarse, kernels), 1):
        own = f"{name}_{level}"
        down, across = (
            _weights(graph, x, fine, axis, taps, f"{own}_{'nhw'[axis]}") for axis in (1, 2)
        )
        across = graph.node("Transpose", [across], f"{own}_across_last", perm=(1, 2, 0))
        rows = graph.constant(f"{own}_rows", np.array([0, -1], "int64"))
        across = graph.node("Reshape", [across, rows], f"{own}_across")  # (W, w * taps)
        for tap in range(taps):
            each = f"{own}_tap_{tap}"
            row = kernel[tap].transpose(1, 0, 2).reshape(-1, taps * filters)
            y = graph.node("MatMul", [x, graph.weight(f"{each}_kernel", row)], f"{each}_taps")
            y = graph.node("Reshape", [y, pairs], f"{each}_pairs")  # (N, h, w * taps, F)
            y = graph.node("MatMul", [across, y], f"{each}_wide")  # (N, h, W, F)
            y = graph.node("Reshape", [y, lines], f"{each}_lines")  # (N, h, W * F)
            index = graph.constant(f"{each}_index", np.array(tap, "int64"))
            weights = graph.node("Gather", [down, index], f"{each}_down", axis=0)  # (H, h)
            y = graph.node("MatMul", [weights, y], f"{each}_high")  # (N, H, W * F)
            terms.append(graph.node("Reshape", [y, pairs], each))
    return graph.node("Sum", terms, name)


def _weights(graph: Graph, x: str, like: str, axis: int, taps: int, name: str) -> str:
    """Adds the weights of `PyramidConv2D._weights`, of shape (taps, resized, side)."""
    side, resized = (
        graph.node("Shape", [each], f"{name}_{what}", start=axis, end=axis + 1)
        for each, what in ((x, "side"), (like, "resized"))
    )
    offsets = np.arange(taps, dtype="float32")[:, None, None] - taps // 2
    last_axis = graph.constant(f"{name}_last", np.array([1], "int64"))
    rows = _float(graph, _places(graph, resized, f"{name}_resized"))
    rows = graph.node("Unsqueeze", [rows, last_axis], f"{name}_rows")  # (resized, 1)
    position = graph.node(
        "Add", [rows, graph.constant(f"{name}_taps", offsets)], f"{name}_position"
    )  # (taps, resized, 1)
    zero, half, one = (
        graph.constant(f"{name}_{what}", np.float32(value))
        for what, value in (("zero", 0), ("half", 0.5), ("one", 1))
    )
    count, counted = _float(graph, side), _float(graph, resized)
    from_first = graph.node("GreaterOrEqual", [position, zero], f"{name}_from_first")
    to_end = graph.node("Less", [position, counted], f"{name}_to_end")
    inside = graph.node("And", [from_first, to_end], f"{name}_inside")
    ratio = graph.node("Div", [count, counted], f"{name}_ratio")
    center = graph.node("Add", [position, half], f"{name}_center")
    scaled = graph.node("Mul", [center, ratio], f"{name}_scaled")
    source = graph.node("Sub", [scaled, half], f"{name}_unclipped")
    end = graph.node("Sub", [count, one], f"{name}_end")
    source = graph.node("Min", [graph.node("Max", [source, zero], f"{name}_above"), end], name)
    places = _float(graph, _places(graph, side, f"{name}_side"))
    between = graph.node("Sub", [source, places], f"{name}_between")
    distance = graph.node("Abs", [between], f"{name}_distance")
    nearness = graph.node("Sub", [one, distance], f"{name}_nearness")
    weights = graph.node("Relu", [nearness], f"{name}_unmasked")
    return graph.node("Mul", [weights, _float(graph, inside)], f"{name}_weights")


def _places(graph: Graph, side: str, name: str) -> str:
    """Adds the numbers of the positions along a side, of shape (side,)."""
    zero, one = (graph.constant(f"{name}_{n}", np.array(n, "int64")) for n in (0, 1))
    axes = graph.constant(f"{name}_axes", np.array([0], "int64"))
    scalar = graph.node("Squeeze", [side, axes], f"{name}_scalar")
    return graph.node("Range", [zero, scalar, one], f"{name}_places")


def _float(graph: Graph, x: str) -> str:
    return graph.node("Cast", [x], f"{x}_float", to=TensorProto.FLOAT)
