"""The layers of rotated RetinaNets: the head, and what decodes its outputs.

C is the width of the pyramid, A the number of anchors at each position.
"""

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import KerasTensor, ops

from keras_convnext.detection.layers import conv_layer
from keras_convnext.detection.rotated.anchors import SHAPES, rotated_anchors
from keras_convnext.detection.rotated.coder import CODERS, decoded

_register = keras.saving.register_keras_serializable(package="keras_convnext")

BINS = 9
# The first and last values of the bins: of the shift and the sides, and of the angle.
BOX_RANGE, ANGLE_RANGE = (-2.0, 2.0), (-5.0, 2.0)
DEPTH = 4  # convolutions
_GROUPS = 32  # of group norm
_PRIOR = 0.01  # probability of each class at the start of training


@_register
class RotatedHead(keras.layers.Layer):
    """Predicts the classes and the deltas of each anchor, with two stacks of convolutions.

    Args:
        classes: int. Number of classes.
        regression: str. "direct": the deltas are outputs of a convolution; there are nine anchors
            at each position. "expectation": each delta is the expectation of a softmax over nine
            bins, from -2 to 2, or from -5 to 2 for the angle; there is one anchor, and the
            convolutions have group norm instead of a bias.
        channels: int. Width. Defaults to 256.
        **kwargs: `name` and `dtype`, as in `keras.layers.Layer`.

    Input shape: a list of maps `(N, H, W, C)`. Output shape: a list of logits
    `(N, H, W, A * classes)` and a list of deltas `(N, H, W, A * 5)`, one entry per map.

    References:
        Lin et al., "Focal Loss for Dense Object Detection", arXiv 1708.02002, section 4.
        Xuyihaoby/rotate_detection, RGFLHeadVanilla, for "expectation".
    """

    def __init__(
        self, classes: int, regression: str = "expectation", channels: int = 256, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.classes, self.regression, self.channels = classes, regression, channels
        self.anchors = SHAPES[regression].per_position
        has_bins = regression == "expectation"
        self.bins = BINS if has_bins else 1
        norm = keras.layers.GroupNormalization

        def stack(name: str) -> tuple[list[Any], list[Any]]:
            convs = [
                conv_layer(channels, 3, _normal(), f"{name}_conv_{i}", self, use_bias=not has_bins)
                for i in range(DEPTH)
            ]
            norms = [
                norm(
                    math.gcd(_GROUPS, channels), axis=-1, epsilon=1e-5,
                    dtype=self.dtype_policy, name=f"{name}_norm_{i}",
                )
                for i in range(DEPTH if has_bins else 0)
            ]  # fmt: skip
            return convs, norms

        self.class_convs, self.class_norms = stack("class")
        self.box_convs, self.box_norms = stack("box")
        self.classifier = conv_layer(
            self.anchors * classes, 3, _normal(), "classifier", self,
            bias_initializer=keras.initializers.Constant(-math.log((1 - _PRIOR) / _PRIOR)),
        )  # fmt: skip
        self.deltas = conv_layer(self.anchors * 5 * self.bins, 3, _normal(), "deltas", self)

    def build(self, input_shape: Sequence[tuple[int | None, ...]]) -> None:
        """Creates the weights, which all levels share."""
        inside = (*input_shape[0][:-1], self.channels)
        for convs, norms in (
            (self.class_convs, self.class_norms), (self.box_convs, self.box_norms)
        ):  # fmt: skip
            for index, conv in enumerate(convs):
                conv.build(inside if index else input_shape[0])
            for norm in norms:
                norm.build(inside)
        self.classifier.build(inside)
        self.deltas.build(inside)

    def call(self, inputs: Sequence[Any]) -> tuple[list[Any], list[Any]]:
        """Applies the head to each of `inputs`."""
        logits, deltas = [], []
        for x in inputs:
            logits.append(self.classifier(_stacked(x, self.class_convs, self.class_norms)))
            found = self.deltas(_stacked(x, self.box_convs, self.box_norms))
            deltas.append(found if self.bins == 1 else self.expectations(found))
        return logits, deltas

    def expectations(self, logits: Any) -> Any:
        """Returns the five deltas (N, H, W, 5) of the logits (N, H, W, 45) of their bins."""
        samples, height, width, _ = ops.shape(logits)
        bins = ops.reshape(ops.cast(logits, "float32"), (samples, height, width, 5, self.bins))
        values = ops.convert_to_tensor([*[bin_values(*BOX_RANGE)] * 4, bin_values(*ANGLE_RANGE)])
        return ops.sum(ops.softmax(bins) * ops.cast(values, "float32"), axis=-1)

    def compute_output_spec(self, input_shape: Sequence[Any], **kwargs: Any) -> Any:
        """Returns the shapes of the logits and the deltas."""
        dtype = self.compute_dtype if self.bins == 1 else "float32"
        return (
            [
                KerasTensor((*x.shape[:-1], self.anchors * self.classes), self.compute_dtype)
                for x in input_shape
            ],
            [KerasTensor((*x.shape[:-1], self.anchors * 5), dtype) for x in input_shape],
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        own = {name: getattr(self, name) for name in ("classes", "regression", "channels")}
        return {**super().get_config(), **own}


def _normal() -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(stddev=0.01)


def bin_values(first: float, last: float) -> list[float]:
    """Returns the values of the bins."""
    return [first + (last - first) * index / (BINS - 1) for index in range(BINS)]


def _stacked(x: Any, convs: Sequence[Any], norms: Sequence[Any]) -> Any:
    for index, conv in enumerate(convs):
        x = conv(x)
        x = ops.relu(norms[index](x) if norms else x)
    return x


@_register
class DecodeRotated(keras.layers.Layer):
    """Decodes the best anchors of each level to rotated boxes, before suppression.

    Args:
        regression: str. As in `RotatedHead`.
        convention: str. Of the angle: "le135", "le90" or "oc".
        before: int. Anchors of each level that are decoded. Defaults to 2000.
        **kwargs: `name` and `dtype`, as in `keras.layers.Layer`.

    Input shape: the outputs of `RotatedHead`, and sizes `(N, 2)`. Output shape: a dict of `boxes`
    `(N, K, 5)` and `scores` `(N, K, classes)`, where K depends on the size of the images.
    """

    def __init__(self, regression: str, convention: str, before: int = 2000, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.regression, self.convention, self.before = regression, convention, before
        self.supports_jit = keras.config.backend() != "tensorflow"  # the sizes of levels vary

    def call(self, logits: Sequence[Any], deltas: Sequence[Any], sizes: Any) -> dict[str, Any]:
        """Decodes the boxes of each image."""
        shapes, coder = SHAPES[self.regression], CODERS[self.convention]
        boxes, scores = [], []
        for own, changes, anchors in zip(logits, deltas, rotated_anchors(logits, shapes)):
            samples, count = ops.shape(own)[0], ops.shape(anchors)[0]
            of_class = ops.sigmoid(
                ops.reshape(own, (samples, count, own.shape[-1] // shapes.per_position))
            )
            is_known = isinstance(count, int)
            most = min(self.before, count) if is_known else ops.minimum(self.before, count)
            _, best = ops.top_k(ops.max(of_class, axis=-1), most)
            changes = ops.reshape(changes, (samples, count, 5))
            changes = ops.take_along_axis(changes, best[..., None], axis=1)
            found = decoded(changes, ops.take(anchors, best, axis=0), coder)
            boxes.append(_clipped(found, sizes) if coder.clips else found)
            scores.append(ops.take_along_axis(of_class, best[..., None], axis=1))
        return {"boxes": ops.concatenate(boxes, axis=1), "scores": ops.concatenate(scores, axis=1)}

    def compute_output_spec(
        self, logits: Sequence[Any], deltas: Sequence[Any], sizes: Any
    ) -> dict[str, Any]:
        """Returns the shapes of the boxes and scores."""
        samples, channels = logits[0].shape[0], logits[0].shape[-1]
        classes = channels // SHAPES[self.regression].per_position
        return {
            "boxes": KerasTensor((samples, None, 5), self.compute_dtype),
            "scores": KerasTensor((samples, None, classes), self.compute_dtype),
        }

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        own = {name: getattr(self, name) for name in ("regression", "convention", "before")}
        return {**super().get_config(), **own}


def _clipped(boxes: Any, sizes: Any) -> Any:
    """Clips the centers of boxes (N, K, 5) to the pixels of images, of sizes (N, 2)."""
    last = ops.cast(ops.flip(sizes, axis=-1), boxes.dtype)[:, None] - 1
    centers = ops.minimum(ops.maximum(boxes[..., :2], 0), last)
    return ops.concatenate([centers, boxes[..., 2:]], axis=-1)
