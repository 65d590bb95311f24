"""What all commands share: the program, its options, and how it ends."""

import inspect
import sys
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, TypedDict

import typer
from typer.core import TyperGroup

from keras_convnext.cli.failures import EXIT_CODES, report
from keras_convnext.cli.noise import library_output
from keras_convnext.cli.terminal import CLOSED_PIPE, write
from keras_convnext.cli.versions import versions
from keras_convnext.pretrained.catalog import TAGS
from keras_convnext.training.recipes import RECIPES
from keras_convnext.variants import VARIANTS


class Program(TyperGroup):
    """All commands together. However one fails, the user sees a line and an exit code."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Runs a command."""
        code: object = 0
        try:
            code = super().main(*args, **{**kwargs, "standalone_mode": False})
            if sys.stdout is not None:
                sys.stdout.flush()
        except SystemExit as ended:  # 1 is what Typer and Rich make of a closed pipe
            code = CLOSED_PIPE if ended.code == 1 else ended.code
        except BrokenPipeError:
            code = CLOSED_PIPE
        except BaseException as error:
            code = report(error)
        sys.exit(code if isinstance(code, int) else 0)


app = typer.Typer(
    cls=Program,
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its panels cut the names of options on a narrow terminal
)


@app.callback(
    epilog="\b\nExit codes:\n"
    + "\n".join(f"  {code:3}  {text}" for code, text in EXIT_CODES.items())
)
def program(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the versions that matter, and exit.")
    ] = False,
) -> None:
    """ConvNeXt for Keras 3: inspect networks and weights, classify photographs, train, export.

    Start with `keras-convnext predict PHOTO.jpg`. `keras-convnext doctor` checks the installation.
    """
    if version:
        write(*(f"{name} {number}" for name, number in versions().items()))
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


def command(name: str, function: Callable[..., None], group: typer.Typer = app) -> None:
    """Adds a command. It gets --verbose, without which its libraries are silent."""

    @wraps(function)
    def run(*args: Any, verbose: bool, **kwargs: Any) -> None:
        library_output.is_shown = verbose
        try:
            with library_output.kept():
                function(*args, **kwargs)
        except KeyboardInterrupt as error:  # of which Typer would make something else
            raise typer.Exit(report(error)) from error

    option = Annotated[
        bool, typer.Option("--verbose", help="Show what libraries print, and where errors are.")
    ]
    added = inspect.Parameter("verbose", inspect.Parameter.KEYWORD_ONLY, default=False,
                              annotation=option)  # fmt: skip
    signature = inspect.signature(function)
    run.__signature__ = signature.replace(  # type: ignore[attr-defined]  # what Typer looks at
        parameters=[*signature.parameters.values(), added]
    )
    run.__annotations__ = {**function.__annotations__, "verbose": option}
    group.command(name)(run)


def _named(names: Sequence[str]) -> Callable[[str], list[str]]:
    """Completes a name of these in the shell."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return complete


def _checked_model(name: str | None) -> str | None:
    if name is not None and name not in VARIANTS:
        raise typer.BadParameter(f"choose one of {', '.join(VARIANTS)}. Received: {name}")
    return name


_NETWORK = {"callback": _checked_model, "autocompletion": _named(list(VARIANTS))}
Network = Annotated[str, typer.Argument(help="As `list` names it.", **_NETWORK)]
TagNames = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="weights",
        help="As `list --weights` names them.  (default: those that the network loads by default)",
        autocompletion=_named(list(TAGS)),
    ),
]
ModelToName = Annotated[str, typer.Option("--model", help="As `list` names it.", **_NETWORK)]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="As `list` names it. Only needed for published weights.  (default: that of the file)",
        **_NETWORK,
    ),
]
WEIGHTS_HELP = "A file or folder of weights, or published weights as `list --weights` names them."
Weights = Annotated[str, typer.Option(help=WEIGHTS_HELP, autocompletion=_named(list(TAGS)))]
RecipeName = Annotated[
    str,
    typer.Option("--recipe", help="As `recipes` names it.", autocompletion=_named(list(RECIPES))),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a field of the recipe."),
]
Size = Annotated[
    int | None,
    typer.Option(min=32, help="Side of the images in pixels.  (default: the network's own)"),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Images at a time.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Entry = Annotated[
    str | None, typer.Option(help="Which weights of a file that holds several, such as ema.")
]
Prefix = Annotated[
    str | None,
    typer.Option(help="Which ConvNeXt of a file that holds several, by how its names start."),
]
Ignore = Annotated[
    list[str] | None,
    typer.Option(metavar="PATTERN", help="Names of tensors to ignore, such as 'head.*'."),
]


def checked_picture(path: Path | None) -> Path | None:
    """Refuses a picture that could not be written, before the work is done.

    Raises:
        typer.BadParameter: If its name ends in no format of pictures, or is that of a folder.
    """
    if path is not None:
        from PIL import Image

        Image.init()
        if Image.EXTENSION.get(path.suffix.lower()) not in Image.SAVE:
            raise typer.BadParameter(f"it ends in .png, .jpg or .webp. Received: {path}")
        if path.is_dir():
            raise typer.BadParameter(f"this is a folder. Received: {path}")
    return path


class Reading(TypedDict, total=False):
    """Which weights of a file are meant, as functions take it; empty for the only ones."""

    entry: str
    prefix: str
    ignore: tuple[str, ...]


def reading(entry: str | None, prefix: str | None, ignore: Sequence[str] | None) -> Reading:
    """The options of a command that reads weights, for a function that does."""
    chosen: Reading = {}
    if entry is not None:
        chosen["entry"] = entry
    if prefix is not None:
        chosen["prefix"] = prefix
    if ignore:
        chosen["ignore"] = tuple(ignore)
    return chosen


class Shape(TypedDict, total=False):
    """The shape of the images, as a builder takes it; empty where the network's default stands."""

    input_shape: tuple[int | None, int | None, int]


def shape_of(size: int | None) -> Shape:
    """The shape of square images, for a builder."""
    return {} if size is None else {"input_shape": (size, size, 3)}


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
