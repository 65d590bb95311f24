"""Loads models from `.keras` files that use only layers of Keras and of this package."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras

from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.keras_file import read_config, read_keras

# Keras layers that run code from the file or read other files that it names.
_UNSAFE = {
    "FlaxLayer", "IntegerLookup", "JaxLayer", "Lambda", "StringLookup", "TFSMLayer",
    "TextVectorization", "TorchModuleWrapper", "__lambda__",
}  # fmt: skip


def load_keras_model(path: str | Path) -> keras.Model:
    """Loads the model in a `.keras` file without compiling it.

    Raises:
        CheckpointError: If the file is damaged, or uses classes that are neither part of Keras or
            this package nor registered with `keras.saving.register_keras_serializable`.
        FileNotFoundError: If the file does not exist.
    """
    for named in _classes(read_config(path)):
        _check_class(named, path)
    read_keras(path)  # Keras would allocate whatever the file claims to contain
    try:
        return keras.models.load_model(path, compile=False, safe_mode=True)
    except MemoryError:
        raise
    except Exception as error:  # a damaged configuration can raise almost anything
        reason = str(error).strip().partition("\n")[0][:300].encode("unicode_escape").decode()
        raise CheckpointError(
            f"Keras cannot load the model: {reason}. If it was saved with a newer Keras, upgrade "
            f"Keras. Received: keras=={keras.__version__} (file: {path})"
        ) from error


def _classes(config: Any) -> Iterator[dict[str, Any]]:
    """Yields every dict in a configuration that names a class or function."""
    waiting = [config]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            if "class_name" in each:
                yield each
            waiting += [value for key, value in each.items() if key != "compile_config"]
        elif isinstance(each, list):
            waiting += each


def _check_class(named: dict[str, Any], path: str | Path) -> None:
    name, module, registered = (named.get(k) for k in ("class_name", "module", "registered_name"))
    shown = ascii(name)[:100]
    if not isinstance(name, str) or name in _UNSAFE:
        raise CheckpointError(
            f"The model uses the class {shown}, which runs code from the file or reads other "
            "files. If you trust the file, load it with keras.models.load_model and pass the model "
            f"instead (file: {path})"
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
            "import the module that registers it with keras.saving.register_keras_serializable "
            f"(file: {path})"
        )
