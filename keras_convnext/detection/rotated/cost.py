"""Counts the parameters and multiply-accumulates of rotated RetinaNets, without building them."""

from keras_convnext.complexity import Part
from keras_convnext.detection.cost import parts_of_maps
from keras_convnext.variants import Variant

# As in `layers`, which imports Keras.
ANCHORS = {"expectation": 1, "direct": 9}
_BINS, DEPTH = 9, 4


def parts_of_rotated(
    variant: Variant,
    size: tuple[int, int] = (1024, 1024),
    classes: int = 15,
    *,
    regression: str = "expectation",
    channels: int = 256,
) -> tuple[Part, ...]:
    """Counts the weights and operations of each part of a rotated RetinaNet.

    Args:
        variant: Variant. The backbone.
        size: tuple (height, width), in pixels. Defaults to (1024, 1024).
        classes: int. Defaults to 15.
        regression: str. As in `RotatedRetinaNet`. Defaults to "expectation".
        channels: int. Width of the pyramid and the head. Defaults to 256.

    Returns:
        tuple of Part: the stem, the stages, the norms of the feature maps, the pyramid, and the
        head.
    """
    rows = parts_of_maps(variant, size)
    used = [part.output for part in rows[2:-1]]  # P3 to P5
    has_bins = regression == "expectation"
    square = 9 * channels**2
    positions = [height * width for height, width, _ in used]
    height, width, last = used[-1]
    for _ in range(2):  # P6 and P7
        height, width = -(-height // 2), -(-width // 2)
        positions.append(height * width)
    first = square if has_bins else 9 * last * channels  # of P6
    coarser = (first, square)
    pyramid = Part(
        "pyramid",
        0,
        (*used[0][:2], channels),
        sum((dim + 1) * channels + square + channels for *_, dim in used)
        + sum(coarser) + 2 * channels,
        sum(count * (dim * channels + square) for count, (*_, dim) in zip(positions, used))
        + sum(count * weights for count, weights in zip(positions[3:], coarser)),
    )  # fmt: skip
    anchors = ANCHORS[regression]
    outputs = anchors * (classes + 5 * (_BINS if has_bins else 1))
    extra = 2 * channels if has_bins else channels  # group norm, or a bias
    head = Part(
        "head",
        0,
        (*used[0][:2], outputs),
        2 * DEPTH * (square + extra) + (9 * channels + 1) * outputs,
        sum(positions) * (2 * DEPTH * square + 9 * channels * outputs),
    )
    return (*rows, pyramid, head)
