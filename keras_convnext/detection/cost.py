"""Counts the parameters and multiply-accumulates of detectors, without building them."""

from keras_convnext.complexity import Part
from keras_convnext.complexity import parts as parts_of_trunk
from keras_convnext.variants import Variant

_ANCHORS = 3


def parts(
    variant: Variant,
    size: tuple[int, int] = (800, 1280),
    classes: int = 80,
    *,
    cascade: bool = False,
    masks: bool = True,
    channels: int = 256,
    hidden: int = 1024,
    proposals: int = 1000,
    detections: int = 100,
) -> tuple[Part, ...]:
    """Counts the weights and operations of each part of a detector.

    The published 262 to 1,898 GFLOPs for 1280 x 800 px are multiply-accumulates.

    Args:
        variant: Variant. The backbone.
        size: tuple (height, width), in pixels. Defaults to (800, 1280).
        classes: int. Defaults to 80.
        cascade: bool. Whether it is Cascade Mask R-CNN. Defaults to False.
        masks: bool. Whether there is a mask head. Defaults to True.
        channels: int. Width of the pyramid and the heads. Defaults to 256.
        hidden: int. Width of the dense layers. Defaults to 1024.
        proposals: int. Regions that the box head classifies. Defaults to 1000.
        detections: int. Regions for which masks are predicted. Defaults to 100.

    Returns:
        tuple of Part: the stem, the stages, the norms of the feature maps, the pyramid, the
        proposal head, the box heads and the mask heads.
    """
    backbone = parts_of_maps(variant, size)
    maps = [part.output for part in backbone[1:-1]]
    positions = [height * width for height, width, _ in maps]
    height, width, _ = maps[-1]
    positions.append(-(-height // 2) * -(-width // 2))  # P6
    square = 9 * channels**2
    pyramid = Part(
        "pyramid",
        0,
        (*maps[0][:2], channels),
        sum((dim + 1) * channels + square + channels for _, _, dim in maps),
        sum(count * (dim * channels + square) for count, (_, _, dim) in zip(positions, maps)),
    )
    outputs = 5 * _ANCHORS  # a logit and four deltas
    proposal_head = Part(
        "proposal head",
        0,
        (*maps[0][:2], outputs),
        square + channels + (channels + 1) * outputs,
        sum(positions) * (square + channels * outputs),
    )
    stages = 3 if cascade else 1
    flat = 49 * channels
    last = classes + 1 + 4 * classes
    dense = flat * hidden + hidden * last + (0 if cascade else hidden**2)
    biases = hidden + last + (4 * 2 * channels if cascade else hidden)
    convolutions = 4 * square if cascade else 0
    box_head = Part(
        "box head",
        0,
        (proposals, last),
        stages * (dense + biases + convolutions),
        stages * proposals * (dense + 49 * convolutions),
    )
    rows = [*backbone, pyramid, proposal_head, box_head]
    if masks:
        upsample, classifier = 4 * channels**2, channels * classes
        rows.append(
            Part(
                "mask head",
                0,
                (detections, 28, 28, classes),
                stages * (4 * (square + channels) + upsample + channels + classifier + classes),
                stages * detections * (196 * (4 * square + upsample) + 784 * classifier),
            )
        )
    return tuple(rows)


def parts_of_maps(variant: Variant, size: tuple[int, int]) -> tuple[Part, ...]:
    """Counts the stem, the stages, and the norms of the feature maps."""
    trunk = parts_of_trunk(variant, size, 0)[:-1]
    maps = [part.output for part in trunk[1:]]
    return (*trunk, Part("norms", 0, maps[-1], 2 * sum(shape[-1] for shape in maps), 0))
