"""The ConvNeXt below the head of a dense network: by name, as a model, or as a file has it."""

from pathlib import Path
from typing import Any

import keras

from keras_convnext.builders import BUILDERS
from keras_convnext.initializers import about_to_load
from keras_convnext.loading import build
from keras_convnext.pretrained.catalog import CATALOG
from keras_convnext.pretrained.identify import Identity
from keras_convnext.printable import printable
from keras_convnext.trunks import trunk_of
from keras_convnext.variants import VARIANTS

_OPTIONS = ("input_shape", "include_preprocessing", "drop_path_rate", "input_tensor")


def backbone_names() -> tuple[str, ...]:
    """Returns the names of the networks that a dense network is built on: those with stages."""
    return tuple(name for name, variant in VARIANTS.items() if len(variant.depths) == 4)


def backbone_of(
    backbone: str | keras.Model,
    *,
    layer_scale: float | None = 1.0,
    weights: str | None = None,
    **options: Any,
) -> keras.Model:
    """Returns the ConvNeXt of a builder's argument, without its top.

    Args:
        backbone: str or keras.Model. Name of a ConvNeXt with four stages, or a model that is or
            contains one, for which the other arguments are ignored.
        layer_scale: float or None. Initial value of layer scale. Defaults to 1, as in the official
            configurations. ConvNeXt V2 has none.
        weights: str or None. Published weights to start from. Defaults to None.
        **options: Other arguments of the builder, such as `input_shape`.

    Raises:
        ValueError: If there is no such network, or an argument is invalid.
    """
    if not isinstance(backbone, str):
        return trunk_of(backbone).model
    if backbone not in (names := backbone_names()):
        raise ValueError(
            f"backbone must be one of {', '.join(names)}. Received: backbone={printable(backbone)}"
        )
    return BUILDERS[backbone](
        include_top=False,
        weights=weights,
        layer_scale_init_value=None if VARIANTS[backbone].grn else layer_scale,
        **options,
    )


def backbone_in(found: Identity, options: dict[str, Any]) -> keras.Model:
    """Builds the ConvNeXt of a weight file, to be loaded with the head.

    Args:
        found: Identity. The network in the file.
        options: dict. Arguments of the dense network; those of the backbone are removed.
    """
    own = {name: options.pop(name) for name in _OPTIONS if name in options}
    own.setdefault("input_shape", (None, None, found.channels))
    with about_to_load():
        return build(
            found.variant,
            include_top=False,
            pooling=None,
            layer_scale_init_value=found.variant.layer_scale,
            **own,
        )


def is_for_whole(head: str, model: str, start: str | None) -> bool:
    """Whether what a recipe starts from is for the whole dense network, not for its backbone alone.

    Args:
        head: str. Name of the head, such as "upernet".
        model: str. Name of the backbone.
        start: str or None. A weight file, or the name of published weights.
    """
    published = {(row.model, row.tag) for row in CATALOG}
    return start is not None and (Path(start).exists() or (f"{head}_{model}", start) in published)
