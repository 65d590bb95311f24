"""The command `keras-convnext`: parses, calls one function below, prints."""

import sys
from collections.abc import Callable

from keras_convnext.cli import demonstration, exports, files, networks, photographs, runs
from keras_convnext.cli.application import app, messages

_COMMANDS: dict[str, Callable[..., None]] = {
    "list": networks.list_variants,
    "info": networks.info,
    "predict": photographs.predict,
    "convert": files.convert_weights,
    "verify": files.verify_weights,
    "export": exports.export_network,
    "demo": demonstration.demo,
    "train": runs.train_network,
    "evaluate": runs.evaluate_network,
    "plan": runs.plan_run,
}

for name, function in _COMMANDS.items():
    app.command(name)(function)


def main() -> None:
    """Runs the command; an error of the user's or of a file is a line, not a traceback."""
    try:
        app()
    except (ValueError, OSError, ImportError) as error:
        messages.print(f"Error: {error}", style="red", markup=False, highlight=False)
        sys.exit(2)
