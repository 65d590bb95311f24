"""The convolutions of each step, as data: `graph` builds them, and `cost` counts them."""

from typing import NamedTuple

from keras_convnext.roadmap.steps import Regime, Step

POOL = 3, 2  # kernel size and stride of the max pooling in the stem of a ResNet


class Unit(NamedTuple):
    """A convolution and what follows it.

    Args:
        filters: int. Channels of the output.
        kernel_size: int. Side of the kernel. Defaults to 1.
        stride: int. Defaults to 1.
        depthwise: bool. Whether each channel has its own filter. Defaults to False.
        use_bias: bool. Defaults to False.
        norm: bool. Whether a norm follows. Defaults to False.
        activation: bool. Whether an activation follows. Defaults to False.
    """

    filters: int
    kernel_size: int = 1
    stride: int = 1
    depthwise: bool = False
    use_bias: bool = False
    norm: bool = False
    activation: bool = False


class Residual(NamedTuple):
    """A block: a branch of three convolutions, and the shortcut around it.

    Args:
        branch: tuple of three `Unit`s.
        shortcut: Unit or None. None is the identity.
        activation: bool. Whether an activation follows the sum.
    """

    branch: tuple[Unit, Unit, Unit]
    shortcut: Unit | None
    activation: bool


def stem(step: Step, regime: Regime) -> Unit:
    """Returns the convolution of the stem. Unless it is patchified, max pooling follows."""
    width, stride = regime.dims_of(step)[0], regime.stem_stride
    if step.patchify:
        return Unit(width, stride, stride, use_bias=True, norm=step.outer_norms)
    # ResNet's 7x7 convolution with stride 2, or a 3x3 one with stride 1 if the stem halves once.
    own = stride // POOL[1]
    return Unit(width, 7 if own > 1 else 3, own, norm=True, activation=True)


def block(step: Step, channels: int, width: int, stride: int) -> Residual:
    """Returns a block.

    Args:
        step: Step.
        channels: int. Channels of the input.
        width: int. Width of the stage.
        stride: int. Stride of the spatial convolution.
    """
    hidden, output = (4 * width, width) if step.inverted else (width, 4 * width)
    use_bias = step.layer_norm  # in batch normalization, the mean would remove it

    spatial = Unit(hidden, step.kernel_size, stride, step.depthwise, use_bias)
    pointwise = Unit(hidden, use_bias=use_bias)
    last = Unit(output, use_bias=use_bias)
    if step.move_up:
        units = (spatial._replace(filters=channels), pointwise, last)
    else:
        units = (pointwise, spatial, last)

    normalized = (True, not step.fewer_norms, not step.fewer_norms)
    activated = (not step.fewer_activations, True, False)
    first, second, third = (
        unit._replace(norm=norm, activation=activation)
        for unit, norm, activation in zip(units, normalized, activated)
    )
    is_identity = stride == 1 and channels == output
    shortcut = None if is_identity else Unit(output, stride=stride, norm=True)
    return Residual((first, second, third), shortcut, activation=not step.fewer_activations)


def downsampling(width: int) -> Unit:
    """Returns the convolution between two stages, of which the second has this width."""
    return Unit(width, 2, 2, use_bias=True)


def stride_of(step: Step, stage: int, index: int) -> int:
    """Returns the stride of a block: 2 in the first of a stage, unless downsampling is separate."""
    return 2 if stage > 0 and index == 0 and not step.downsampling else 1


def padding(kernel_size: int) -> int:
    """Returns the padding on each side: kernels with a center keep the size, patches shrink it."""
    return kernel_size // 2 if kernel_size % 2 else 0
