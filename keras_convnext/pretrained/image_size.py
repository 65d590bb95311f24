"""The training image size, if a checkpoint records it."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import safetensors

from keras_convnext.pretrained.safetensors_file import SafeTensor

# The names that trainers, timm and transformers use for it, and the dicts they store it in.
_NAMES = ("input_size", "image_size", "img_size")
_HOLDERS = ("args", "config", "cfg", "hyper_parameters", "pretrained_cfg", "model_args", "opt")
_MAX_CONFIG_BYTES = 1 << 20
_SIZES = range(16, 8193)  # plausible sides, in pixels


def recorded_size(path: str | Path, saved: object) -> int | None:
    """Returns the side of the training images in pixels, or None if it is not recorded.

    Args:
        path: str or path. The weight file. A `config.json` in the same folder is read too.
        saved: object. The contents of the file.
    """
    path = Path(path)
    found = [*_sizes(saved)]
    in_safetensors = (each for each in _members(saved).values() if isinstance(each, SafeTensor))
    if tensor := next(in_safetensors, None):
        found += _sizes(_metadata(tensor.path))
    return next(iter(found or [*_sizes(_config(path.with_name("config.json")))]), None)


def _sizes(holder: object) -> Iterator[int]:
    members = _members(holder)
    for name in _NAMES:
        if size := _size(members.get(name)):
            yield size
    for name in _HOLDERS:
        inner = _members(members.get(name))
        for each in (inner, _members(inner.get("pretrained_cfg"))):
            yield from filter(None, (_size(each.get(name)) for name in _NAMES))


def _members(holder: object) -> Mapping[object, object]:
    """The items of a dict, or the attributes of a pickled object."""
    attributes = getattr(holder, "attributes", getattr(holder, "__dict__", None))
    own = holder if isinstance(holder, Mapping) else {}
    return {**attributes, **own} if isinstance(attributes, dict) else own


def _size(value: object) -> int | None:
    """The side given as 224, "224", [224, 224] or (3, 224, 224)."""
    if isinstance(value, list | tuple) and 1 <= len(value) <= 3:
        value = value[-1]
    if isinstance(value, str) and value.isdecimal() and len(value) < 5:
        value = int(value)
    return value if isinstance(value, int) and value in _SIZES else None


def _metadata(path: Path) -> object:
    with safetensors.safe_open(path, "np") as file:
        return file.metadata()


def _config(path: Path) -> object:
    try:
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            return None
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None  # the config is optional, and not ours to validate
