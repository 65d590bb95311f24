"""Anchors: the reference boxes at each position of a pyramid (Ren et al., arXiv 1506.01497)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from keras import ops

STRIDES = (4, 8, 16, 32, 64)  # of P2 to P6


class Shapes(NamedTuple):
    """The anchors at each position.

    Args:
        ratios: tuple of float. Height by width.
        scales: tuple of float. Side of a square anchor, in strides.
    """

    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    scales: tuple[float, ...] = (8.0,)

    @property
    def per_position(self) -> int:
        """Number of anchors at each position."""
        return len(self.ratios) * len(self.scales)


PROPOSALS = Shapes()


def anchors_around_zero(stride: int, shapes: Shapes = PROPOSALS) -> list[tuple[float, ...]]:
    """Returns the anchors of a position of a level, centered on the origin."""
    sides = [
        (scale * stride * ratio**-0.5, scale * stride * ratio**0.5)
        for ratio in shapes.ratios
        for scale in shapes.scales
    ]
    return [(-w / 2, -h / 2, w / 2, h / 2) for w, h in sides]


def anchors_of_level(height: Any, width: Any, stride: int, shapes: Shapes = PROPOSALS) -> Any:
    """Returns the anchors of one level of the pyramid, by row, column, ratio and scale.

    An anchor is centered on the upper left corner of its cell, as in open-mmlab/mmdetection,
    mmdet/models/task_modules/prior_generators/anchor_generator.py.

    Args:
        height: int or scalar tensor. Rows of the level.
        width: int or scalar tensor. Columns of the level.
        stride: int. Pixels between two positions.
        shapes: Shapes. Defaults to those of proposals.

    Returns:
        float32 tensor (height * width * shapes.per_position, 4).
    """
    ys = ops.cast(ops.arange(height) * stride, "float32")
    xs = ops.cast(ops.arange(width) * stride, "float32")
    ys, xs = ops.meshgrid(ys, xs, indexing="ij")
    corners = ops.stack([xs, ys, xs, ys], axis=-1)  # (height, width, 4)
    anchors = corners[..., None, :] + ops.convert_to_tensor(
        anchors_around_zero(stride, shapes), "float32"
    )
    return ops.reshape(anchors, (-1, 4))


def pyramid_anchors(
    maps: Sequence[Any], strides: Sequence[int] = STRIDES, shapes: Shapes = PROPOSALS
) -> list[Any]:
    """Returns the anchors of each feature map (N, H, W, C) of a pyramid."""
    sides = [ops.shape(each)[1:3] for each in maps]
    return [
        anchors_of_level(height, width, stride, shapes)
        for (height, width), stride in zip(sides, strides)
    ]


def inside(anchors: Any, sizes: Any, border: float = 0) -> Any:
    """Returns which anchors lie within each image.

    Args:
        anchors: tensor (A, 4).
        sizes: tensor (N, 2). Height and width of each image.
        border: float. Pixels by which they may reach outside. Defaults to 0.

    Returns:
        bool tensor (N, A).
    """
    heights, widths = sizes[:, :1], sizes[:, 1:]
    x1, y1, x2, y2 = ops.unstack(anchors, 4, axis=-1)
    first = ops.logical_and(x1 >= -border, y1 >= -border)
    last = ops.logical_and(x2 < widths + border, y2 < heights + border)
    return ops.logical_and(first, last)


def at_valid_positions(
    maps: Sequence[Any],
    sizes: Any,
    strides: Sequence[int] = STRIDES,
    shapes: Shapes = PROPOSALS,
) -> Any:
    """Returns which anchors of a pyramid are not in the padding of a batch.

    An image is padded to multiples of 32 pixels; the batch may be larger.

    Args:
        maps: tensors (N, H, W, C). The levels of the pyramid.
        sizes: tensor (N, 2). Height and width of each image.
        strides: ints. Of the levels.
        shapes: Shapes. Of the anchors.

    Returns:
        bool tensor (N, A), in the order of `pyramid_anchors`.
    """
    padded = ops.ceil(ops.cast(sizes, "float32") / 32) * 32
    flags = []
    for each, stride in zip(maps, strides):
        height, width = ops.shape(each)[1:3]
        within = padded[..., None] / stride  # (N, 2, 1)
        rows = ops.cast(ops.arange(height), "float32") < within[:, 0]  # (N, H)
        columns = ops.cast(ops.arange(width), "float32") < within[:, 1]
        cells = ops.logical_and(rows[:, :, None], columns[:, None])  # (N, H, W)
        cells = ops.repeat(cells[..., None], shapes.per_position, axis=-1)
        flags.append(
            ops.reshape(cells, (ops.shape(cells)[0], height * width * shapes.per_position))
        )
    return ops.concatenate(flags, axis=1)
