"""Writes the layers of rotated RetinaNets as nodes of an ONNX graph.

ONNX has no suppression of rotated boxes: the graph ends with the boxes and scores before it, as the
network does. N is the number of images, A of anchors at a position, K of boxes.
"""

import math
from collections.abc import Sequence
from functools import singledispatchmethod
from typing import Any

import keras
import numpy as np

from keras_convnext.detection.anchors import Shapes
from keras_convnext.detection.rotated.anchors import SHAPES, STRIDES
from keras_convnext.detection.rotated.coder import CODERS, LARGEST_RATIO, Coder
from keras_convnext.detection.rotated.layers import (
    ANGLE_RANGE,
    BOX_RANGE,
    DecodeRotated,
    RotatedHead,
    bin_values,
)
from keras_convnext.export.onnx_detectors import DetectorWriter
from keras_convnext.export.onnx_maps import TO_CHANNELS_FIRST, TO_CHANNELS_LAST
from keras_convnext.export.onnx_nodes import longs, scoped


class RotatedWriter(DetectorWriter):
    """Writes the layers of rotated RetinaNets, and all that `DetectorWriter` does."""

    @singledispatchmethod
    def write(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        """Adds the nodes of a layer, and returns the names of its outputs, as the layer does."""
        return super().write(layer, *args, **kwargs)

    @write.register
    @scoped
    def _(self, layer: RotatedHead, inputs: list[str]) -> tuple[list[str], list[str]]:
        stacks = [
            (layer.class_convs, layer.class_norms, layer.classifier),
            (layer.box_convs, layer.box_norms, layer.deltas),
        ]
        outputs: list[list[str]] = []
        for convs, norms, last in stacks:
            weights = [self.kernel_and_bias(conv) for conv in (*convs, last)]
            maps = []
            for x in inputs:
                for index, conv in enumerate(convs):
                    x = self.convolved(conv, x, weights[index])
                    x = self.add("Relu", self.normed(norms[index], x) if norms else x)
                maps.append(self.convolved(last, x, weights[-1]))
            outputs.append(maps)
        logits, deltas = outputs
        return logits, deltas if layer.bins == 1 else [self.expectations(x) for x in deltas]

    def kernel_and_bias(self, layer: keras.layers.Conv2D) -> list[str]:
        """Adds the weights of a convolution, with zeros for a bias that it does not have."""
        kernel, *bias = layer.get_weights()
        return self.stored(layer, kernel, bias[0] if bias else np.zeros(layer.filters, "float32"))

    def normed(self, layer: keras.layers.GroupNormalization, x: str) -> str:
        """Adds group norm, as instance norm of the groups."""
        gamma, beta = (np.asarray(each).reshape(1, -1, 1, 1) for each in layer.get_weights())
        x = self.add("Transpose", x, perm=TO_CHANNELS_FIRST)
        shape, groups = self.sides(x, 0, 4), layer.groups
        flat = self.add("Reshape", x, longs(0, groups, -1))
        flat = self.add(
            "InstanceNormalization", flat, np.ones(groups, "float32"),
            np.zeros(groups, "float32"), epsilon=layer.epsilon,
        )  # fmt: skip
        x = self.add("Mul", self.add("Reshape", flat, shape), gamma)
        return self.add("Transpose", self.add("Add", x, beta), perm=TO_CHANNELS_LAST)

    def expectations(self, x: str) -> str:
        """Adds the expectations of the bins, (N, H, W, 5)."""
        values = np.array([*[bin_values(*BOX_RANGE)] * 4, bin_values(*ANGLE_RANGE)], "float32")
        bins = self.shaped(x, self.sides(x, 0, 3), *values.shape)
        shares = self.add("Softmax", bins, axis=-1)
        return self.add("ReduceSum", self.add("Mul", shares, values), longs(-1), keepdims=0)

    @write.register
    @scoped
    def _(
        self, layer: DecodeRotated, logits: Sequence[str], deltas: Sequence[str], sizes: str
    ) -> dict[str, str]:
        shapes, coder = SHAPES[layer.regression], CODERS[layer.convention]
        levels = [
            self.rotated_level(layer, *each, shapes, coder, sizes)
            for each in zip(logits, deltas, STRIDES)
        ]
        boxes, scores = (self.add("Concat", *each, axis=1) for each in zip(*levels))
        return {"boxes": boxes, "scores": scores}

    def rotated_level(
        self,
        layer: DecodeRotated,
        logits: str,
        deltas: str,
        stride: int,
        shapes: Shapes,
        coder: Coder,
        sizes: str,
    ) -> tuple[str, str]:
        """Adds the boxes (N, K, 5) of a level, and their scores (N, K, classes)."""
        anchors = self.rotated_anchors(logits, stride, shapes)
        classes = self.add("Div", self.sides(logits, 3, 4), longs(shapes.per_position))
        scores = self.add("Sigmoid", self.shaped(logits, self.sides(logits, 0, 1), -1, classes))
        most = self.add("Min", self.sides(scores, 1, 2), longs(layer.before))
        _, best = self.best(self.add("ReduceMax", scores, longs(-1), keepdims=0), most)
        changes = self.taken(self.add("Reshape", deltas, longs(0, -1, 5)), best)
        boxes = self.rotated_boxes(changes, self.add("Gather", anchors, best, axis=0), coder, sizes)
        return boxes, self.taken(scores, best)

    def rotated_anchors(self, x: str, stride: int, shapes: Shapes) -> str:
        """Adds the anchors of a map, (H * W * A, 4) as cx, cy, w, h."""
        sides = [
            (0, 0, scale * stride * ratio**-0.5, scale * stride * ratio**0.5)
            for ratio in shapes.ratios
            for scale in shapes.scales
        ]
        ys, xs = (
            self.add(
                "Mul",
                self.add("Unsqueeze", self.places(x, axis), longs(*axes)),
                np.array(place, "float32") * stride,
            )
            for axis, axes, place in (
                (1, (1, 2, 3), [[[[0, 1, 0, 0]]]]), (2, (0, 2, 3), [[[[1, 0, 0, 0]]]]),
            )
        )  # fmt: skip
        around = np.array(sides, "float32").reshape(1, 1, -1, 4)
        anchors = self.add("Add", self.add("Add", ys, xs), around)  # (H, W, A, 4)
        return self.shaped(anchors, -1, 4)

    def rotated_boxes(self, deltas: str, anchors: str, coder: Coder, sizes: str) -> str:
        """Adds the boxes (N, K, 5) of deltas, as `coder.decoded` does for upright anchors."""
        centers, sides = self.halves(anchors)
        shifts = self.add("Mul", self.part(deltas, 0, 2), sides)
        limits = np.float32(-LARGEST_RATIO), np.float32(LARGEST_RATIO)
        ratios = self.add("Exp", self.add("Clip", self.part(deltas, 2, 4), *limits))
        centers, sides = self.add("Add", centers, shifts), self.add("Mul", sides, ratios)
        angle = self.in_range(
            self.add("Mul", self.part(deltas, 4, 5), np.float32(coder.unit)), coder
        )
        if coder.swaps:
            w, h = self.part(sides, 0, 1), self.part(sides, 1, 2)
            is_long = self.add("Greater", w, h)
            turned = self.in_range(self.add("Add", angle, np.float32(math.pi / 2)), coder)
            angle = self.add("Where", is_long, angle, turned)
            exchanged = self.add("Concat", h, w, axis=-1)
            sides = self.add("Where", is_long, sides, exchanged)
        if coder.clips:
            last = self.add("Sub", self.add("Gather", sizes, longs(1, 0), axis=1), np.float32(1))
            last = self.add("Unsqueeze", last, longs(1))
            centers = self.add("Min", self.add("Max", centers, np.float32(0)), last)
        return self.add("Concat", centers, sides, angle, axis=-1)

    def in_range(self, angle: str, coder: Coder) -> str:
        """Adds angles within half a turn from the start of the convention."""
        if coder.start is None:
            return angle
        turns = self.add("Sub", angle, np.float32(coder.start))
        turns = self.add("Floor", self.add("Div", turns, np.float32(math.pi)))
        return self.add("Sub", angle, self.add("Mul", turns, np.float32(math.pi)))
