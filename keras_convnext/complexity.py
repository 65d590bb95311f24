"""Counts the parameters and multiply-accumulates of a network, per stage, without building it."""

from typing import NamedTuple

from keras_convnext.variants import Variant


class Part(NamedTuple):
    """Size and cost of one part of a network.

    Args:
        name: str. "stem", "stage 0" and so on, "head".
        blocks: int. Number of blocks; 0 outside the stages.
        output: tuple of int. Output shape for one image: (H, W, C), or (classes,).
        parameters: int. Number of weights.
        macs: int. Multiply-accumulates of the convolutions and dense layers for one image, counted
            as in the paper.
    """

    name: str
    blocks: int
    output: tuple[int, ...]
    parameters: int
    macs: int


def parts(
    variant: Variant, size: tuple[int, int] = (224, 224), classes: int = 1000
) -> tuple[Part, ...]:
    """Counts the weights and operations of each part of a network.

    A stage includes the downsampling before it.

    Args:
        variant: Variant.
        size: tuple (height, width), in pixels. Defaults to (224, 224).
        classes: int. Defaults to 1000.

    Returns:
        tuple of Part: the stem, the stages, the head.
    """
    height, width = (side // variant.patch_size for side in size)
    dim = variant.dims[0]
    patch = variant.patch_size**2 * 3 * dim
    norm = 0 if variant.isotropic else 2 * dim
    weights, macs = patch + dim, patch * height * width
    if variant.overlap is not None:
        first, second = 9 * 3 * variant.overlap, 9 * variant.overlap * dim
        halves = [-(-side // 2) for side in size]
        height, width = (-(-side // 2) for side in halves)
        weights = first + variant.overlap + second + dim
        macs = first * halves[0] * halves[1] + second * height * width
    rows = [Part("stem", 0, (height, width, dim), weights + norm, macs)]
    for stage, (depth, dim) in enumerate(zip(variant.depths, variant.dims)):
        parameters = macs = 0
        if stage > 0:
            before = variant.dims[stage - 1]
            height, width = height // 2, width // 2
            parameters += 2 * before + 4 * before * dim + dim
            macs += 4 * before * dim * height * width
        weights = variant.kernel_size**2 * dim + 2 * 4 * dim**2
        biases = dim + 2 * dim + 4 * dim + dim  # of dwconv, norm (and its scale), pwconv1, pwconv2
        scales = 0 if variant.layer_scale is None else dim
        scales += 2 * 4 * dim if variant.grn else 0
        parameters += depth * (weights + biases + scales)
        macs += depth * weights * height * width
        rows.append(Part(f"stage {stage}", depth, (height, width, dim), parameters, macs))
    hidden = variant.hidden or 0
    width = hidden or dim
    rows.append(Part(
        "head", 0, (classes,), 2 * dim + (dim + 1) * hidden + (width + 1) * classes,
        dim * hidden + width * classes,
    ))  # fmt: skip
    return tuple(rows)
