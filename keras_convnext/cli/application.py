"""The application: the top-level command, and the options that subcommands share."""

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
from keras_convnext.pretrained.catalog import DENSE_NETWORKS, TAGS
from keras_convnext.roadmap.steps import MODELS, find_model
from keras_convnext.tasks import recipes
from keras_convnext.variants import VARIANTS


class Program(TyperGroup):
    """The group of all commands. It turns any exception into one line and an exit code."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Runs a command and exits."""
        code: object = 0
        try:
            code = super().main(*args, **{**kwargs, "standalone_mode": False})
            if sys.stdout is not None:
                sys.stdout.flush()
        except SystemExit as ended:  # Typer and Rich exit with 1 at a closed pipe
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
    rich_markup_mode=None,  # its panels truncate option names on a narrow terminal
)


@app.callback(
    epilog="\b\nExit codes:\n"
    + "\n".join(f"  {code:3}  {text}" for code, text in EXIT_CODES.items())
)
def program(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show versions and exit.")] = False,
) -> None:
    """ConvNeXt for Keras 3: classify images, inspect and convert weights, train, export.

    Start with `keras-convnext predict PHOTO.jpg`. Check the installation with `keras-convnext
    doctor`.
    """
    if version:
        write(*(f"{name} {number}" for name, number in versions().items()))
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


def command(name: str, function: Callable[..., None], group: typer.Typer = app) -> None:
    """Adds a command, with an option --verbose. Without it, library output is hidden."""

    @wraps(function)
    def run(*args: Any, verbose: bool, **kwargs: Any) -> None:
        library_output.is_shown = verbose
        try:
            with library_output.kept():
                function(*args, **kwargs)
        except KeyboardInterrupt as error:  # before Typer handles it
            raise typer.Exit(report(error)) from error

    option = Annotated[bool, typer.Option("--verbose", help="Show library output and tracebacks.")]
    added = inspect.Parameter("verbose", inspect.Parameter.KEYWORD_ONLY, default=False,
                              annotation=option)  # fmt: skip
    signature = inspect.signature(function)
    run.__signature__ = signature.replace(  # type: ignore[attr-defined]  # read by Typer
        parameters=[*signature.parameters.values(), added]
    )
    run.__annotations__ = {**function.__annotations__, "verbose": option}
    group.command(name)(run)


def _named(names: Sequence[str]) -> Callable[[str], list[str]]:
    """Creates a function that completes these names in the shell."""

    def complete(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return complete


def _checked_model(name: str | None) -> str | None:
    if name is not None and name not in VARIANTS:
        raise typer.BadParameter(f"must be one of {', '.join(VARIANTS)}. Received: {name}")
    return name


def _checked_model_of_weights(name: str | None) -> str | None:
    return name if name in DENSE_NETWORKS else _checked_model(name)


def _checked_model_to_train(name: str) -> str | None:
    return name if find_model(name) else _checked_model(name)


_NETWORK = {"callback": _checked_model, "autocompletion": _named(list(VARIANTS))}
_NETWORK_OF_WEIGHTS = {
    "callback": _checked_model_of_weights,
    "autocompletion": _named([*VARIANTS, *DENSE_NETWORKS]),
}
DATA_HELP = (
    "Folder with a subfolder per class, CSV table, shards, or a TensorFlow Datasets name. For "
    "segmentation, folder with images/ and masks/, or of ADE20K, Cityscapes or Pascal VOC. For "
    "detection, folder or file of COCO, YOLO or Pascal VOC, and for rotated boxes, of DOTA or "
    "YOLO-OBB."
)
Network = Annotated[str, typer.Argument(help="Name of the network, see `list`.", **_NETWORK)]
NetworkOfWeights = Annotated[
    str, typer.Argument(help="Name of the network, see `list --weights`.", **_NETWORK_OF_WEIGHTS)
]
TagNames = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="weights",
        help="Names of published weights, see `list --weights`.",
        show_default="the default of the network",
        autocompletion=_named(list(TAGS)),
    ),
]
ModelToName = Annotated[
    str,
    typer.Option(
        "--model",
        help="Name of the network, see `list` and `list --roadmap`.",
        callback=_checked_model_to_train,
        autocompletion=_named([*VARIANTS, *MODELS]),
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="Name of the network, see `list --weights`. Only needed for published weights.",
        show_default="detected from the file",
        **_NETWORK_OF_WEIGHTS,
    ),
]
WEIGHTS_HELP = "Weights file or folder, or the name of published weights, see `list --weights`."
Weights = Annotated[str, typer.Option(help=WEIGHTS_HELP, autocompletion=_named(list(TAGS)))]
RecipeName = Annotated[
    str,
    typer.Option(
        "--recipe",
        help="Name of the recipe, see `recipes`.",
        autocompletion=_named(list(recipes())),
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a recipe field. Repeatable."),
]
Size = Annotated[
    int | None,
    typer.Option(min=32, help="Side of the images in pixels.", show_default="that of the network"),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Images per batch.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Entry = Annotated[
    str | None, typer.Option(help="Key of the weights, such as ema, if a file contains several.")
]
Prefix = Annotated[
    str | None, typer.Option(help="Name prefix of the ConvNeXt, if a file contains several.")
]
Ignore = Annotated[
    list[str] | None,
    typer.Option(metavar="PATTERN", help="Tensors to ignore, such as 'head.*'. Repeatable."),
]


def checked_picture(path: Path | None) -> Path | None:
    """Checks that an output picture can be written, before the work is done.

    Raises:
        typer.BadParameter: If its suffix is not a picture format, or if it is a folder.
    """
    if path is not None:
        from PIL import Image

        Image.init()
        if Image.EXTENSION.get(path.suffix.lower()) not in Image.SAVE:
            raise typer.BadParameter(f"must end in .png, .jpg or .webp. Received: {path}")
        if path.is_dir():
            raise typer.BadParameter(f"must not be a folder. Received: {path}")
    return path


class Reading(TypedDict, total=False):
    """Keyword arguments that select weights in a file. Without any, the file must contain one."""

    entry: str
    prefix: str
    ignore: tuple[str, ...]


def reading(entry: str | None, prefix: str | None, ignore: Sequence[str] | None) -> Reading:
    """Converts the options --entry, --prefix and --ignore to keyword arguments."""
    chosen: Reading = {}
    if entry is not None:
        chosen["entry"] = entry
    if prefix is not None:
        chosen["prefix"] = prefix
    if ignore:
        chosen["ignore"] = tuple(ignore)
    return chosen


class Shape(TypedDict, total=False):
    """Keyword arguments for a builder. Empty for the network's default image size."""

    input_shape: tuple[int | None, int | None, int]


def shape_of(size: int | None) -> Shape:
    """Converts the option --size to keyword arguments for a builder."""
    return {} if size is None else {"input_shape": (size, size, 3)}


def settings_of(pairs: Sequence[str]) -> dict[str, str]:
    """Parses KEY=VALUE settings of a recipe.

    Raises:
        ValueError: If a setting has no "=" or no key, or if a key is repeated.
    """
    settings: dict[str, str] = {}
    for pair in pairs:
        key, sign, value = (part.strip() for part in pair.partition("="))
        if not sign or not key:
            raise ValueError(f"A setting must be KEY=VALUE, as in epochs=5. Received: --set {pair}")
        if key in settings:
            raise ValueError(
                f"{key} is set twice. Received: --set {key}={settings[key]} and --set {pair}"
            )
        settings[key] = value
    return settings
