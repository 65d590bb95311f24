"""Writes the layers of detectors as nodes of an ONNX graph.

N is the number of images, R of regions, C of classes. ONNX has operators for RoIAlign and for
non-maximum suppression; the number of boxes that the latter keeps depends on the image, so it is
turned into a mask of the boxes at once.
"""

from collections.abc import Sequence
from functools import singledispatchmethod
from typing import Any

import keras
import numpy as np
from onnx import TensorProto

from keras_convnext.detection.anchors import PROPOSALS, STRIDES, anchors_around_zero
from keras_convnext.detection.boxes import LARGEST_RATIO
from keras_convnext.detection.layers import BoxHead, FeaturePyramid, MaskHead, ProposalHead
from keras_convnext.detection.proposals import IOU_THRESHOLD
from keras_convnext.detection.roi_align import FINEST_SCALE
from keras_convnext.detection.stages import (
    Detect,
    FillPadding,
    Propose,
    Refine,
    RoIAlign,
    SelectMasks,
)
from keras_convnext.export.detectors import MULTIPLE, PadImages
from keras_convnext.export.fusing import with_norm
from keras_convnext.export.onnx_maps import TO_CHANNELS_FIRST, TO_CHANNELS_LAST
from keras_convnext.export.onnx_nodes import NodeWriter, longs, scoped

_INT, _LONG, _FLOAT = TensorProto.INT32, TensorProto.INT64, TensorProto.FLOAT
_TO_END = np.iinfo("int64").max


class DetectorWriter(NodeWriter):
    """Writes the layers of detectors, and all that `NodeWriter` does."""

    @singledispatchmethod
    def write(self, layer: Any, *args: Any, **kwargs: Any) -> Any:
        """Adds the nodes of a layer, and returns the names of its outputs, as the layer does."""
        return super().write(layer, *args, **kwargs)

    @write.register
    @scoped
    def _(self, layer: PadImages, x: str) -> tuple[str, str]:
        sides = self.sides(x, 1, 3)
        missing = self.add("Mod", self.add("Neg", sides), longs(MULTIPLE))
        pads = self.add("Concat", longs(0, 0, 0, 0, 0), missing, longs(0), axis=0)
        shape = self.add("Concat", self.sides(x, 0, 1), longs(2), axis=0)
        sizes = self.add("Expand", self.add("Cast", sides, to=_FLOAT), shape)
        return self.add("Pad", x, pads), sizes

    @write.register
    @scoped
    def _(self, layer: FillPadding, x: str, sizes: str) -> str:
        inside = [
            self.add("Less", self.places(x, axis), self.part(sizes, axis - 1, axis))
            for axis in (1, 2)
        ]  # (N, H), (N, W)
        rows, columns = (
            self.add("Unsqueeze", each, longs(*axes))
            for each, axes in zip(inside, ((2, 3), (1, 3)))
        )
        value = np.array(layer.value, "float32")
        return self.add("Where", self.add("And", rows, columns), x, value)

    @write.register
    @scoped
    def _(self, layer: FeaturePyramid, inputs: list[str]) -> list[str]:
        used = inputs[layer.first :]
        maps = [self.convolved(c, x, self.kernel_of(c)) for c, x in zip(layer.lateral, used)]
        for level in range(len(maps) - 1, 0, -1):
            enlarged = maps[level]
            for axis in (1, 2):
                length, target = (self.side(x, axis) for x in (enlarged, maps[level - 1]))
                zero, one = np.array(0, "int64"), np.array(1, "int64")
                scaled = self.add("Mul", self.add("Range", zero, target, one), length)
                enlarged = self.add("Gather", enlarged, self.add("Div", scaled, target), axis=axis)
            maps[level - 1] = self.add("Add", maps[level - 1], enlarged)
        maps = [self.convolved(c, x, self.kernel_of(c)) for c, x in zip(layer.output_convs, maps)]
        if layer.coarser_convs:
            x = inputs[-1] if layer.coarser == "input" else maps[-1]
            for conv in layer.coarser_convs:
                x = self.convolved(conv, x, self.kernel_of(conv))
                maps.append(x)
            return maps
        ends = longs(0, 0), longs(_TO_END, _TO_END), longs(1, 2), longs(2, 2)
        return [*maps, self.add("Slice", maps[-1], *ends)]

    @write.register
    @scoped
    def _(self, layer: ProposalHead, inputs: list[str]) -> tuple[list[str], list[str]]:
        first, *last = [
            (c, self.kernel_of(c)) for c in (layer.conv, layer.objectness, layer.deltas)
        ]
        maps = [self.convolved(first[0], x, first[1]) for x in inputs]
        objectness, deltas = ([self.convolved(c, x, w) for x in maps] for c, w in last)
        return objectness, deltas

    @write.register
    @scoped
    def _(
        self, layer: Propose, objectness: Sequence[str], deltas: Sequence[str], sizes: str
    ) -> tuple[str, str]:
        levels = [
            self.level(layer.before, *each, sizes) for each in zip(objectness, deltas, STRIDES)
        ]
        count = self.sides(sizes, 0, 1)
        levels.append(
            (
                self.zeros(self.add("Concat", count, longs(layer.after, 4), axis=0)),
                self.zeros(self.add("Concat", count, longs(layer.after), axis=0), -1),
            )
        )
        boxes, scores = (self.add("Concat", *each, axis=1) for each in zip(*levels))
        scores, best = self.best(scores, longs(layer.after))
        boxes = self.taken(boxes, best)
        known = self.add("Unsqueeze", self.add("Less", scores, np.float32(0)), longs(2))
        return self.add("Where", known, np.float32(0), boxes), scores

    def level(
        self, before: int, objectness: str, deltas: str, stride: int, sizes: str
    ) -> tuple[str, str]:
        """Adds the boxes (N, K, 4) of a level, and their scores, -1 for duplicates."""
        grid = [self.add("Mul", self.places(objectness, axis), np.float32(stride))
                for axis in (1, 2)]  # fmt: skip
        ys, xs = (
            self.add("Mul", self.add("Unsqueeze", each, longs(*axes)), np.array(corner, "float32"))
            for each, axes, corner in zip(
                grid, ((1, 2, 3), (0, 2, 3)), ([[[[0, 1, 0, 1]]]], [[[[1, 0, 1, 0]]]])
            )
        )
        around = np.asarray(anchors_around_zero(stride), "float32").reshape(
            1, 1, PROPOSALS.per_position, 4
        )
        anchors = self.add("Add", self.add("Add", ys, xs), around)  # (H, W, 3, 4)
        anchors = self.shaped(anchors, -1, 4)
        scores = self.add("Sigmoid", self.add("Reshape", objectness, longs(0, -1)))
        most = self.add("Min", self.sides(scores, 1, 2), longs(before))
        scores, best = self.best(scores, most)
        deltas = self.taken(self.add("Reshape", deltas, longs(0, -1, 4)), best)
        boxes = self.decoded(deltas, self.add("Gather", anchors, best, axis=0), (1, 1, 1, 1))
        boxes = self.clipped(boxes, sizes, 1)
        first, last = self.halves(boxes)
        larger = self.add("Cast", self.add("Greater", last, first), to=_FLOAT)
        smallest = self.add("ReduceMin", larger, longs(-1), keepdims=0)
        is_box = self.add("Greater", smallest, np.float32(0.5))
        kept = self.kept(boxes, self.add("Where", is_box, scores, np.float32(-1)), most,
                         IOU_THRESHOLD, -0.5)  # fmt: skip
        return boxes, self.add("Where", kept, scores, np.float32(-1))

    def kept(
        self, boxes: str, scores: str, most: Any, iou_threshold: float, score_threshold: float
    ) -> str:
        """Adds which boxes (N, K, 4) with scores (N, K) are kept, (N, K)."""
        chosen = self.add(
            "NonMaxSuppression", boxes, self.add("Unsqueeze", scores, longs(1)), most,
            np.array([iou_threshold], "float32"), np.array([score_threshold], "float32"),
        )  # fmt: skip
        places = self.add("Gather", chosen, longs(0, 2), axis=1)  # (kept, 2)
        ones = self.zeros(self.sides(chosen, 0, 1), 1)
        none = self.add("Mul", scores, np.float32(0))
        return self.add("Greater", self.add("ScatterND", none, places, ones), np.float32(0.5))

    def decoded(self, deltas: str, references: str, stds: Sequence[float]) -> str:
        """Adds the boxes of deltas, as `boxes.decoded` does."""
        shifts, ratios = self.halves(self.add("Mul", deltas, np.array(stds, "float32")))
        first, last = self.halves(references)
        centers = self.add("Mul", self.add("Add", first, last), np.float32(0.5))
        sides = self.add("Sub", last, first)
        centers = self.add("Add", centers, self.add("Mul", shifts, sides))
        limits = np.float32(-LARGEST_RATIO), np.float32(LARGEST_RATIO)
        grown = self.add("Mul", sides, self.add("Exp", self.add("Clip", ratios, *limits)))
        halves = self.add("Mul", grown, np.float32(0.5))
        corners = self.add("Sub", centers, halves), self.add("Add", centers, halves)
        return self.add("Concat", *corners, axis=-1)

    def clipped(self, boxes: str, sizes: str, *axes: int) -> str:
        """Adds boxes clipped to images; `axes` are those between the images and the corners."""
        limits = self.add("Gather", sizes, longs(1, 0, 1, 0), axis=1)  # (N, 4)
        limits = self.add("Unsqueeze", limits, longs(*axes))
        return self.add("Min", self.add("Max", boxes, np.float32(0)), limits)

    @write.register
    @scoped
    def _(self, layer: RoIAlign, boxes: str, maps: Sequence[str]) -> str:
        regions = self.add("Reshape", boxes, longs(-1, 4))  # (N * R, 4)
        first, last = self.halves(regions)
        product = self.add("ReduceProd", self.add("Sub", last, first), longs(-1), keepdims=0)
        area = self.add("Max", product, np.float32(0))
        scale = self.add("Div", self.add("Sqrt", area), np.float32(FINEST_SCALE))
        scale = self.add("Unsqueeze", self.add("Add", scale, np.float32(1e-6)), longs(1))
        steps = np.array([[2.0**level for level in range(1, len(maps))]], "float32")
        coarser = self.add("Cast", self.add("GreaterOrEqual", scale, steps), to=_LONG)
        level = self.add("ReduceSum", coarser, longs(1), keepdims=0)  # (N * R,)
        order, pooled = [], []
        for number, (feature_map, stride) in enumerate(zip(maps, STRIDES)):
            own = self.add("NonZero", self.add("Equal", level, np.array(number, "int64")))
            own = self.add("Squeeze", own, longs(0))
            order.append(own)
            pooled.append(
                self.add(
                    "RoiAlign",
                    self.add("Transpose", feature_map, perm=TO_CHANNELS_FIRST),
                    self.add("Gather", regions, own),
                    self.add("Div", own, self.sides(boxes, 1, 2)),  # of the image
                    coordinate_transformation_mode="half_pixel",
                    output_height=layer.size,
                    output_width=layer.size,
                    sampling_ratio=0,
                    spatial_scale=1 / stride,
                )
            )
        places = self.add("Concat", *order, axis=0)
        zero, one = np.array(0, "int64"), np.array(1, "int64")
        ranks = self.add("Range", zero, self.side(places, 0), one)
        back = self.add("ScatterElements", self.add("Mul", places, zero), places, ranks)
        x = self.add("Gather", self.add("Concat", *pooled, axis=0), back)
        x = self.add("Transpose", x, perm=TO_CHANNELS_LAST)
        return self.shaped(x, self.sides(boxes, 0, 2), self.sides(x, 1, 4))

    @write.register
    @scoped
    def _(self, layer: BoxHead, inputs: str) -> tuple[str, str]:
        x = self.shaped(inputs, -1, self.sides(inputs, 2, 5))
        for conv, norm in zip(layer.convs, layer.norms):
            kernel, bias = with_norm(norm, conv.get_weights()[0], None)
            x = self.convolved(conv, x, self.stored(conv, kernel, bias))
            x = self.add("Relu", x)
        x = self.add("Transpose", x, perm=TO_CHANNELS_FIRST)
        x = self.add("Flatten", x)
        for dense in layer.fully_connected:
            x = self.add("Relu", self.product(dense, x))
        count = self.sides(inputs, 0, 2)
        logits = self.shaped(self.product(layer.classifier, x), count, layer.classes + 1)
        deltas = self.product(layer.deltas, x)
        deltas = self.shaped(deltas, count, layer.classes, 4)
        return logits, deltas

    @write.register
    @scoped
    def _(self, layer: Refine, boxes: str, logits: str, deltas: str, sizes: str) -> str:
        label = self.add("ArgMax", self.part(logits, 0, -1), axis=-1)  # (N, R, 1)
        own = self.add("GatherND", deltas, label, batch_dims=2)  # (N, R, 4)
        return self.clipped(self.decoded(own, boxes, layer.stds), sizes, 1)

    @write.register
    @scoped
    def _(
        self, layer: Detect, proposals: str, proposal_scores: str, logits: str, deltas: str,
        sizes: str,
    ) -> dict[str, str]:  # fmt: skip
        scores = self.part(self.add("Softmax", logits, axis=-1), 0, -1)  # (N, R, C)
        known = self.add("GreaterOrEqual", proposal_scores, np.float32(0))
        scores = self.add("Where", self.add("Unsqueeze", known, longs(2)), scores, np.float32(0))
        references = self.add("Unsqueeze", proposals, longs(2))
        boxes = self.clipped(self.decoded(deltas, references, layer.stds), sizes, 1, 2)
        by_class = self.add("Transpose", scores, perm=[0, 2, 1])  # (N, C, R)
        regions = self.sides(proposals, 1, 2)
        kept = self.kept(
            self.shaped(self.add("Transpose", boxes, perm=[0, 2, 1, 3]), -1, regions, 4),
            self.shaped(by_class, -1, regions),
            longs(layer.detections), layer.iou_threshold, layer.score_threshold,
        )  # fmt: skip
        kept = self.add(
            "Transpose", self.add("Reshape", kept, self.sides(by_class, 0, 3)), perm=[0, 2, 1]
        )
        scores = self.add("Where", kept, scores, np.float32(-1))
        count = self.sides(proposals, 0, 1)
        shape = self.add("Concat", count, longs(layer.detections), axis=0)
        scores = self.add("Reshape", scores, longs(0, -1))
        scores = self.add("Concat", scores, self.zeros(shape, -1), axis=1)  # (N, R * C + D)
        scores, best = self.best(scores, longs(layer.detections))
        classes = self.side(by_class, 1)
        label = self.add("Mod", best, classes)
        boxes = self.add("Reshape", boxes, longs(0, -1, 4))
        none = self.zeros(self.add("Concat", shape, longs(4), axis=0))
        boxes = self.taken(self.add("Concat", boxes, none, axis=1), best)
        is_found = self.add("Greater", scores, np.float32(0))
        label = self.add("Where", is_found, label, np.array(-1, "int64"))
        found = self.add("Cast", is_found, to=_INT)
        return {
            "boxes": self.add(
                "Where", self.add("Unsqueeze", is_found, longs(2)), boxes, np.float32(0)
            ),
            "labels": self.add("Cast", label, to=_INT),
            "num_detections": self.add("ReduceSum", found, longs(1), keepdims=0),
            "scores": self.add("Where", is_found, scores, np.float32(0)),
        }

    @write.register
    @scoped
    def _(self, layer: MaskHead, inputs: str) -> str:
        x = self.shaped(inputs, -1, self.sides(inputs, 2, 5))
        for each in (*layer.convs, layer.upsample, layer.classifier):
            x = self.convolved(each, x, self.kernel_of(each))
        return self.shaped(x, self.sides(inputs, 0, 2), self.sides(x, 1, 4))

    @write.register
    @scoped
    def _(self, layer: SelectMasks, logits: str, labels: str) -> str:
        labels = self.add("Unsqueeze", labels, longs(2, 3, 4))
        known = self.add("Cast", self.add("Max", labels, np.array(0, "int32")), to=_LONG)
        shape = self.add("Concat", self.sides(logits, 0, 4), longs(1), axis=0)
        own = self.add("GatherElements", logits, self.add("Expand", known, shape), axis=-1)
        none = self.add("Less", labels, np.array(0, "int32"))
        own = self.add("Where", none, np.float32(0), self.add("Sigmoid", own))
        return self.add("Squeeze", own, longs(4))

    @write.register
    def _(self, layer: keras.layers.Average, x: list[str]) -> str:
        return self.node("Mean", x, layer.name)
