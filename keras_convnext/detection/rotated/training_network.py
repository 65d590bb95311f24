"""What is trained of a rotated RetinaNet: from images and their objects to the losses.

N is the number of images, M of objects (padded), A of anchors.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_convnext.detection.anchors import at_valid_positions
from keras_convnext.detection.assigner import IGNORED
from keras_convnext.detection.rotated.anchors import SHAPES, STRIDES, rotated_anchors
from keras_convnext.detection.rotated.assigners import assigned_adaptively, assigned_by_iou
from keras_convnext.detection.rotated.coder import CODERS, decoded, encoded
from keras_convnext.detection.rotated.iou import rotated_iou
from keras_convnext.detection.rotated.losses import SMALLEST_IOU, focal_loss, iou_loss, kld_loss
from keras_convnext.network import at_least_float32

ASSIGNERS = ("atss", "iou")
LOSSES = ("class", "box")
MEASURED = ("no_gradient", "size_spread")


class RotatedObjective(NamedTuple):
    """What a rotated RetinaNet is trained on.

    Args:
        assigner: str. "atss", or "iou" for thresholds of the intersection over union.
        loss: str. Of the boxes, one of `BOX_LOSSES`.
        weight: float. Of that loss. Defaults to 1.
    """

    assigner: str
    loss: str
    weight: float = 1.0


def trained(
    detector: keras.Model,
    objective: RotatedObjective,
    size: tuple[int | None, int | None] = (None, None),
) -> keras.Model:
    """Returns a model of the same layers that computes the losses of a batch.

    Args:
        detector: keras.Model. Made by `RotatedRetinaNet`.
        objective: RotatedObjective.
        size: tuple of int or None. Height and width of the batches.

    Returns:
        keras.Model. Its inputs are `images` (N, H, W, 3), `sizes` (N, 2), `boxes` (N, M, 5) and
        `labels` (N, M), -1 for padding. Its output has `LOSSES`, and then `MEASURED`: the share of
        positive anchors whose box has no overlap with its object, and hence no gradient of it; and
        the standard deviation of ln(area / area of the object) / 2 over these anchors. Each is of
        the whole batch, and repeated for each image.
    """
    decode = detector.get_layer("decode")
    head = next(layer for layer in detector.layers if layer.name.endswith("_head"))
    features = keras.Model(detector.inputs, head.output)  # the logits of all levels, then deltas
    by_name = {tensor.name: tensor for tensor in detector.inputs}
    inputs = {
        "images": keras.Input((*size, by_name["images"].shape[-1]), name="images"),
        "sizes": keras.Input((2,), name="sizes"),
        "boxes": keras.Input((None, 5), name="boxes"),
        "labels": keras.Input((None,), dtype="int32", name="labels"),
    }
    outputs = features([inputs[name] for name in by_name])
    count = len(STRIDES)
    losses = RotatedLosses(
        decode.regression, decode.convention, objective, dtype=at_least_float32(), name="losses"
    )
    rest = [inputs[name] for name in ("sizes", "boxes", "labels")]
    output = losses(outputs[:count], outputs[count:], *rest)
    return keras.Model(inputs, output, name=detector.name)


class RotatedLosses(keras.layers.Layer):
    """Assigns objects to anchors, and computes the losses.

    Args:
        regression: str. As in `RotatedHead`.
        convention: str. As in `RotatedRetinaNet`; boxes are in this convention.
        objective: RotatedObjective.
        **kwargs: `name` and `dtype`, as in `keras.layers.Layer`.

    Inputs are the outputs of `RotatedHead`, and the sizes and objects of the images, as in
    `trained`. Output shape: `(N, 4)`.
    """

    def __init__(
        self, regression: str, convention: str, objective: RotatedObjective, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.shapes, self.coder = SHAPES[regression], CODERS[convention]
        self.objective = objective
        self.supports_jit = keras.config.backend() != "tensorflow"  # the sizes of levels vary

    def compute_output_spec(self, logits: Sequence[Any], *others: Any, **kwargs: Any) -> Any:
        """Returns the shape of the losses."""
        count = len(LOSSES) + len(MEASURED)
        return keras.KerasTensor((logits[0].shape[0], count), self.compute_dtype)

    def call(
        self, logits: Sequence[Any], deltas: Sequence[Any], sizes: Any, boxes: Any, labels: Any
    ) -> Any:
        """Computes the losses of a batch."""
        samples, per_position = ops.shape(labels)[0], self.shapes.per_position
        levels = rotated_anchors(logits, self.shapes)
        anchors = ops.concatenate(levels, axis=0)  # (A, 5)
        usable = at_valid_positions(logits, sizes, STRIDES, self.shapes)  # (N, A)
        classes = logits[0].shape[-1] // per_position
        scores = ops.concatenate([ops.reshape(x, (samples, -1, classes)) for x in logits], axis=1)
        changes = ops.concatenate([ops.reshape(x, (samples, -1, 5)) for x in deltas], axis=1)

        is_box = labels >= 0  # (N, M)
        if self.objective.assigner == "atss":
            matched = assigned_adaptively(boxes, is_box, levels, usable)
        else:
            matched = assigned_by_iou(boxes, is_box, anchors, usable)
        matched = ops.stop_gradient(matched)  # (N, A)
        is_positive = matched >= 0
        own = ops.maximum(matched, 0)
        label = ops.where(is_positive, ops.take_along_axis(labels, own, axis=1), -1)
        target = ops.take_along_axis(boxes, own[..., None], axis=1)  # (N, A, 5)
        # Other anchors get a target without infinite logarithms.
        target = ops.where(is_positive[..., None], target, anchors[None])
        found = decoded(changes, anchors[None], self.coder)

        positive = ops.cast(is_positive, scores.dtype)
        # An image without positives counts as one, as in mmdetection.
        count = ops.sum(ops.maximum(ops.sum(positive, axis=1), 1))
        one_hot = ops.cast(label[..., None] == ops.arange(classes), scores.dtype)
        used = ops.cast(matched != IGNORED, scores.dtype)[..., None]
        of_class = ops.sum(focal_loss(scores, one_hot) * used) / count
        iou = rotated_iou(found, target)
        error = self.box_error(iou, found, changes, target, anchors)
        of_box = self.objective.weight * ops.sum(error * positive) / count
        losses = [of_class, of_box, *_measured(iou, found, target, positive)]
        return ops.tile(ops.stack(losses)[None], (samples, 1))

    def box_error(self, iou: Any, found: Any, changes: Any, target: Any, anchors: Any) -> Any:
        """Returns the loss of the box of each anchor (N, A)."""
        kind = self.objective.loss
        if kind == "l1":
            expected = encoded(target, anchors[None], self.coder)
            return ops.sum(ops.abs(changes - expected), axis=-1)
        if kind == "kld":
            return kld_loss(found, target)
        return iou_loss(iou, kind.removeprefix("iou_"))


def _measured(iou: Any, found: Any, target: Any, positive: Any) -> tuple[Any, Any]:
    """Returns the values of `MEASURED`."""
    iou, found = ops.stop_gradient(iou), ops.stop_gradient(found)
    count = ops.maximum(ops.sum(positive), 1)
    missed = ops.sum(ops.cast(iou <= SMALLEST_IOU, positive.dtype) * positive) / count
    ratio = ops.log(found[..., 2] * found[..., 3]) - ops.log(target[..., 2] * target[..., 3])
    ratio = ratio / 2
    mean = ops.sum(ratio * positive) / count
    return missed, ops.sqrt(ops.sum(ops.square(ratio - mean) * positive) / count)
