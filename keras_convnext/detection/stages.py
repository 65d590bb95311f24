"""The steps of detectors without weights, as layers: padding, proposals, RoIAlign, refinement.

Coordinates are computed in float32 at least, under any precision policy.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import KerasTensor, ops

from keras_convnext.detection import boxes as box_ops
from keras_convnext.detection.nms import best_of_classes
from keras_convnext.detection.proposals import proposed
from keras_convnext.detection.roi_align import roi_align

_register = keras.saving.register_keras_serializable(package="keras_convnext")


@_register
class FillPadding(keras.layers.Layer):
    """Sets the padding of a batch of images to a value, zero after normalization.

    Args:
        value: float or sequence of float. Of the padding, for each channel.
        **kwargs: `name` and `dtype`, as in `keras.layers.Layer`.

    Input shape: images `(N, H, W, C)` and sizes `(N, 2)`, height and width. Output shape:
    `(N, H, W, C)`.
    """

    def __init__(self, value: float | Sequence[float] = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.value = value

    def call(self, images: Any, sizes: Any) -> Any:
        """Fills the padding of `images`."""
        _, height, width, _ = ops.shape(images)
        rows = ops.arange(height)[None] < ops.cast(sizes[:, :1], "int32")  # (N, H)
        columns = ops.arange(width)[None] < ops.cast(sizes[:, 1:], "int32")
        is_inside = ops.logical_and(rows[:, :, None], columns[:, None])[..., None]
        return ops.where(is_inside, images, ops.convert_to_tensor(self.value, images.dtype))

    def compute_output_shape(self, images_shape: Any, sizes_shape: Any) -> Any:
        """Returns the shape of the images."""
        return images_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "value": self.value}


@_register
class Propose(keras.layers.Layer):
    """Selects proposals, as `proposed` does.

    Args:
        before: int. Anchors of each level that are decoded. Defaults to 1000.
        after: int. Proposals to return. Defaults to 1000.
        **kwargs: `name` and `dtype`, as in `keras.layers.Layer`.

    Input shape: the outputs of `ProposalHead`, and sizes `(N, 2)`. Output shape: boxes
    `(N, after, 4)` and scores `(N, after)`, -1 for padding.
    """

    def __init__(self, before: int = 1000, after: int = 1000, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.before, self.after = before, after
        self.supports_jit = keras.config.backend() != "tensorflow"  # the sizes of levels vary

    def call(self, objectness: Sequence[Any], deltas: Sequence[Any], sizes: Any) -> tuple[Any, Any]:
        """Selects the proposals of each image."""
        found = proposed(objectness, deltas, sizes, self.before, self.after)
        return found.boxes, found.scores

    def compute_output_spec(
        self, objectness: Sequence[Any], deltas: Sequence[Any], sizes: Any
    ) -> tuple[Any, Any]:
        """Returns the shapes of boxes and scores."""
        shape = (sizes.shape[0], self.after)
        return KerasTensor((*shape, 4), self.compute_dtype), KerasTensor(shape, self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "before": self.before, "after": self.after}


@_register
class RoIAlign(keras.layers.Layer):
    """Pools regions from the level of a pyramid that fits their size, as `roi_align` does.

    Args:
        size: int. Rows and columns of the result.
        **kwargs: `name` and `dtype`, as in `keras.layers.Layer`.

    Input shape: boxes `(N, R, 4)`, and a list of maps `(N, H, W, C)`, P2 to P5. Output shape:
    `(N, R, size, size, C)`.
    """

    def __init__(self, size: int, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)  # half precision cannot hold coordinates
        self.size = size
        self.supports_jit = keras.config.backend() != "tensorflow"  # the sizes of windows vary

    def call(self, boxes: Any, maps: Sequence[Any]) -> Any:
        """Pools `boxes` from `maps`."""
        return roi_align(maps, boxes, self.size)

    def compute_output_spec(self, boxes: Any, maps: Sequence[Any]) -> Any:
        """Returns the shape of the pooled regions."""
        shape = (*boxes.shape[:2], self.size, self.size, maps[0].shape[-1])
        return KerasTensor(shape, maps[0].dtype)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        config = super().get_config()
        return {**config, "size": self.size}


@_register
class Refine(keras.layers.Layer):
    """Changes regions by the deltas of their most likely class, between two stages of a cascade.

    Args:
        stds: four floats. Of the deltas.
        **kwargs: `name` and `dtype`, as in `keras.layers.Layer`.

    Input shape: boxes `(N, R, 4)`, logits `(N, R, classes + 1)`, deltas `(N, R, classes, 4)` and
    sizes `(N, 2)`. Output shape: `(N, R, 4)`.
    """

    def __init__(self, stds: Sequence[float], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.stds = tuple(stds)

    def call(self, boxes: Any, logits: Any, deltas: Any, sizes: Any) -> Any:
        """Refines `boxes`."""
        label = ops.top_k(logits[..., :-1], 1)[1][..., 0]  # (N, R)
        return refined(boxes, label, deltas, sizes, self.stds)

    def compute_output_shape(self, boxes_shape: Any, *others: Any) -> Any:
        """Returns the shape of the boxes."""
        return boxes_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {**super().get_config(), "stds": self.stds}


def refined(boxes: Any, label: Any, deltas: Any, sizes: Any, stds: Sequence[float]) -> Any:
    """Changes boxes (N, R, 4) by the deltas (N, R, classes, 4) of one label each, and clips."""
    own = ops.take_along_axis(deltas, label[..., None, None], axis=2)[:, :, 0]
    return box_ops.clipped(box_ops.decoded(own, boxes, tuple(stds)), sizes)


@_register
class Detect(keras.layers.Layer):
    """Selects detections: the best boxes of all classes, without duplicates in a class.

    Args:
        stds: four floats. Of the deltas.
        score_threshold: float. A score must be above it. Defaults to 0.05.
        iou_threshold: float. Above which a box is a duplicate of a better one. Defaults to 0.5.
        detections: int. The most to return. Defaults to 100.
        **kwargs: `name` and `dtype`, as in `keras.layers.Layer`.

    Input shape: proposals `(N, R, 4)`, their scores `(N, R)`, logits `(N, R, classes + 1)`, deltas
    `(N, R, classes, 4)` and sizes `(N, 2)`. Output: a dict of `boxes`, `scores`, `labels` and
    `num_detections`.
    """

    def __init__(
        self,
        stds: Sequence[float],
        score_threshold: float = 0.05,
        iou_threshold: float = 0.5,
        detections: int = 100,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.stds = tuple(stds)
        self.score_threshold, self.iou_threshold = score_threshold, iou_threshold
        self.detections = detections

    def call(
        self, proposals: Any, proposal_scores: Any, logits: Any, deltas: Any, sizes: Any
    ) -> dict[str, Any]:
        """Selects the detections of each image."""
        scores = ops.softmax(logits, axis=-1)[..., :-1]  # (N, R, classes)
        scores = ops.where(proposal_scores[..., None] >= 0, scores, 0.0)
        boxes = box_ops.decoded(deltas, proposals[:, :, None], self.stds)
        boxes = box_ops.clipped(boxes, sizes)  # (N, R, classes, 4)
        found = best_of_classes(
            boxes, scores, self.score_threshold, self.iou_threshold, self.detections
        )
        return {
            "boxes": found.boxes,
            "scores": found.scores,
            "labels": found.labels,
            "num_detections": found.count,
        }

    def compute_output_spec(self, proposals: Any, *others: Any) -> dict[str, Any]:
        """Returns the shapes of the detections."""
        samples, most, dtype = proposals.shape[0], self.detections, self.compute_dtype
        return {
            "boxes": KerasTensor((samples, most, 4), dtype),
            "scores": KerasTensor((samples, most), dtype),
            "labels": KerasTensor((samples, most), "int32"),
            "num_detections": KerasTensor((samples,), "int32"),
        }

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        names = ("stds", "score_threshold", "iou_threshold", "detections")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


@_register
class SelectMasks(keras.layers.Layer):
    """Returns the mask of the class of each detection, in 0..1, 0 for padding.

    Input shape: logits `(N, D, 28, 28, classes)` and labels `(N, D)`, -1 for padding. Output shape:
    `(N, D, 28, 28)`.
    """

    def call(self, logits: Any, labels: Any) -> Any:
        """Selects from `logits`."""
        labels = labels[..., None, None, None]
        own = ops.take_along_axis(logits, ops.maximum(labels, 0), axis=-1)  # (N, D, 28, 28, 1)
        return ops.where(labels < 0, 0.0, ops.sigmoid(own))[..., 0]

    def compute_output_shape(self, logits_shape: Any, labels_shape: Any) -> Any:
        """Returns the shape of the masks."""
        return logits_shape[:-1]
