"""What is trained of a detector: from images and their objects to the losses.

N is the number of images, M of objects (padded), A of anchors, P of proposals, S of samples.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_convnext.detection import boxes as box_ops
from keras_convnext.detection.anchors import at_valid_positions, inside, pyramid_anchors
from keras_convnext.detection.assigner import IGNORED, Overlaps, assigned
from keras_convnext.detection.builders import BOX_SIZE, CASCADE_STDS, MASK_SIZE, STDS
from keras_convnext.detection.losses import box_losses, mask_loss, proposal_losses
from keras_convnext.detection.proposals import proposed
from keras_convnext.detection.roi_align import crop_masks, roi_align
from keras_convnext.detection.sampler import sampled
from keras_convnext.detection.stages import refined
from keras_convnext.detection.weights import kind_of
from keras_convnext.network import at_least_float32

ANCHOR_OVERLAPS = Overlaps(positive=0.7, negative=0.3, rescue=0.3)


class Sampling(NamedTuple):
    """What a detector is trained on.

    Args:
        inside: bool. Whether only anchors inside the image are used.
        beta: float. Below which the L1 loss of anchors is quadratic.
        proposals: int. Regions after suppression.
        overlaps: tuple of Overlaps. Of regions with objects, for each box head.
        stds: tuple of tuples of floats. Of the deltas of each box head.
        weights: tuple of float. Of the losses of each box head and its mask head.
        generalized: bool. Whether boxes are compared by generalized IoU.
        before: int. Anchors of each level that are decoded.
        anchors: int. Anchors to sample, up to half of them positive.
        regions: int. Regions to sample, up to a quarter of them positive.
    """

    inside: bool
    beta: float
    proposals: int
    overlaps: tuple[Overlaps, ...]
    stds: tuple[tuple[float, ...], ...]
    weights: tuple[float, ...]
    generalized: bool
    before: int = 2000
    anchors: int = 256
    regions: int = 512


# facebookresearch/ConvNeXt, object_detection/configs: by the kind of detector.
SAMPLING = {
    "mask_rcnn": Sampling(
        inside=False, beta=0.0, proposals=1000, overlaps=(Overlaps(0.5, 0.5, 0.5),),
        stds=(STDS,), weights=(1.0,), generalized=False,
    ),
    "cascade_mask_rcnn": Sampling(
        inside=True, beta=1 / 9, proposals=2000,
        overlaps=tuple(Overlaps(iou, iou, None) for iou in (0.5, 0.6, 0.7)),
        stds=CASCADE_STDS, weights=(1.0, 0.5, 0.25), generalized=True,
    ),
}  # fmt: skip


def trained(
    detector: keras.Model, sampling: Sampling, size: tuple[int | None, int | None] = (None, None)
) -> keras.Model:
    """Returns a model of the same layers that computes the losses of a batch.

    Args:
        detector: keras.Model. Made by `MaskRCNN` or `CascadeMaskRCNN`.
        sampling: Sampling. Of its kind.
        size: tuple of int or None. Height and width of the batches.

    Returns:
        keras.Model. Its inputs are `images` (N, H, W, 3), `sizes` (N, 2), `boxes` (N, M, 4),
        `labels` (N, M), -1 for padding, and, with a mask head, `masks` (N, M, H, W). Its output
        has the losses in the order of `loss_names`, (N, losses): each is of the whole batch, and
        repeated for each image.
    """
    levels = detector.get_layer("pyramid").output
    head = detector.get_layer("proposal_head").output  # the logits of all levels, then the deltas
    features = keras.Model(detector.inputs, [*levels, *head])
    by_name = {tensor.name: tensor for tensor in detector.inputs}
    images = keras.Input((*size, by_name["images"].shape[-1]), name="images")
    inputs = {
        "images": images,
        "sizes": keras.Input((2,), name="sizes"),
        "boxes": keras.Input((None, 4), name="boxes"),
        "labels": keras.Input((None,), dtype="int32", name="labels"),
    }
    has_masks = any(layer.name.startswith("mask_head") for layer in detector.layers)
    if has_masks:
        inputs["masks"] = keras.Input((None, *size), dtype="uint8", name="masks")
    outputs = features([inputs[name] for name in by_name])
    count = len(levels)
    pyramid, objectness, deltas = (outputs[i : i + count] for i in range(0, 3 * count, count))
    losses = DetectionLosses(detector, sampling, dtype=at_least_float32(), name="losses")
    rest = [inputs[name] for name in ("sizes", "boxes", "labels")]
    output = losses(pyramid, objectness, deltas, *rest, inputs.get("masks"))
    return keras.Model(inputs, output, name=detector.name)


def loss_names(sampling: Sampling, masks: bool) -> list[str]:
    """Returns the names of the losses in the output of `trained`."""
    stages = len(sampling.weights)
    names = ["objectness", "anchor_box"]
    for stage in range(stages):
        suffix = f"_{stage}" if stages > 1 else ""
        names += [f"{name}{suffix}" for name in ("class", "box", *["mask"] * masks)]
    return names


class DetectionLosses(keras.layers.Layer):
    """Assigns objects to anchors and regions, samples them, and computes the losses.

    Args:
        detector: keras.Model. Its heads are used.
        sampling: Sampling.
        **kwargs: `name` and `dtype`, as in `keras.layers.Layer`.

    Inputs are the pyramid, the outputs of the proposal head, and the sizes and objects of the
    images, as in `trained`. Output shape: `(N, losses)`.
    """

    def __init__(self, detector: keras.Model, sampling: Sampling, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        stages = range(len(sampling.weights))
        suffixes = [f"_{stage}" for stage in stages] if kind_of(detector) != "mask_rcnn" else [""]
        heads = {layer.name: layer for layer in detector.layers}
        self.sampling = sampling
        self.box_heads = [heads[f"box_head{suffix}"] for suffix in suffixes]
        self.mask_heads = [heads[f"mask_head{s}"] for s in suffixes if f"mask_head{s}" in heads]
        self.seed_generator = keras.random.SeedGenerator()
        self.supports_jit = keras.config.backend() != "tensorflow"  # the sizes of windows vary

    def build(self, *shapes: Any) -> None:
        """Does nothing: the heads are built."""

    def compute_output_spec(self, pyramid: Sequence[Any], *others: Any, **kwargs: Any) -> Any:
        """Returns the shape of the losses."""
        count = len(loss_names(self.sampling, bool(self.mask_heads)))
        return keras.KerasTensor((pyramid[0].shape[0], count), self.compute_dtype)

    def call(
        self,
        pyramid: Sequence[Any],
        objectness: Sequence[Any],
        deltas: Sequence[Any],
        sizes: Any,
        boxes: Any,
        labels: Any,
        masks: Any = None,
        training: bool | None = None,
    ) -> Any:
        """Computes the losses of a batch."""
        own = self.sampling
        is_box = labels >= 0  # (N, M)
        objectness, deltas = ([ops.cast(x, "float32") for x in y] for y in (objectness, deltas))
        losses = list(self.of_anchors(objectness, deltas, sizes, boxes, is_box))
        scores, changes = ([ops.stop_gradient(x) for x in y] for y in (objectness, deltas))
        found = proposed(scores, changes, sizes, own.before, own.proposals)
        regions, is_region = found.boxes, found.scores >= 0  # (N, P, 4), (N, P)
        for stage, weight in enumerate(own.weights):
            of_stage, regions, is_region = self.of_stage(
                stage, pyramid[:-1], regions, is_region, sizes, boxes, labels, masks, training
            )
            losses += [weight * loss for loss in of_stage]
        return ops.tile(ops.stack(losses)[None], (ops.shape(sizes)[0], 1))

    def of_anchors(
        self, objectness: Sequence[Any], deltas: Sequence[Any], sizes: Any, boxes: Any, is_box: Any
    ) -> tuple[Any, Any]:
        """Returns the losses of the proposal head."""
        own, samples = self.sampling, ops.shape(sizes)[0]
        anchors = ops.concatenate(pyramid_anchors(objectness), axis=0)  # (A, 4)
        usable = at_valid_positions(objectness, sizes)  # (N, A)
        if own.inside:
            usable = ops.logical_and(usable, inside(anchors, sizes))
        ious = box_ops.pairwise_iou(boxes, anchors[None])  # (N, M, A)
        matched = assigned(ious, is_box, usable, ANCHOR_OVERLAPS)
        chosen = sampled(matched, self.draws(matched), own.anchors, 0.5)
        logits = ops.concatenate([ops.reshape(x, (samples, -1)) for x in objectness], axis=1)
        changes = ops.concatenate([ops.reshape(x, (samples, -1, 4)) for x in deltas], axis=1)
        return proposal_losses(logits, changes, anchors, boxes, chosen, own.beta)

    def of_stage(
        self,
        stage: int,
        pyramid: Sequence[Any],
        regions: Any,
        is_region: Any,
        sizes: Any,
        boxes: Any,
        labels: Any,
        masks: Any,
        training: bool | None,
    ) -> tuple[list[Any], Any, Any]:
        """Returns the losses of a box head and its mask head, and the refined regions."""
        own, head = self.sampling, self.box_heads[stage]
        is_box = labels >= 0
        matched = assigned(
            box_ops.pairwise_iou(boxes, regions), is_box, is_region, own.overlaps[stage]
        )  # (N, P)
        # The objects themselves are regions too.
        objects = ops.shape(boxes)[1]
        themselves = ops.where(is_box, ops.arange(objects, dtype="int32")[None], IGNORED)
        matched = ops.concatenate([themselves, matched], axis=1)
        regions = ops.concatenate([boxes, regions], axis=1)
        chosen = sampled(matched, self.draws(matched), own.regions, 0.25)
        regions = ops.take_along_axis(regions, chosen.indices[..., None], axis=1)  # (N, S, 4)
        regions = ops.stop_gradient(ops.where(chosen.is_sample[..., None], regions, 0.0))
        target = ops.take_along_axis(boxes, chosen.boxes[..., None], axis=1)
        label = ops.take_along_axis(labels, chosen.boxes, axis=1)
        label = ops.where(chosen.is_positive, label, head.classes)  # (N, S)

        pooled = roi_align(pyramid, regions, BOX_SIZE)
        logits, deltas = head(pooled, is_region=chosen.is_sample, training=training)
        logits, deltas = ops.cast(logits, "float32"), ops.cast(deltas, "float32")
        stds = own.stds[stage]
        losses = list(
            box_losses(logits, deltas, regions, target, label, chosen, stds, own.generalized)
        )
        if self.mask_heads:
            losses.append(self.of_masks(stage, pyramid, regions, label, chosen, masks))
        # Between stages, the background is refined as its most likely class.
        best = ops.cast(ops.argmax(logits[..., :-1], axis=-1), "int32")
        best = ops.where(chosen.is_positive, ops.minimum(label, head.classes - 1), best)
        regions = ops.stop_gradient(refined(regions, best, deltas, sizes, stds))
        return losses, regions, ops.logical_and(chosen.is_sample, chosen.indices >= objects)

    def of_masks(
        self,
        stage: int,
        pyramid: Sequence[Any],
        regions: Any,
        label: Any,
        chosen: Any,
        masks: Any,
    ) -> Any:
        """Returns the loss of the mask head, of the positive regions, which come first."""
        most = int(self.sampling.regions * 0.25)
        regions, label = regions[:, :most], label[:, :most]
        pooled = roi_align(pyramid, regions, MASK_SIZE)
        logits = ops.cast(self.mask_heads[stage](pooled), "float32")  # (N, P, 28, 28, classes)
        samples, objects, height, width = ops.shape(masks)
        of_image = ops.arange(samples, dtype="int32")[:, None] * objects
        targets = crop_masks(
            ops.reshape(masks, (samples * objects, height, width)),
            ops.reshape(of_image + chosen.boxes[:, :most], (-1,)),
            ops.reshape(regions, (-1, 4)),
            2 * MASK_SIZE,
        )
        targets = ops.reshape(targets, ops.shape(logits)[:-1])
        return mask_loss(logits, targets, label, chosen.is_positive[:, :most])

    def draws(self, matched: Any) -> Any:
        """Draws a random number in [0, 1) for each candidate."""
        return keras.random.uniform(ops.shape(matched), seed=self.seed_generator)
