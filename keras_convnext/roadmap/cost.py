"""Counts the parameters and multiply-accumulates of a step without building it."""

from keras_convnext import complexity
from keras_convnext.complexity import Part
from keras_convnext.roadmap import layout
from keras_convnext.roadmap.layout import POOL, Unit
from keras_convnext.roadmap.steps import Regime, Step, find
from keras_convnext.variants import VARIANTS, Variant

_PUBLISHED = {"resnet50": "convnext_tiny", "resnet200": "convnext_base"}


def variant_of(step: Step, regime: Regime) -> Variant | None:
    """Returns the ConvNeXt at the end of the road, or None if the step is not the last."""
    if step.layer_scale is None:
        return None
    if regime.name in _PUBLISHED:
        return VARIANTS[_PUBLISHED[regime.name]]
    return Variant(
        "convnext",
        regime.depths_of(step),
        regime.dims_of(step),
        step.layer_scale,
        regime.stem_stride,
        step.kernel_size,
        size=regime.size,
    )


class _Counter:
    """Counts units one after the other, from an image on."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.shape = (*size, 3)
        self.parameters = self.macs = 0

    def add(self, unit: Unit) -> None:
        """Counts a convolution and its norm."""
        *sides, channels = self.shape
        height, width = (_strided(side, unit.kernel_size, unit.stride) for side in sides)
        weights = unit.kernel_size**2 * unit.filters * (1 if unit.depthwise else channels)
        self.shape = height, width, unit.filters
        self.parameters += weights + unit.use_bias * unit.filters
        self.macs += weights * height * width
        if unit.norm:
            self.add_norm()

    def add_norm(self) -> None:
        """Counts a scale and a shift per channel."""
        self.parameters += 2 * self.shape[-1]

    def pool(self) -> None:
        """Applies the max pooling of the stem."""
        height, width, channels = self.shape
        self.shape = _strided(height, *POOL), _strided(width, *POOL), channels

    def part(self, name: str, blocks: int) -> Part:
        """Returns what has been counted since the last part."""
        found = Part(name, blocks, self.shape, self.parameters, self.macs)
        self.parameters = self.macs = 0
        return found


def parts(
    step: str | Step,
    regime: str = "resnet50",
    size: tuple[int, int] | None = None,
    classes: int | None = None,
) -> tuple[Part, ...]:
    """Counts the trainable weights and operations of each part of a step.

    A stage includes the downsampling before it. The moving statistics of batch normalization are
    not counted.

    Args:
        step: str or Step. Name of the step, a key of `STEPS`, or a `Step` of your own.
        regime: str. A key of `REGIMES`. Defaults to "resnet50".
        size: tuple (height, width) or None, in pixels. Defaults to None, for the regime's.
        classes: int or None. Defaults to None, for the regime's: 1000, or 10 for "cifar".

    Returns:
        tuple of `complexity.Part`: the stem, the stages, the head.

    Raises:
        ValueError: If there is no such step or regime.
    """
    chosen, own = find(step, regime)
    size, classes = size or (own.size, own.size), classes or own.classes
    if variant := variant_of(chosen, own):
        return complexity.parts(variant, size, classes)
    counter = _Counter(size)
    counter.add(layout.stem(chosen, own))
    if not chosen.patchify:
        counter.pool()
    found = [counter.part("stem", 0)]
    for stage, (depth, dim) in enumerate(zip(own.depths_of(chosen), own.dims_of(chosen))):
        if stage > 0 and chosen.downsampling:
            if chosen.outer_norms:
                counter.add_norm()
            counter.add(layout.downsampling(dim))
        for index in range(depth):
            stride = layout.stride_of(chosen, stage, index)
            before = counter.shape
            residual = layout.block(chosen, before[-1], dim, stride)
            if residual.shortcut:
                counter.add(residual.shortcut)
                counter.shape = before
            for unit in residual.branch:
                counter.add(unit)
        found.append(counter.part(f"stage {stage}", depth))
    features = counter.shape[-1]
    norm = 2 * features * chosen.final_norm
    found.append(Part("head", 0, (classes,), norm + (features + 1) * classes, features * classes))
    return tuple(found)


def _strided(side: int, kernel_size: int, stride: int) -> int:
    return (side + 2 * layout.padding(kernel_size) - kernel_size) // stride + 1
