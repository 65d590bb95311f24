"""Builds the network of a step from plain Keras layers.

Shapes are for an image of H x W pixels and a stem of stride 4; C is the width of the first stage,
and E its output: 4C in a bottleneck, C in an inverted one.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_convnext import network as convnext
from keras_convnext.builders import BUILDERS, ConvNeXt
from keras_convnext.layers import BatchNormalization, DropPath, LayerNormalization
from keras_convnext.pixels import normalization
from keras_convnext.roadmap import layout
from keras_convnext.roadmap.cost import variant_of
from keras_convnext.roadmap.layout import POOL, Residual, Unit
from keras_convnext.roadmap.steps import Regime, Step, find
from keras_convnext.signature import check_arguments, check_image_shape, image_input, whole
from keras_convnext.variants import Variant


def network(
    step: str | Step,
    regime: str = "resnet50",
    *,
    include_top: bool = True,
    include_preprocessing: bool = True,
    input_tensor: Any = None,
    input_shape: tuple[int | None, int | None, int] | None = None,
    pooling: str | None = None,
    classes: int | None = None,
    classifier_activation: str | Callable[[Any], Any] | None = "softmax",
    name: str | None = None,
    drop_path_rate: float = 0.0,
) -> keras.Model:
    """Builds the network of a step between ResNet and ConvNeXt, with random weights.

    The steps before "layer_norm" normalize batches: their moving statistics are weights that are
    not trained. The last step, "convnext", is `ConvNeXtTiny` or `ConvNeXtBase`.

    The paper's code for "downsampling" has no norms around the 2x2 convolutions, and does not train
    (section 2.6). It is the step "bare_downsampling".

    Example:

    ```python
    model = keras_convnext.roadmap.network("depthwise", classes=10, input_shape=(64, 64, 3))
    probabilities = model.predict(images)  # (N, 64, 64, 3) in 0..255 -> (N, 10)
    ```

    Args:
        step: str or Step. Name of the step, a key of `roadmap.STEPS`; or a `Step` of your own, such
            as `STEPS["downsampling"]._replace(gelu=False)`.
        regime: str. Where the road starts, a key of `roadmap.REGIMES`: "resnet50" or "resnet200" as
            in the paper, or "cifar" for images of 32 px. Defaults to "resnet50".
        include_top: bool. Whether to include the classifier. Defaults to True.
        include_preprocessing: bool. As in `ConvNeXtTiny`. Defaults to True.
        input_tensor: Keras tensor or None. Tensor to use as the image input. Defaults to None.
        input_shape: tuple (height, width, channels) or None. Height and width may be None for any
            size; both must be at least the network's stride, 32 px, or 16 px for "cifar". Defaults
            to (None, None, 3) without the top, else to the regime's size.
        pooling: None, "avg" or "max". As in `ConvNeXtTiny`. Defaults to None.
        classes: int or None. Number of classes. Defaults to None, for the regime's: 1000, or 10 for
            "cifar".
        classifier_activation: str, callable or None. As in `ConvNeXtTiny`. Defaults to "softmax".
        name: str or None. Name of the model, and prefix of the layer names. Defaults to None: a
            name such as "resnet50_depthwise", and no prefix.
        drop_path_rate: float in [0, 1). Stochastic depth rate of the last block; it rises linearly
            from 0 in the first. The paper's code used 0.1 for every step from ResNet-50. Defaults
            to 0.

    Returns:
        A keras.Model, from pixels in 0..255.

    Raises:
        ValueError: If an argument is invalid; the message lists the steps or regimes.

    References:
        Liu et al., "A ConvNet for the 2020s", CVPR 2022, arXiv 2201.03545, section 2 and tables 10
        and 11.
        He et al., "Deep Residual Learning for Image Recognition", arXiv 1512.03385.
    """
    chosen, own = find(step, regime)
    check_arguments(pooling, classes, drop_path_rate)
    classes = own.classes if classes is None else whole(classes)
    if input_shape is None:
        size = own.size if include_top else None
        input_shape = (size, size, 3)
    if variant := variant_of(chosen, own):
        return _convnext(
            variant,
            name,
            include_top=include_top,
            include_preprocessing=include_preprocessing,
            input_tensor=input_tensor,
            input_shape=input_shape,
            pooling=pooling,
            classes=classes,
            classifier_activation=classifier_activation,
            drop_path_rate=drop_path_rate,
        )
    prefix = f"{name}_" if name else ""
    name = name or f"{regime}_{chosen.name}"
    image = image_input(input_tensor, input_shape, prefix)
    check_image_shape(image.shape[1:], name, own.min_size)

    x = normalization(image, prefix) if include_preprocessing else image
    x = _trunk(x, chosen, own, drop_path_rate, prefix)
    if include_top:
        x = _pooled(x, chosen, "avg", prefix)
        x = convnext.head(x, classes, 1.0, classifier_activation, prefix)
    elif pooling:
        x = _pooled(x, chosen, pooling, prefix)
    sources = keras.utils.get_source_inputs(image)
    return keras.Model(sources[0] if len(sources) == 1 else sources, x, name=name)


def _trunk(x: Any, step: Step, regime: Regime, drop_path_rate: float, prefix: str) -> Any:
    """Applies stem and stages to normalized pixels."""
    dims, depths = regime.dims_of(step), regime.depths_of(step)
    rates = iter(np.linspace(0, drop_path_rate, sum(depths)).tolist())
    x = _unit(x, layout.stem(step, regime), step, f"{prefix}stem", "relu")
    if not step.patchify:
        kernel_size, stride = POOL
        x = _padded(x, kernel_size, f"{prefix}stem_pool")
        x = keras.layers.MaxPooling2D(
            kernel_size, stride, data_format="channels_last", name=f"{prefix}stem_pool"
        )(x)  # (N, H/4, W/4, C)
    for stage, (depth, dim) in enumerate(zip(depths, dims)):
        if stage > 0 and step.downsampling:
            x = _downsample(x, dim, step, f"{prefix}downsample_{stage}")
        for index in range(depth):
            own = layout.block(step, x.shape[-1], dim, layout.stride_of(step, stage, index))
            x = _block(x, own, step, next(rates), f"{prefix}stages_{stage}_blocks_{index}")
    return x  # (N, H/32, W/32, 8E)


def _block(x: Any, own: Residual, step: Step, drop_path: float, name: str) -> Any:
    """Adds a branch of three convolutions to its input, or to a projection of it."""
    activation = "gelu" if step.gelu else "relu"
    branch = shortcut = x
    for number, unit in enumerate(own.branch, 1):
        branch = _unit(branch, unit, step, name, activation, number)
    branch = DropPath(drop_path, name=f"{name}_drop_path")(branch)
    if own.shortcut:
        shortcut = _unit(x, own.shortcut, step, f"{name}_shortcut", activation)
    x = keras.layers.Add(name=f"{name}_add")([shortcut, branch])
    if own.activation:
        x = keras.layers.Activation(activation, name=f"{name}_act3")(x)
    return x  # (N, H/4, W/4, E)


def _unit(
    x: Any, unit: Unit, step: Step, name: str, activation: str, number: int | None = None
) -> Any:
    """Applies a convolution, and the norm and the activation behind it."""
    end = "" if number is None else str(number)
    x = _padded(x, unit.kernel_size if unit.stride > 1 else 1, f"{name}_conv{end}")
    # PyTorch's default, which the paper's code did not change.
    limit = (unit.kernel_size**2 * (1 if unit.depthwise else x.shape[-1])) ** -0.5
    options: dict[str, Any] = {
        "strides": unit.stride,
        "padding": "valid" if unit.stride > 1 else "same",
        "use_bias": unit.use_bias,
        "bias_initializer": _uniform(limit),
        "data_format": "channels_last",
        "name": f"{name}_conv{end}",
    }
    if unit.depthwise:
        x = keras.layers.DepthwiseConv2D(
            unit.kernel_size, depthwise_initializer=_uniform(limit), **options
        )(x)
    else:
        x = keras.layers.Conv2D(
            unit.filters, unit.kernel_size, kernel_initializer=_uniform(limit), **options
        )(x)
    if unit.norm:
        x = _norm(step, f"{name}_norm{end}")(x)
    if unit.activation:
        x = keras.layers.Activation(activation, name=f"{name}_act{end}")(x)
    return x


def _downsample(x: Any, dim: int, step: Step, name: str) -> Any:
    """Halves the resolution between two stages."""
    if step.outer_norms:
        x = _norm(step, f"{name}_norm")(x)
    return _unit(x, layout.downsampling(dim), step, name, "relu")  # (N, H/8, W/8, 2C)


def _norm(step: Step, name: str) -> keras.layers.Layer:
    if step.layer_norm:
        return LayerNormalization(epsilon=1e-6, name=name)
    return BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)


def _padded(x: Any, kernel_size: int, name: str) -> Any:
    """Pads both sides equally, as PyTorch does. Keras would pad more at the end.

    Max pooling is of activations, which are not negative, so that zeros change no maximum.
    """
    if own := layout.padding(kernel_size):
        x = keras.layers.ZeroPadding2D(own, data_format="channels_last", name=f"{name}_pad")(x)
    return x


def _pooled(x: Any, step: Step, pooling: str, prefix: str) -> Any:
    """Pools the last feature map, and normalizes the features if the step does."""
    if step.final_norm:
        return convnext.pooled(x, pooling, prefix)
    return convnext.pool(x, pooling, prefix)  # (N, 8E)


def _uniform(limit: float) -> keras.initializers.Initializer:
    """Creates a new initializer. A shared one would give kernels of the same shape equal values."""
    return keras.initializers.RandomUniform(-limit, limit)


def _convnext(variant: Variant, name: str | None, **options: Any) -> keras.Model:
    """Builds the ConvNeXt at the end of the road."""
    if name:
        options["name"] = name
    if variant.name in BUILDERS:
        return BUILDERS[variant.name](weights=None, **options)
    return ConvNeXt(
        variant.depths,
        variant.dims,
        patch_size=variant.patch_size,
        kernel_size=variant.kernel_size,
        layer_scale_init_value=variant.layer_scale,
        **options,
    )
