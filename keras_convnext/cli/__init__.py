"""The command `keras-convnext`: each subcommand parses options, calls one function and prints."""

import signal
import sys
from collections.abc import Callable
from types import FrameType

from keras_convnext.cli import (
    checkpoints,
    demonstration,
    environment,
    evaluation,
    exports,
    networks,
    photographs,
    runs,
    storage,
    tiling,
)
from keras_convnext.cli.application import app, command
from keras_convnext.cli.noise import library_output
from keras_convnext.cli.terminal import prepare_streams

_COMMANDS: dict[str, Callable[..., None]] = {
    "list": networks.list_variants,
    "info": networks.info,
    "predict": photographs.predict,
    "identify": checkpoints.identify_weights,
    "download": storage.download,
    "convert": checkpoints.convert_weights,
    "verify": checkpoints.verify_weights,
    "evaluate": evaluation.evaluate_network,
    "recipes": runs.list_recipes,
    "plan": runs.plan_run,
    "train": runs.train_network,
    "tile": tiling.tile,
    "export": exports.export_network,
    "demo": demonstration.demo,
    "doctor": environment.doctor,
}
for name, function in _COMMANDS.items():
    command(name, function)
app.add_typer(storage.cache, name="cache")


def main() -> None:
    """Runs the command. Exit codes are listed in `failures.EXIT_CODES`."""
    prepare_streams()
    library_output.is_kept = True
    signal.signal(signal.SIGTERM, _stop)
    app(prog_name="keras-convnext")


def _stop(number: int, frame: FrameType | None) -> None:
    """Raises SystemExit, so that partially written files are removed."""
    sys.exit(128 + number)
