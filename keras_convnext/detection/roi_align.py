"""RoIAlign: samples feature maps within regions (He et al., "Mask R-CNN", arXiv 1703.06870).

Each region is divided into bins, each bin into the smallest grid whose cells are at most one
position large (a sampling ratio of 0), and the map is interpolated at the center of each cell.
Regions are shifted by half a position (`aligned=True`). As in open-mmlab/mmcv, mmcv/ops/csrc, a
sample up to one position outside of the map takes the value at its border, and one further outside
counts as 0.

Interpolation and means are linear in the map, and separate into rows and columns. So a bin is a
weighted sum over the positions of a window of the map, with the product of a weight for the row
and one for the column. Memory and time depend on the windows, not on the number of samples, and
the windows of a few regions at a time are in memory.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

STRIDES = (4, 8, 16, 32)  # of P2 to P5
FINEST_SCALE = 56  # pixels: of twice the side, a region is pooled from the next coarser level
_CHUNK = 16  # regions whose windows are in memory at the same time


def levels_of(boxes: Any, levels: int = len(STRIDES)) -> Any:
    """Returns the level of the pyramid for each region (..., 4): Lin et al., equation 1.

    Returns:
        int32 tensor (...), from 0 for P2.
    """
    x1, y1, x2, y2 = ops.unstack(boxes, 4, axis=-1)
    scale = ops.sqrt(ops.maximum((x2 - x1) * (y2 - y1), 0))
    level = ops.floor(ops.log2(scale / FINEST_SCALE + 1e-6))
    return ops.cast(ops.clip(level, 0, levels - 1), "int32")


def roi_align(maps: Sequence[Any], boxes: Any, size: int, strides: Sequence[int] = STRIDES) -> Any:
    """Pools regions from the level of a pyramid that fits their size.

    Args:
        maps: tensors (N, H, W, C). The levels, finest first.
        boxes: tensor (N, R, 4). Regions in pixels, to which there is no gradient.
        size: int. Rows and columns of the result.
        strides: ints. Pixels between two positions of each level. Defaults to those of P2 to P5.

    Returns:
        Tensor (N, R, size, size, C).
    """
    boxes = ops.stop_gradient(ops.cast(boxes, "float32"))
    samples, regions = ops.shape(boxes)[:2]
    channels = maps[0].shape[-1]
    shapes = [ops.shape(each)[1:3] for each in maps]
    table = ops.concatenate(
        [ops.reshape(each, (samples, height * width, channels))
         for each, (height, width) in zip(maps, shapes)], axis=1,
    )  # fmt: skip
    positions = ops.shape(table)[1]
    table = ops.reshape(table, (samples * positions, channels))

    level = ops.reshape(levels_of(boxes, len(maps)), (-1,))  # (N * R,)
    heights, widths = (
        ops.convert_to_tensor([shape[axis] for shape in shapes], "int32") for axis in (0, 1)
    )
    first_of_level = ops.cumsum(heights * widths) - heights * widths
    sample = ops.repeat(ops.arange(samples, dtype="int32"), regions)
    first = sample * positions + ops.take(first_of_level, level)
    height, width = ops.take(heights, level), ops.take(widths, level)
    scale = ops.take(ops.convert_to_tensor([1 / stride for stride in strides], "float32"), level)
    corners = ops.reshape(boxes, (-1, 4)) * scale[:, None] - 0.5
    rows = _window(corners[:, 1], corners[:, 3], height, size)
    columns = _window(corners[:, 0], corners[:, 2], width, size)
    area = rows[1] * columns[1]

    order = ops.cast(ops.argsort(area), "int32")
    count = ops.shape(order)[0]
    chunks = -(-count // _CHUNK)
    padded = ops.minimum(ops.arange(chunks * _CHUNK, dtype="int32"), count - 1)
    order = ops.take(order, padded)
    each = [corners, first, height, width, *rows, *columns]
    chunked = [
        ops.reshape(ops.take(x, order, axis=0), (chunks, _CHUNK, *x.shape[1:])) for x in each
    ]
    largest = _largest_window(shapes) if keras.config.backend() == "jax" else None

    def pool(each: Any) -> Any:
        corners, first, height, width, row, rows, column, columns = each
        cell = ops.arange(largest or _as_size(ops.max(rows * columns)), dtype="int32")[None]
        row_of_cell, column_of_cell = cell // columns[:, None], cell % columns[:, None]
        is_inside = row_of_cell < rows[:, None]  # (K, A)
        y, x = row[:, None] + row_of_cell, column[:, None] + column_of_cell
        position = ops.where(is_inside, first[:, None] + y * width[:, None] + x, 0)
        cells = ops.cast(ops.take(table, position, axis=0), "float32")  # (K, A, C)
        by_row = _weights(corners[:, 1], corners[:, 3], height, y, size)  # (K, size, A)
        by_column = _weights(corners[:, 0], corners[:, 2], width, x, size)
        by_row = ops.where(is_inside[:, None], by_row, 0)
        weights = by_row[:, :, None] * by_column[:, None, :]  # (K, size, size, A)
        weights = ops.reshape(weights, (_CHUNK, size * size, -1))
        return ops.reshape(ops.matmul(weights, cells), (_CHUNK, size, size, channels))

    pooled = ops.map(pool, chunked)  # (chunks, K, size, size, C)
    pooled = ops.reshape(pooled, (chunks * _CHUNK, size, size, channels))
    pooled = ops.take(pooled, ops.argsort(order[:count]), axis=0)
    pooled = ops.reshape(pooled, (samples, regions, size, size, channels))
    return ops.cast(pooled, table.dtype)


def crop_masks(masks: Any, indices: Any, boxes: Any, size: int) -> Any:
    """Pools regions from masks, and returns where at least half of a bin is covered.

    Args:
        masks: tensor (B, H, W). 0 or 1 for each pixel.
        indices: int tensor (K,). Of the mask of each region.
        boxes: tensor (K, 4). Regions in pixels.
        size: int. Rows and columns of the result.

    Returns:
        float32 tensor (K, size, size), 0 or 1.
    """
    corners = ops.cast(boxes, "float32") - 0.5
    height, width = ops.shape(masks)[1:]

    def crop(each: Any) -> Any:
        index, corners = each
        by_row = _of_axis(corners[1], corners[3], height, size)  # (size, H)
        by_column = _of_axis(corners[0], corners[2], width, size)  # (size, W)
        mask = ops.cast(ops.take(masks, index, axis=0), "float32")
        return ops.matmul(ops.matmul(by_row, mask), ops.transpose(by_column))

    covered = ops.map(crop, (indices, corners))
    return ops.cast(covered >= 0.5, "float32")


def _of_axis(start: Any, end: Any, length: Any, size: int) -> Any:
    position = ops.arange(length, dtype="int32")[None]
    return _weights(start[None], end[None], ops.reshape(length, (1,)), position, size)[0]


def _window(start: Any, end: Any, length: Any, size: int) -> tuple[Any, Any]:
    """Returns the first position of an axis that regions touch, and the number of positions."""
    last = ops.cast(length - 1, "float32")
    step = (end - start) / (size * _grid(start, end, size))
    low = ops.floor(ops.clip(start + step / 2, 0, last))
    high = ops.minimum(ops.floor(ops.clip(end - step / 2, 0, last)) + 1, last)
    low, high = ops.cast(low, "int32"), ops.cast(high, "int32")
    return low, ops.maximum(high - low, 0) + 1


def _grid(start: Any, end: Any, size: int) -> Any:
    """Returns the samples of a bin along an axis, at least 1."""
    return ops.maximum(ops.ceil((end - start) / size), 1)


def _weights(start: Any, end: Any, length: Any, position: Any, size: int) -> Any:
    """Returns the weight of positions of an axis in each bin.

    At most a few samples interpolate a position, because they are more than half a position apart
    if a bin has more than one. Positions are counted from the region's start, for precision.

    Args:
        start: tensor (K,). Of the regions.
        end: tensor (K,).
        length: int32 tensor (K,). Positions of the axis.
        position: int32 tensor (K, A) or (1, A).
        size: int. Bins.

    Returns:
        Tensor (K, size, A).
    """
    side = (end - start)[:, None, None, None]
    grid = _grid(start, end, size)[:, None, None, None]
    step = side / (size * grid)
    bins = ops.cast(ops.arange(size), "float32")[None, :, None, None]
    offset = bins * side / size + step / 2  # of the first sample of a bin, from the start
    position = ops.cast(position, "float32")[:, None, :, None]
    apart = position - start[:, None, None, None]  # of the position from the start
    last = ops.cast(length, "float32")[:, None, None, None] - 1
    nearest = ops.ceil((apart - 1 - offset) / ops.where(step > 0, step, 1))
    nearest = ops.where(grid > 1, nearest, 1.0)
    number = nearest + ops.cast(ops.arange(-1, 5), "float32")  # (K, size, A, 6)
    beyond = offset + number * step - apart  # of the sample from the position
    sample = position + beyond
    is_border = ops.logical_or(
        ops.logical_and(position == 0, beyond <= 0), ops.logical_and(position == last, beyond >= 0)
    )
    value = ops.where(is_border, 1.0, ops.maximum(1 - ops.abs(beyond), 0))
    is_sample = ops.logical_and(number >= 0, number < grid)
    is_near = ops.logical_and(sample >= -1, sample <= last + 1)
    value = ops.where(ops.logical_and(is_sample, is_near), value, 0)
    return ops.where(side > 0, ops.sum(value, axis=-1, keepdims=True) / grid, 0)[..., 0]


def _as_size(value: Any) -> Any:
    return int(value) if keras.config.backend() == "torch" else value


def _largest_window(shapes: Sequence[tuple[int, int]]) -> int:
    """Returns a bound on the positions that a region touches, from the rule for its level.

    A region of any but the coarsest level has an area of less than 28 x 28 positions, and touches
    three more rows and columns. The bound is largest for the longest region.
    """
    area = (2 * FINEST_SCALE / STRIDES[0]) ** 2 * 1.01
    bounds = [shapes[-1][0] * shapes[-1][1]]
    for height, width in shapes[:-1]:
        longest = max(height, width)
        thin = area + 3 * longest + 3 * area / longest + 9
        bounds.append(min(height * width, int(thin)))
    return max(bounds)
