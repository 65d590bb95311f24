"""The horizontal anchors of rotated RetinaNets, as (cx, cy, w, h, 0)."""

from collections.abc import Sequence
from typing import Any

from keras import ops

from keras_convnext.detection.anchors import Shapes, pyramid_anchors

STRIDES = (8, 16, 32, 64, 128)  # of P3 to P7

# By the regression: Xuyihaoby/rotate_detection, gfl_convnext_tiny_fpn_1x.py; and Lin et al.,
# arXiv 1708.02002, section 4, in the order of mmrotate.
SHAPES = {
    "expectation": Shapes((1.0,), (4.0,)),
    "direct": Shapes((1.0, 0.5, 2.0), tuple(4 * 2 ** (octave / 3) for octave in range(3))),
}


def rotated_anchors(maps: Sequence[Any], shapes: Shapes) -> list[Any]:
    """Returns the anchors (A, 5) of each of the maps P3 to P7, (N, H, W, C)."""
    levels = []
    for corners in pyramid_anchors(maps, STRIDES, shapes):
        first, last = corners[:, :2], corners[:, 2:]
        parts = [(first + last) / 2, last - first, ops.zeros_like(corners[:, :1])]
        levels.append(ops.concatenate(parts, axis=-1))
    return levels
