"""The public builders: `ConvNeXtTiny` and its siblings, one per row of `VARIANTS`."""

import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from keras_convnext import network
from keras_convnext.initializers import about_to_load
from keras_convnext.normalization import IMAGENET
from keras_convnext.pixels import normalization
from keras_convnext.pretrained.cache import ported_weights
from keras_convnext.pretrained.catalog import find, list_weights
from keras_convnext.pretrained.catalog_row import Checkpoint
from keras_convnext.pretrained.checkpoint import open_checkpoint
from keras_convnext.pretrained.foreign_files import missing_file
from keras_convnext.pretrained.hub_files import local_source
from keras_convnext.pretrained.identify import identity_of
from keras_convnext.pretrained.porting import load_checkpoint
from keras_convnext.pretrained.preparation import recorded_preparation
from keras_convnext.printable import printable
from keras_convnext.signature import (
    Builder,
    Options,
    check_arguments,
    check_image_shape,
    documentation,
    image_input,
    options_written_out,
    whole,
)
from keras_convnext.variants import VARIANTS, Variant

if TYPE_CHECKING:
    from typing_extensions import Unpack


def _builder(variant: Variant) -> Builder:
    first_tag = next(iter(_tags(variant.name)), None)

    def build(
        include_top: bool = True,
        include_preprocessing: bool = True,
        weights: str | Path | None = first_tag,
        input_tensor: Any = None,
        input_shape: tuple[int | None, int | None, int] | None = None,
        pooling: str | None = None,
        classes: int | None = None,
        classifier_activation: str | Callable[[Any], Any] | None = "softmax",
        name: str = variant.name,
        *,
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float | None = variant.layer_scale,
        head_init_scale: float = 1.0,
        remat: bool = False,
    ) -> keras.Model:
        check_arguments(pooling, classes, drop_path_rate, layer_scale_init_value, variant.grn)
        classes = classes and whole(classes)
        if weights is not None:
            weights = local_source(weights)
        published = _published(weights, variant)
        if include_top and published and published[0].classes is None and classes is None:
            raise ValueError(
                "These weights have no classifier: pass include_top=False, or classes=... to add "
                "a new one. "
                f"Received: weights={weights!r}"
            )
        is_embedding = bool(published) and published[0].is_embedding
        if is_embedding and include_top and not classes and classifier_activation == "softmax":
            raise ValueError(
                "These weights return CLIP's image embedding, not classes: pass "
                "classifier_activation=None for it, include_top=False for the features, or "
                f"classes=... to add a classifier. Received: weights={weights!r}"
            )
        path = ported_weights(published) if published else weights and Path(weights)
        channels = 3
        if path:
            found = identity_of(open_checkpoint(path, expected=variant))
            channels = found.channels
            classes = classes or (None if found.head else found.classes)
            if include_top and classes is None:
                kind = f"of {found.name}, which load_model builds, " if found.head else ""
                raise ValueError(
                    f"This file {kind}has no classifier of images: pass include_top=False for its "
                    "trunk, or classes=... to add a new one. "
                    f"Received: weights={printable(weights)}"
                )
        if input_shape is None:
            size = (published[0].size if published else variant.size) if include_top else None
            input_shape = (size, size, channels)
        prefix = "" if name == variant.name else f"{name}_"
        image = image_input(input_tensor, input_shape, prefix)
        check_image_shape(image.shape[1:], variant.name, variant.min_size)

        pixels = published[0].pixels if published else IMAGENET
        if path and not published:
            pixels = recorded_preparation(path).pixels or pixels
        x = normalization(image, prefix, pixels) if include_preprocessing else image
        with about_to_load() if path else nullcontext():
            variant_to_build = variant._replace(layer_scale=layer_scale_init_value or None)
            x = network.trunk(x, variant_to_build, drop_path_rate, remat, prefix)
        if include_top:
            x = network.pooled(x, "avg", prefix, variant.epsilon)
            x = network.head(
                x, classes or 1000, head_init_scale, classifier_activation, prefix, variant.hidden
            )
        elif pooling:
            x = network.pooled(x, pooling, prefix, variant.epsilon)
        sources = keras.utils.get_source_inputs(image)
        model = keras.Model(sources[0] if len(sources) == 1 else sources, x, name=name)
        if path:
            load_checkpoint(model, path)
        return model

    build.__name__ = build.__qualname__ = _family(variant)  # for errors about arguments
    return build


def _family(variant: Variant) -> str:
    return f"ConvNeXt{'V2' * variant.grn}{'Isotropic' * variant.isotropic}"


def _published(weights: object, variant: Variant) -> tuple[Checkpoint, ...]:
    """Returns the published checkpoint called `weights` and its mirrors; empty for a file."""
    if not isinstance(weights, str | os.PathLike | None):
        raise ValueError(
            "weights must be the name of published weights, the path of a file, or None for "
            f"random weights. Received: weights={weights!r}"
        )
    if weights is None or Path(weights).is_file():
        return ()
    if Path(weights).is_dir() and weights not in _tags(variant.name):
        return ()
    if not isinstance(weights, str) or Path(weights).suffix:
        told = missing_file(str(weights)) or "File not found"
        raise FileNotFoundError(f"{told}. Received: weights={printable(weights)}")
    return find(variant.name, weights)


def _tags(name: str) -> list[str]:
    return [row.tag for row in list_weights(name)]


def _named(name: str) -> Builder:
    """Creates the builder of one variant, with its own name and docstring."""
    variant = VARIANTS[name]
    _, *words = name.removeprefix("convnext_isotropic").removeprefix("convnext").split("_")
    title = "".join(_WORDS.get(word, word.title()) for word in words)
    rows = list_weights(name)
    build = _builder(variant)
    build.__name__ = build.__qualname__ = f"{_family(variant)}{title}"
    size, classes = variant.size, rows[0].classes if rows else 1000
    tags = ", ".join(f'"{tag}"' for tag in _tags(name)) or "none yet"
    xlarge = '"imagenet" means "imagenet22k_ft": no XLarge was trained on ImageNet-1K only.'
    build.__doc__ = documentation(
        f"{'isotropic ' * variant.isotropic}ConvNeXt {'V2 ' * variant.grn}{title}: "
        f"{sum(variant.depths)} blocks, depths {variant.depths}, dims {variant.dims}",
        f"model = keras_convnext.{build.__name__}("
        + (f'weights="{rows[0].tag}")\n' if rows else "weights=None)\n")
        + f"probabilities = model.predict(images)  # (N, {size}, {size}, 3) in 0..255 -> "
        f"(N, {classes})",
        f"\nPublished weights: {tags}.\n" + f"{xlarge}\n" * (name == "convnext_xlarge"),
    )
    return build


_WORDS = {"xlarge": "XLarge", "xxlarge": "XXLarge", "mlp": "MLP", "ols": "OLS"}

BUILDERS: dict[str, Builder] = {name: _named(name) for name in VARIANTS}

ConvNeXtAtto = BUILDERS["convnext_atto"]
ConvNeXtFemto = BUILDERS["convnext_femto"]
ConvNeXtPico = BUILDERS["convnext_pico"]
ConvNeXtNano = BUILDERS["convnext_nano"]
ConvNeXtTiny = BUILDERS["convnext_tiny"]
ConvNeXtSmall = BUILDERS["convnext_small"]
ConvNeXtBase = BUILDERS["convnext_base"]
ConvNeXtLarge = BUILDERS["convnext_large"]
ConvNeXtXLarge = BUILDERS["convnext_xlarge"]
ConvNeXtAttoOLS = BUILDERS["convnext_atto_ols"]
ConvNeXtFemtoOLS = BUILDERS["convnext_femto_ols"]
ConvNeXtPicoOLS = BUILDERS["convnext_pico_ols"]
ConvNeXtNanoOLS = BUILDERS["convnext_nano_ols"]
ConvNeXtLargeMLP = BUILDERS["convnext_large_mlp"]
ConvNeXtXXLarge = BUILDERS["convnext_xxlarge"]
ConvNeXtCifar = BUILDERS["convnext_cifar"]
ConvNeXtIsotropicSmall = BUILDERS["convnext_isotropic_small"]
ConvNeXtIsotropicBase = BUILDERS["convnext_isotropic_base"]
ConvNeXtIsotropicLarge = BUILDERS["convnext_isotropic_large"]
ConvNeXtV2Atto = BUILDERS["convnextv2_atto"]
ConvNeXtV2Femto = BUILDERS["convnextv2_femto"]
ConvNeXtV2Pico = BUILDERS["convnextv2_pico"]
ConvNeXtV2Nano = BUILDERS["convnextv2_nano"]
ConvNeXtV2Tiny = BUILDERS["convnextv2_tiny"]
ConvNeXtV2Small = BUILDERS["convnextv2_small"]
ConvNeXtV2Base = BUILDERS["convnextv2_base"]
ConvNeXtV2Large = BUILDERS["convnextv2_large"]
ConvNeXtV2Huge = BUILDERS["convnextv2_huge"]
ConvNeXtV2Cifar = BUILDERS["convnextv2_cifar"]


@options_written_out
def ConvNeXt(
    depths: Sequence[int],
    dims: Sequence[int],
    *,
    patch_size: int = 4,
    kernel_size: int = 7,
    epsilon: float = 1e-6,
    weights: str | Path | None = None,
    name: str = "convnext",
    layer_scale_init_value: float | None = 1e-6,
    **options: "Unpack[Options]",
) -> keras.Model:
    """Builds a ConvNeXt with any depths and widths.

    Example:

    ```python
    model = keras_convnext.ConvNeXt(
        depths=(2, 2, 6, 2), dims=(40, 80, 160, 320), patch_size=2, classes=10,
        input_shape=(32, 32, 3),
    )
    ```

    Args:
        depths: sequence of int. Blocks in each stage.
        dims: sequence of int, of the same length. Channels in each stage.
        patch_size: int. Side of the stem's patches, in pixels. The smallest supported image has a
            side of `patch_size * 2 ** (stages - 1)`. Defaults to 4.
        kernel_size: int, odd. Side of the depthwise kernels. Defaults to 7.
        epsilon: float. Added to the variance in the norms. CLIP's largest ConvNeXt uses 1e-5.
            Defaults to 1e-6, as in all other networks.
    """
    variant = Variant(
        "convnext", tuple(depths), tuple(dims), 1e-6, patch_size, kernel_size, epsilon=epsilon
    )
    return _builder(_checked(variant))(
        weights=weights, name=name, layer_scale_init_value=layer_scale_init_value, **options
    )


@options_written_out
def ConvNeXtV2(
    depths: Sequence[int],
    dims: Sequence[int],
    *,
    patch_size: int = 4,
    kernel_size: int = 7,
    epsilon: float = 1e-6,
    weights: str | Path | None = None,
    name: str = "convnextv2",
    **options: "Unpack[Options]",
) -> keras.Model:
    """Builds a ConvNeXt V2 with any depths and widths.

    Its blocks have global response normalization, and no layer scale.

    Example:

    ```python
    model = keras_convnext.ConvNeXtV2(depths=(2, 2, 6, 2), dims=(24, 48, 96, 192), classes=10)
    ```

    Args:
        depths: sequence of int. Blocks in each stage.
        dims: sequence of int, of the same length. Channels in each stage.
        patch_size: int. Side of the stem's patches, in pixels. The smallest supported image has a
            side of `patch_size * 2 ** (stages - 1)`. Defaults to 4.
        kernel_size: int, odd. Side of the depthwise kernels. Defaults to 7.
        epsilon: float. Added to the variance in the norms. Defaults to 1e-6.
    """
    variant = Variant(
        "convnextv2", tuple(depths), tuple(dims), None, patch_size, kernel_size,
        epsilon=epsilon, grn=True,
    )  # fmt: skip
    return _builder(_checked(variant))(weights=weights, name=name, **options)


@options_written_out
def ConvNeXtIsotropic(
    depth: int,
    dim: int,
    *,
    patch_size: int = 16,
    kernel_size: int = 7,
    weights: str | Path | None = None,
    name: str = "convnext_isotropic",
    layer_scale_init_value: float | None = None,
    **options: "Unpack[Options]",
) -> keras.Model:
    """Builds an isotropic ConvNeXt: one resolution and one width throughout, as in a ViT.

    Example:

    ```python
    model = keras_convnext.ConvNeXtIsotropic(depth=12, dim=192, classes=10)
    ```

    Args:
        depth: int. Number of blocks.
        dim: int. Channels of all blocks.
        patch_size: int. Side of the stem's patches, in pixels. The smallest supported image has a
            side of `2 * patch_size`. Defaults to 16.
        kernel_size: int, odd. Side of the depthwise kernels. Defaults to 7.
    """
    variant = Variant(
        "convnext_isotropic", (depth,), (dim,), None, patch_size, kernel_size, isotropic=True
    )
    return _builder(_checked(variant))(
        weights=weights, name=name, layer_scale_init_value=layer_scale_init_value, **options
    )


def _checked(variant: Variant) -> Variant:
    if not variant.depths or len(variant.depths) != len(variant.dims):
        raise ValueError(
            "depths and dims must have one entry per stage each. "
            f"Received: depths={variant.depths}, dims={variant.dims}"
        )
    rounded = variant._replace(
        depths=tuple(map(whole, variant.depths)),
        dims=tuple(map(whole, variant.dims)),
        patch_size=whole(variant.patch_size),
        kernel_size=whole(variant.kernel_size),
    )
    if 0 in (*rounded.depths, *rounded.dims, rounded.patch_size, rounded.kernel_size):
        raise ValueError(
            "depths, dims, patch_size and kernel_size must be positive integers. "
            f"Received: {variant}"
        )
    if variant.kernel_size % 2 == 0:
        raise ValueError(
            "kernel_size must be odd, so that the padding is equal on all sides. "
            f"Received: kernel_size={variant.kernel_size}"
        )
    return rounded
