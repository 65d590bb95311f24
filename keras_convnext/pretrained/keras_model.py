"""Loads models from `.keras` files that use only layers of Keras and of this package."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.keras_file import read_config, read_keras
from keras_convnext.pretrained.keras_limits import Limits, check_graph

# Keras layers that run code from the file or read other files that it names.
_UNSAFE = {
    "FlaxLayer", "IntegerLookup", "JaxLayer", "Lambda", "StringLookup", "TFSMLayer",
    "TextVectorization", "TorchModuleWrapper", "__lambda__",
}  # fmt: skip


def load_keras_model(path: str | Path) -> keras.Model:
    """Loads the model in a `.keras` file without compiling it.

    Raises:
        CheckpointError: If the file is damaged, asks for more weights than it contains, or uses
            classes that are neither part of Keras or this package nor registered with
            `keras.saving.register_keras_serializable`.
        FileNotFoundError: If the file does not exist.
    """
    limits = Limits(Path(path).stat().st_size)
    config = read_config(path)
    read_keras(path)  # Keras would allocate whatever the file claims to contain
    config.pop("compile_config", None)  # Keras ignores it here, but not that of a model within
    try:
        for named in _classes(config):
            _check_class(named)
        check_graph(config)
        with limits.kept():
            return keras.models.load_model(path, compile=False, safe_mode=True)
    except MemoryError:
        raise
    except Exception as error:  # a damaged configuration can raise almost anything
        told = str(error) if isinstance(error, CheckpointError) else limits.refusal
        raise CheckpointError(f"{told or _reason(error)} (file: {path})") from error


def _reason(error: Exception) -> str:
    said = str(error).strip().partition("\n")[0][:300].encode("unicode_escape").decode()
    return (
        f"Keras cannot load the model: {type(error).__name__}: {said}. If it was saved with a "
        f"newer Keras, upgrade Keras. Received: keras=={keras.__version__}"
    )


def _classes(config: Any) -> Iterator[dict[str, Any]]:
    """Yields every dict in a configuration that names a class or function."""
    waiting = [config]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            if "class_name" in each:
                yield each
            waiting += each.values()
        elif isinstance(each, list):
            waiting += each


def _check_class(named: dict[str, Any]) -> None:
    name, module, registered = (named.get(k) for k in ("class_name", "module", "registered_name"))
    shown = ascii(name)[:100]
    if not isinstance(name, str) or name in _UNSAFE:
        raise CheckpointError(
            f"The model uses the class {shown}, which runs code from the file or reads other "
            "files. If you trust the file, load it with keras.models.load_model and pass the model "
            "instead"
        )
    is_known = isinstance(registered, str) and keras.saving.get_registered_object(registered)
    of_keras = isinstance(module, str) and f"{module}.".startswith("keras.") and name != "function"
    if (
        not is_known
        and not of_keras
        and name not in ("__tensor__", "__numpy__", "__keras_tensor__")
    ):
        raise CheckpointError(
            f"The model uses the class {shown}, which is not part of Keras or this package. First "
            "import the module that registers it with keras.saving.register_keras_serializable"
        )
