"""Counts the parameters and multiply-accumulates of UperNet, without building it."""

from collections.abc import Sequence

from keras_convnext.complexity import Part
from keras_convnext.complexity import parts as parts_of_trunk
from keras_convnext.variants import Variant

AUXILIARY_CHANNELS = 256


def parts(
    variant: Variant,
    size: tuple[int, int] = (512, 512),
    classes: int = 150,
    *,
    channels: int = 512,
    pool_scales: Sequence[int] = (1, 2, 3, 6),
    auxiliary: bool = True,
) -> tuple[Part, ...]:
    """Counts the weights and operations of each part of a UperNet.

    The published 939 to 3,335 GFLOPs for 512 x 2048 or 640 x 2560 px are the multiply-accumulates
    without the auxiliary head, which only training needs. They are up to 0.06 % larger, because the
    counter of mmcv adds norms, activations and pooling.

    Args:
        variant: Variant. The backbone.
        size: tuple (height, width), in pixels. Defaults to (512, 512).
        classes: int. Defaults to 150.
        channels: int. Width of the head. Defaults to 512.
        pool_scales: sequence of int. Grids of the pyramid pooling. Defaults to (1, 2, 3, 6).
        auxiliary: bool. Whether there is an auxiliary head. Defaults to True.

    Returns:
        tuple of Part: the stem, the stages, the norms of the feature maps, the pyramid pooling, the
        feature pyramid, their fusion, the classifier, and the auxiliary head.
    """
    trunk = parts_of_trunk(variant, size, 0)[:-1]
    maps = [part.output for part in trunk[1:]]
    norms = Part("norms", 0, maps[-1], 2 * sum(shape[-1] for shape in maps), 0)
    height, width, deepest = maps[-1]
    pooled = [_conv(deepest, channels, 1, scale, scale) for scale in pool_scales]
    bottleneck = _conv(deepest + len(pool_scales) * channels, channels, 3, height, width)
    pyramid = [
        each
        for height, width, dim in maps[:-1]
        for each in (
            _conv(dim, channels, 1, height, width),
            _conv(channels, channels, 3, height, width),
        )
    ]
    height, width, _ = maps[0]
    fusion = [_conv(len(maps) * channels, channels, 3, height, width)]
    rows = [
        *trunk,
        norms,
        _part("pyramid pooling", maps[-1][:2], channels, [*pooled, bottleneck]),
        _part("feature pyramid", maps[0][:2], channels, pyramid),
        _part("fusion", maps[0][:2], channels, fusion),
        _classifier("classifier", maps[0][:2], channels, classes),
    ]
    if auxiliary:
        height, width, dim = maps[2]
        parameters, macs = _conv(dim, AUXILIARY_CHANNELS, 3, height, width)
        last = _classifier("auxiliary head", (height, width), AUXILIARY_CHANNELS, classes)
        rows.append(last._replace(parameters=last.parameters + parameters, macs=last.macs + macs))
    return tuple(rows)


def _conv(before: int, after: int, side: int, height: int, width: int) -> tuple[int, int]:
    """Returns the parameters and operations of a convolution without bias and its batch norm."""
    weights = side**2 * before * after
    return weights + 2 * after, weights * height * width


def _part(
    name: str, sides: tuple[int, ...], channels: int, counted: Sequence[tuple[int, int]]
) -> Part:
    parameters, macs = (sum(each) for each in zip(*counted))
    return Part(name, 0, (*sides, channels), parameters, macs)


def _classifier(name: str, sides: tuple[int, ...], channels: int, classes: int) -> Part:
    height, width = sides
    parameters = (channels + 1) * classes
    return Part(name, 0, (height, width, classes), parameters, channels * classes * height * width)
