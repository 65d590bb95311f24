"""What all commands share: the application, where they print, and what they check."""

from collections.abc import Sequence
from typing import Annotated, TypedDict

import typer
from rich.console import Console

from keras_convnext.variants import VARIANTS

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="ConvNeXt for Keras 3: look at the networks, classify photographs, train.\n\n"
    "Begin with `keras-convnext list`, then `keras-convnext predict PHOTO.jpg`.",
)
output = Console()
wide = Console(width=400)  # for names that must not be broken
messages = Console(stderr=True, soft_wrap=True)

Size = Annotated[
    int | None,
    typer.Option(min=32, help="Side of the images.  (default: what the network is made for)"),
]


class Shape(TypedDict, total=False):
    """The shape of the images, as a builder takes it; empty where the network's default stands."""

    input_shape: tuple[int | None, int | None, int]


def shape_of(size: int | None) -> Shape:
    """The shape of square images, for a builder."""
    return {} if size is None else {"input_shape": (size, size, 3)}


def variant_name(name: str) -> str:
    """Checks the name of a network."""
    if name not in VARIANTS:
        raise typer.BadParameter(f"choose one of {', '.join(VARIANTS)}")
    return name


def settings_of(pairs: Sequence[str]) -> dict[str, str]:
    """Reads the settings of a recipe from KEY=VALUE, once each.

    Raises:
        ValueError: If one has no "=" or no key, or a key comes twice.
    """
    settings: dict[str, str] = {}
    for pair in pairs:
        key, sign, value = (part.strip() for part in pair.partition("="))
        if not sign or not key:
            raise ValueError(f"A setting is KEY=VALUE, as in epochs=5. Received: --set {pair}")
        if key in settings:
            raise ValueError(
                f"A setting is given once. Received: --set {key}={settings[key]} and --set {pair}"
            )
        settings[key] = value
    return settings
