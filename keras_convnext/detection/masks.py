"""Masks of detections: pasted into the image, and run-length encoded as in COCO's files."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

_THRESHOLD = 0.5


def paste_mask(mask: np.ndarray, box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes a mask to its box in the image, by bilinear interpolation.

    Example:

    ```python
    found = model.predict({"images": images, "sizes": sizes})
    visible = paste_mask(found["masks"][0, 0], found["boxes"][0, 0], (480, 640))
    ```

    Args:
        mask: array (28, 28). In 0..1, of one detection.
        box: array (4,). x1, y1, x2, y2 in pixels.
        size: tuple of int. Height and width of the image.

    Returns:
        bool array (height, width). Where the mask is at least 0.5.

    References:
        open-mmlab/mmdetection, mmdet/models/roi_heads/mask_heads/fcn_mask_head.py.
    """
    pasted = np.zeros(size, bool)
    (top, rows), (left, columns) = (
        _samples(box[axis], box[axis + 2], mask.shape[1 - axis], size[1 - axis]) for axis in (1, 0)
    )
    values = rows @ np.asarray(mask, "float32") @ columns.T
    pasted[top : top + len(rows), left : left + len(columns)] = values >= _THRESHOLD
    return pasted


def _samples(start: float, end: float, cells: int, length: int) -> tuple[int, np.ndarray]:
    """Returns the first pixel of an axis that a box covers, and the weights (pixels, cells)."""
    first = int(np.clip(np.floor(start) - 1, 0, length))
    last = int(np.clip(np.ceil(end) + 1, first, length))
    side = np.float32(end) - np.float32(start)
    pixels = np.arange(first, last, dtype="float32") + np.float32(0.5)
    positions = (pixels - np.float32(start)) / np.where(side > 0, side, 1) * cells - 0.5
    apart = np.abs(positions[:, None] - np.arange(cells, dtype="float32"))
    return first, np.maximum(1 - apart, 0) * (side > 0)


def encode_rle(mask: np.ndarray) -> dict[str, Any]:
    """Encodes a mask as a string of run lengths, as in COCO's files of results.

    Args:
        mask: bool array (height, width).

    Returns:
        A dict with `size` (height and width) and `counts` (str), as pycocotools has it.
    """
    flat = np.asarray(mask, bool).ravel(order="F")
    ends = np.flatnonzero(np.diff(flat, prepend=False)).tolist()
    runs = np.diff([0, *ends, flat.size]).tolist()
    return {"size": [int(side) for side in mask.shape], "counts": _as_text(runs)}


def decode_rle(rle: Mapping[str, Any]) -> np.ndarray:
    """Decodes run lengths, as numbers or as a string.

    Args:
        rle: dict. As `encode_rle` returns it.

    Returns:
        bool array (height, width).

    Raises:
        ValueError: If the runs do not cover `size` exactly, or the string is damaged.
    """
    runs = check_rle(rle)
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(*rle["size"], order="F")


def check_rle(rle: Mapping[str, Any]) -> list[int]:
    """Returns the run lengths as numbers.

    Args:
        rle: mapping. As in `decode_rle`.

    Raises:
        ValueError: As in `decode_rle`.
    """
    height, width = rle["size"]
    counts = rle.get("counts")
    if isinstance(counts, str | bytes):
        runs = _of_text(counts)
    elif isinstance(counts, list) and all(isinstance(run, int) for run in counts):
        runs = counts
    else:
        raise ValueError("The run lengths of a mask must be a string or a list of whole numbers")
    if any(run < 0 for run in runs) or sum(runs) != height * width:
        raise ValueError(
            f"The run lengths of a mask must add up to its {height} x {width} pixels. "
            f"Received: runs that add up to {str(sum(runs))[:30]}"
        )
    return runs


def _as_text(runs: Iterable[int]) -> str:
    """Writes numbers in groups of five bits, from the third one on as the difference to the last
    but one: cocodataset/cocoapi, common/maskApi.c."""
    letters, earlier = [], [0, 0]
    for index, run in enumerate(runs):
        number = run - earlier[0] * (index > 2)
        earlier = [earlier[1], run]
        while True:
            bits, number = number & 0x1F, number >> 5
            is_last = number == (-1 if bits & 0x10 else 0)
            letters.append(chr(48 + bits + 0x20 * (not is_last)))
            if is_last:
                break
    return "".join(letters)


def _of_text(text: str | bytes) -> list[int]:
    codes = np.frombuffer(
        text.encode("latin-1", "replace") if isinstance(text, str) else text, np.uint8
    )
    if codes.size and not 48 <= codes.min() <= codes.max() < 112:
        raise ValueError("The run lengths of a mask contain a character that encodes nothing")
    runs: list[int] = []
    number = shift = 0
    for code in (codes - 48).tolist():
        number |= (code & 0x1F) << shift
        shift += 5
        if shift > 60:
            raise ValueError("The run lengths of a mask contain a number that is too large")
        if not code & 0x20:
            if code & 0x10:
                number -= 1 << shift
            runs.append(number + (runs[-2] if len(runs) > 2 else 0))
            number = shift = 0
    if shift:
        raise ValueError("The run lengths of a mask end within a number")
    return runs
