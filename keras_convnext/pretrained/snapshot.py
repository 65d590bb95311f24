"""Finds the weight file in a folder from Hugging Face, DeepSpeed and others."""

from itertools import islice
from pathlib import Path, PurePosixPath, PureWindowsPath

from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.foreign_files import missing_file
from keras_convnext.printable import printable

# The files that transformers looks for, in its order; others contain the same weights.
_SNAPSHOT = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_SUFFIXES = {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".tar", ".h5", ".hdf5", ".keras"}
_INDEX = ".index.json"
_MAX_NAME = 255
_MOST_SEARCHED = 1000  # files in subfolders


def weight_file(path: str | Path) -> Path:
    """Returns the weight file in a folder, or the path itself if it is not a folder.

    Raises:
        CheckpointError: If the folder contains no weight file or several.
    """
    address, path = str(path), Path(path)
    if not path.is_dir():
        if not path.exists() and (told := missing_file(address)):
            raise FileNotFoundError(f"{told}. Received: {printable(address)}")
        return path
    names = sorted(member.name for member in path.iterdir() if not member.name.startswith("."))
    for name in _SNAPSHOT:
        if name in names:
            return path / name
    if "latest" in names:
        return _of_deepspeed(path)
    if any(name.endswith("_model_states.pt") for name in names):
        return _of_deepspeed_step(path, names)
    found = [name for name in names if name.endswith(_INDEX)] or [
        name for name in names if Path(name).suffix in _SUFFIXES and (path / name).is_file()
    ]
    if len(found) == 1:
        return path / found[0]
    if found:
        raise CheckpointError(
            f"The folder contains several weight files: {_shown(found)}. Pass one of them "
            f"(folder: {path})"
        )
    raise CheckpointError(f"{_what_it_is_instead(path, names)} (folder: {path})")


def is_plain_name(name: str) -> bool:
    """Whether a name read from a file stays in the same folder on every operating system."""
    return (
        name not in ("", ".", "..")
        and name == PurePosixPath(name).name == PureWindowsPath(name).name
        and name.isprintable()
        and len(name.encode()) <= _MAX_NAME
    )


def _of_deepspeed(folder: Path) -> Path:
    """Returns the weights of the step named in the file `latest`."""
    with open(folder / "latest", "rb") as file:
        step = file.read(_MAX_NAME).decode("utf-8", "replace").strip()
    if not is_plain_name(step) or not (folder / step).is_dir():
        raise CheckpointError(
            "The file `latest` does not name a subfolder, as DeepSpeed's does. "
            f"Received: {step!a} (folder: {folder})"
        )
    names = sorted(member.name for member in (folder / step).iterdir())
    return _of_deepspeed_step(folder / step, names)


def _of_deepspeed_step(folder: Path, names: list[str]) -> Path:
    whole = [name for name in names if name.startswith("mp_rank_") and name.endswith("_states.pt")]
    if len(whole) == 1:
        return folder / whole[0]
    raise CheckpointError(
        f"DeepSpeed has split the weights across {_shown(names)}. Merge them with DeepSpeed's "
        "script in the checkpoint folder, `python zero_to_fp32.py . pytorch_model.bin`, and pass "
        f"the merged file (folder: {folder})"
    )


def _what_it_is_instead(folder: Path, names: list[str]) -> str:
    if "saved_model.pb" in names:
        return (
            "This is a TensorFlow SavedModel, which is a program. Save the weights of the original "
            "model instead: save_checkpoint(model, 'model.weights.h5')"
        )
    if any(name.endswith(".distcp") for name in names):
        return (
            "This is a PyTorch distributed checkpoint. Convert it with `python -m "
            "torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER model.pth`"
        )
    if within := _folders_with_weights(folder):
        return f"The folder contains no weight file. Pass one of its subfolders: {_shown(within)}"
    return f"The folder contains no weight file. Pass the file itself. Received: {_shown(names)}"


def _folders_with_weights(folder: Path) -> list[str]:
    """Returns subfolders with weights, at most two levels deep, as in Hugging Face's cache."""
    found = set()
    for place in islice((*folder.glob("*/*"), *folder.glob("*/*/*")), _MOST_SEARCHED):
        if place.suffix in _SUFFIXES and place.is_file():
            found.add(place.parent.relative_to(folder).as_posix())
    return sorted(found)


def _shown(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(ascii(name)[1:-1][:100] for name in names[:5]) + more if names else "nothing"
