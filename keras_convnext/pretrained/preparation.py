"""How images were prepared, if a configuration next to a weight file says so."""

import json
import math
from pathlib import Path
from typing import NamedTuple

from keras_convnext.normalization import Pixels

_MAX_CONFIG_BYTES = 1 << 20


class Preparation(NamedTuple):
    """What is recorded about the preparation of images.

    Args:
        pixels: Pixels or None. How pixels are normalized.
        crop: float or None. As in `preprocessing.load_image`.
    """

    pixels: Pixels | None = None
    crop: float | None = None


def recorded_preparation(path: str | Path) -> Preparation:
    """Returns what timm's `config.json` or transformers' `preprocessor_config.json` records.

    Args:
        path: str or path. A weight file, or the folder that contains it.
    """
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    timm = _members(_members(_read(folder / "config.json")).get("pretrained_cfg"))
    theirs = _members(_read(folder / "preprocessor_config.json"))
    pixels = _pixels(timm.get("mean"), timm.get("std")) or _pixels(
        theirs.get("image_mean"), theirs.get("image_std")
    )
    share = timm.get("crop_pct")
    crop = float(share) if isinstance(share, int | float) and 0 < share <= 1 else None
    return Preparation(pixels, 0.0 if timm.get("crop_mode") == "squash" else crop)


def _pixels(mean: object, std: object) -> Pixels | None:
    if not (isinstance(mean, list) and isinstance(std, list) and len(mean) == len(std) == 3):
        return None
    numbers = (*mean, *std)
    if not all(isinstance(each, int | float) and math.isfinite(each) for each in numbers):
        return None
    return Pixels(tuple(map(float, mean)), tuple(map(float, std))) if min(std) > 0 else None


def _members(value: object) -> dict[str, object]:
    return value if isinstance(value, dict) else {}


def _read(path: Path) -> object:
    try:
        if path.stat().st_size > _MAX_CONFIG_BYTES:
            return None
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None  # it is optional
