"""The functions that users call: `ConvNeXtTiny` and its siblings, one a row of `VARIANTS`."""

import textwrap
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import keras

from keras_convnext import network
from keras_convnext.initializers import about_to_load
from keras_convnext.pretrained.cache import ported_weights
from keras_convnext.pretrained.catalog import Checkpoint, find, list_weights
from keras_convnext.pretrained.identify import identify
from keras_convnext.pretrained.porting import load_checkpoint
from keras_convnext.variants import VARIANTS, Variant

_DOCSTRING = """Makes {title}.

    Example:

    ```python
    model = keras_convnext.{function}({example})
    probabilities = model.predict(images)  # (N, {size}, {size}, 3) in 0..255 -> (N, {classes})
    ```

    Args:{own_arguments}
        include_top: bool. Whether the classifier is part of the model. Defaults to True.
        include_preprocessing: bool. Whether the model takes pixels in 0..255 and normalises them
            itself; without it, it takes them normalised with ImageNet's mean and deviation. A
            grey image is normalised with the average of the three channels' figures, and channels
            past the third start over with red's. Defaults to True.
        weights: str, path or None. {weights}
            Or the path of a checkpoint in a published layout (`.pth`, `.safetensors`, `.weights.h5`
            or `.h5`, as `load_checkpoint` reads; PyTorch is not needed). Or None for random
            weights, as at the start of the published training.
        input_tensor: Keras tensor or None. What to use as the image. Defaults to None.
        input_shape: tuple (height, width, channels) or None. Height and width may differ and may
            be None, for any; each is {min_size} or more. With a channel count other than 3, a
            ported stem kernel is summed over its channels for 1, else repeated over them and
            scaled by 3 / channels. Defaults to (None, None, 3) without the top, else to the size
            that published weights are made for, else to ({size}, {size}, 3).
        pooling: None, "avg" or "max". Without the top: None returns the last map
            (N, H/{stride}, W/{stride}, {dim}); "avg" the features (N, {dim}) that the classifier
            sees, pooled and then normalised; "max" the same of the maximum. Defaults to None.
        classes: int or None. Number of classes. If it is not the checkpoint's, the head keeps its
            random start and a warning says so. Defaults to None: the checkpoint's, or 1000.
        classifier_activation: str, callable or None. Activation of the head, in float32 under
            mixed precision; None returns the logits. Defaults to "softmax".
        name: str. Name of the model. Defaults to "{name}".
        drop_path_rate: float in [0, 1). Stochastic depth at the last block; it rises linearly
            from 0 at the first. Defaults to 0.
        layer_scale_init_value: float or None. What layer scale starts from; None, or 0 as in the
            official code, leaves it out. Defaults to {layer_scale}.
        head_init_scale: float. Factor on the random weight and bias of the head; 0.001 is the
            published one for fine-tuning. Defaults to 1.
        remat: bool. Whether training keeps the input of each block alone and computes the rest of
            it again for the gradient, with TensorFlow: half the memory beside the model for XLarge
            at 384 px, and a step that takes a tenth to a third longer. Defaults to False.

    Returns:
        A keras.Model.

    Raises:
        ValueError: If an argument is out of range, if Keras' images are channels_first, or if
            there are no published weights of this name; the message lists those there are.
        CheckpointError: If the checkpoint is damaged, or is not one of this network.
        DownloadError: If published weights cannot be fetched; the message says what to do.
        FileNotFoundError: If `weights` names no file.

    References:
        Liu et al., "A ConvNet for the 2020s", CVPR 2022, arXiv 2201.03545, {source}.
    """


def _builder(variant: Variant) -> Callable[..., keras.Model]:
    first_tag = next(iter(_tags(variant.name)), None)

    def build(
        include_top: bool = True,
        include_preprocessing: bool = True,
        weights: str | Path | None = first_tag,
        input_tensor: Any = None,
        input_shape: tuple[int | None, int | None, int] | None = None,
        pooling: str | None = None,
        classes: int | None = None,
        classifier_activation: str | Callable | None = "softmax",
        name: str = variant.name,
        *,
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float | None = variant.layer_scale,
        head_init_scale: float = 1.0,
        remat: bool = False,
    ) -> keras.Model:
        _check_arguments(pooling, classes, drop_path_rate, layer_scale_init_value)
        published = _published(weights, variant)
        if include_top and published and published[0].classes is None:
            raise ValueError(
                "These weights have no classifier: take them with include_top=False. "
                f"Received: weights={weights!r}"
            )
        if input_shape is None:
            size = published[0].size if published else variant.size
            input_shape = (size, size, 3) if include_top else (None, None, 3)
        image = input_tensor
        if image is None:
            image = keras.Input(input_shape, name="image")
        elif not keras.backend.is_keras_tensor(image):
            raise ValueError(
                "input_tensor is what a layer returns, such as keras.Input(...). "
                f"Received: input_tensor={input_tensor!r}"
            )
        _check_image_shape(image.shape[1:], variant)
        path = ported_weights(published) if published else weights and Path(weights)
        if classes is None:
            told = path and path.suffix != ".keras" and identify(path).classes
            classes = told or 1000

        x = network.normalization(image) if include_preprocessing else image
        with about_to_load() if path else nullcontext():
            variant_to_build = variant._replace(layer_scale=layer_scale_init_value or None)
            x = network.trunk(x, variant_to_build, drop_path_rate, remat)
        if include_top:
            x = network.pooled(x, "avg")
            x = network.head(x, classes, head_init_scale, classifier_activation)
        elif pooling:
            x = network.pooled(x, pooling)
        sources = keras.utils.get_source_inputs(image)
        model = keras.Model(sources[0] if len(sources) == 1 else sources, x, name=name)
        if path and path.suffix == ".keras":
            model.load_weights(path)
        elif path:
            load_checkpoint(model, path)
        return model

    return build


def _check_arguments(
    pooling: str | None,
    classes: int | None,
    drop_path_rate: float,
    layer_scale_init_value: float | None,
) -> None:
    if keras.config.image_data_format() != "channels_last":
        raise ValueError(
            "ConvNeXt takes channels_last images alone: call "
            "keras.config.set_image_data_format('channels_last') first. "
            f"Received: image_data_format={keras.config.image_data_format()}"
        )
    if pooling not in (None, "avg", "max"):
        raise ValueError(f"pooling is None, 'avg' or 'max'. Received: pooling={pooling}")
    if classes is not None and (not isinstance(classes, int) or classes < 1):
        raise ValueError(f"classes is a whole number from 1 up. Received: classes={classes}")
    if not 0 <= drop_path_rate < 1:
        raise ValueError(f"drop_path_rate is in [0, 1). Received: drop_path_rate={drop_path_rate}")
    if layer_scale_init_value is not None and not layer_scale_init_value >= 0:
        raise ValueError(
            "layer_scale_init_value is None or a number from 0 up. "
            f"Received: layer_scale_init_value={layer_scale_init_value}"
        )


def _check_image_shape(shape: tuple[int | None, ...], variant: Variant) -> None:
    if len(shape) != 3 or not shape[-1]:
        raise ValueError(
            "input_shape is (height, width, channels), with the channels known. "
            f"Received: input_shape={tuple(shape)}"
        )
    if any(side is not None and side < variant.min_size for side in shape[:2]):
        raise ValueError(
            f"The height and width of an image are {variant.min_size} or more for {variant.name}. "
            f"Received: input_shape={tuple(shape)}"
        )


def _published(weights: str | Path | None, variant: Variant) -> tuple[Checkpoint, ...]:
    """The published checkpoint that `weights` names, and its copies; none if it names a file."""
    if weights is None or Path(weights).is_file():
        return ()
    if isinstance(weights, Path) or Path(weights).suffix:
        raise FileNotFoundError(f"There is no such file. Received: weights={weights}")
    return find(variant.name, weights)


def _tags(name: str) -> list[str]:
    return [row.tag for row in list_weights(name)]


def _published_weights(name: str) -> str:
    """What the docstring tells of them."""
    tags = ", ".join(f'"{tag}"' for tag in _tags(name))
    if not tags:
        return "None are published yet."
    note = ""
    if name == "convnext_xlarge":
        note = '"imagenet" is "imagenet22k_ft" here: XLarge was not trained on ImageNet-1K alone. '
    told = f"Published weights, fetched once and then kept: {tags}. {note}"
    return textwrap.fill(
        told.strip(), 100, subsequent_indent=" " * 12, initial_indent=" " * 42
    ).strip()


def _named(name: str) -> Callable[..., keras.Model]:
    """The builder of one published variant, with the name and the docstring it deserves."""
    variant = VARIANTS[name]
    scale = name.rpartition("_")[2]
    title = "XLarge" if scale == "xlarge" else scale.title()
    rows = list_weights(name)
    build = _builder(variant)
    build.__name__ = build.__qualname__ = f"ConvNeXt{'Isotropic' * variant.isotropic}{title}"
    build.__doc__ = _DOCSTRING.format(
        title=f"{'isotropic ' * variant.isotropic}ConvNeXt {scale}: {sum(variant.depths)} blocks, "
        f"depths {variant.depths}, dims {variant.dims}",
        function=build.__name__,
        example=f'weights="{rows[0].tag}"' if rows else "weights=None",
        classes=rows[0].classes if rows else 1000,
        weights=_published_weights(name),
        own_arguments="",
        source="section 3.3" if variant.isotropic else "section 3",
        min_size=variant.min_size,
        stride=variant.stride,
        dim=variant.dims[-1],
        **variant._asdict(),
    )
    return build


BUILDERS = {name: _named(name) for name in VARIANTS}

ConvNeXtAtto = BUILDERS["convnext_atto"]
ConvNeXtFemto = BUILDERS["convnext_femto"]
ConvNeXtPico = BUILDERS["convnext_pico"]
ConvNeXtNano = BUILDERS["convnext_nano"]
ConvNeXtTiny = BUILDERS["convnext_tiny"]
ConvNeXtSmall = BUILDERS["convnext_small"]
ConvNeXtBase = BUILDERS["convnext_base"]
ConvNeXtLarge = BUILDERS["convnext_large"]
ConvNeXtXLarge = BUILDERS["convnext_xlarge"]
ConvNeXtCifar = BUILDERS["convnext_cifar"]
ConvNeXtIsotropicSmall = BUILDERS["convnext_isotropic_small"]
ConvNeXtIsotropicBase = BUILDERS["convnext_isotropic_base"]
ConvNeXtIsotropicLarge = BUILDERS["convnext_isotropic_large"]


def ConvNeXt(
    depths: Sequence[int],
    dims: Sequence[int],
    *,
    patch_size: int = 4,
    kernel_size: int = 7,
    weights: str | Path | None = None,
    name: str = "convnext",
    **options: Any,
) -> keras.Model:
    """Makes a ConvNeXt of any depths and widths.

    Example:

    ```python
    model = keras_convnext.ConvNeXt(
        depths=(2, 2, 6, 2), dims=(40, 80, 160, 320), patch_size=2, classes=10,
        input_shape=(32, 32, 3),
    )
    ```

    Args:
        depths: sequence of int. Blocks in each stage.
        dims: sequence of int, as many. Channels in each stage.
        patch_size: int. Side of the stem's patches, in pixels; the smallest image is this times
            2 ** (stages - 1). Defaults to 4.
        kernel_size: int, odd. Side of the depthwise kernels. Defaults to 7.
        weights: as in `ConvNeXtTiny`. Defaults to None.
        name: str. Name of the model. Defaults to "convnext".
        **options: Every other argument of `ConvNeXtTiny`, by name.

    Returns:
        A keras.Model.

    Raises:
        ValueError: If an argument is out of range.

    References:
        Liu et al., "A ConvNet for the 2020s", CVPR 2022, arXiv 2201.03545, section 3.
    """
    variant = _checked(Variant(name, tuple(depths), tuple(dims), 1e-6, patch_size, kernel_size))
    return _builder(variant)(weights=weights, **options)


def ConvNeXtIsotropic(
    depth: int,
    dim: int,
    *,
    patch_size: int = 16,
    kernel_size: int = 7,
    weights: str | Path | None = None,
    name: str = "convnext_isotropic",
    **options: Any,
) -> keras.Model:
    """Makes an isotropic ConvNeXt: one resolution and one width throughout, as in a ViT.

    Example:

    ```python
    model = keras_convnext.ConvNeXtIsotropic(depth=12, dim=192, classes=10)
    ```

    Args:
        depth: int. Number of blocks.
        dim: int. Channels throughout.
        patch_size: int. Side of the stem's patches, in pixels; the smallest image is twice this.
            Defaults to 16.
        kernel_size: int, odd. Side of the depthwise kernels. Defaults to 7.
        weights: as in `ConvNeXtIsotropicSmall`. Defaults to None.
        name: str. Name of the model. Defaults to "convnext_isotropic".
        **options: Every other argument of `ConvNeXtIsotropicSmall`, by name; layer scale is left
            out unless it is asked for, as there.

    Returns:
        A keras.Model.

    Raises:
        ValueError: If an argument is out of range.

    References:
        Liu et al., "A ConvNet for the 2020s", CVPR 2022, arXiv 2201.03545, section 3.3.
    """
    variant = Variant(name, (depth,), (dim,), None, patch_size, kernel_size, isotropic=True)
    return _builder(_checked(variant))(weights=weights, **options)


def _checked(variant: Variant) -> Variant:
    if not variant.depths or len(variant.depths) != len(variant.dims):
        raise ValueError(
            "depths and dims have one entry a stage, both. "
            f"Received: depths={variant.depths}, dims={variant.dims}"
        )
    numbers = (*variant.depths, *variant.dims, variant.patch_size, variant.kernel_size)
    if not all(isinstance(number, int) and number >= 1 for number in numbers):
        raise ValueError(
            "Depths, dims, patch_size and kernel_size are whole numbers from 1 up. "
            f"Received: {variant}"
        )
    if variant.kernel_size % 2 == 0:
        raise ValueError(
            "kernel_size is odd: the padding is the same on all sides. "
            f"Received: kernel_size={variant.kernel_size}"
        )
    return variant
