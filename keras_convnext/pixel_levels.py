"""Converts gray pixels with more than 8 bits to 8 bits, depending on their range."""

import numpy as np

# The highest value of a range, and the divisor or factor that maps it to 0..255.
_RANGES = ((255, 1), (4095, 16), (65535, 256))  # integers, divisors
_FLOATING_RANGES = ((1, 255.0), (255, 1.0), (65535, 255 / 65535))  # factors


class PixelError(ValueError):
    """The range of the pixels is unknown."""


def to_eight_bits(values: np.ndarray) -> tuple[np.ndarray, str]:
    """Scales gray pixels to 0..255.

    For 16-bit pixels the upper 8 bits are kept, as in Pillow and libpng. Cameras and microscopes
    often store 12-bit or 8-bit values in 16 bits, which would become almost black, so pixels that
    use no more bits are scaled from that range. 32-bit integer and floating-point pixels have no
    standard range: 0..1 (floating-point), 0..255, 0..4095 (integer) and 0..65535 are recognized by
    the highest value.

    Args:
        values: array (H, W) of uint16, int32 or float32.

    Returns:
        uint8 array (H, W), and a sentence about the assumed range, or "" for ordinary 16-bit
        pixels.

    Raises:
        PixelError: If values are negative, not finite or above 65535.
    """
    low, high = values.min().item(), values.max().item()
    if not 0 <= low <= high <= 65535:  # False for NaN
        raise PixelError(
            f"Pixels from {low:g} to {high:g} have no known range. Scale them to 0..255, and store "
            "them with 8 bits."
        )
    if values.dtype.kind == "f":
        top, factor = next(row for row in _FLOATING_RANGES if high <= row[0])
        # In place, to avoid several copies of a large image.
        levels = values * np.float32(factor)
        levels += np.float32(0.5)
        return levels.astype(
            np.uint8
        ), f"Floating-point pixels were scaled from 0..{top} to 0..255."
    top, divisor = next(row for row in _RANGES if high <= row[0])
    levels = (values // divisor).astype(np.uint8)
    if high == 0 or (top == 65535 and values.dtype.itemsize == 2):
        return levels, ""
    bits = 8 * values.dtype.itemsize
    return levels, f"{bits}-bit pixels were scaled from 0..{top} to 0..255."
