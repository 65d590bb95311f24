"""Draws the block of a step as a line of text."""

from keras_convnext.roadmap import layout
from keras_convnext.roadmap.layout import Unit
from keras_convnext.roadmap.steps import Step, find


def draw(step: str | Step, regime: str = "resnet50", stage: int = 2) -> str:
    """Draws a block of a step, as figure 3 of the paper does.

    Example:

    ```python
    keras_convnext.roadmap.draw("resnet")
    # '1024 > 1x1, 256 > BN > ReLU > 3x3, 256 > BN > ReLU > 1x1, 1024 > BN > + > ReLU'
    ```

    Args:
        step: str or Step. Name of the step, a key of `STEPS`, or a `Step` of your own.
        regime: str. A key of `REGIMES`. Defaults to "resnet50".
        stage: int. Index of the stage, from 0. Defaults to 2.

    Returns:
        str. The channels of the input, the convolutions with their kernel and output channels ("d"
        is depthwise), norms, activations and the sum with the input.

    Raises:
        ValueError: If there is no such step or regime.
    """
    chosen, own = find(step, regime)
    width = own.dims_of(chosen)[stage]
    channels = width if chosen.inverted else 4 * width
    activation, norm = "GELU" if chosen.gelu else "ReLU", "LN" if chosen.layer_norm else "BN"
    residual = layout.block(chosen, channels, width, 1)
    parts = [str(channels)]
    for unit in residual.branch:
        parts += [_convolution(unit), *[norm] * unit.norm, *[activation] * unit.activation]
    parts += ["scale"] * (chosen.layer_scale is not None)
    return " > ".join([*parts, "+", *[activation] * residual.activation])


def _convolution(unit: Unit) -> str:
    return f"{'d' * unit.depthwise}{unit.kernel_size}x{unit.kernel_size}, {unit.filters}"
