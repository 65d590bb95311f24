"""Grey pixels of more than 8 bits, as 8: by their range, and never black by mistake."""

import numpy as np

# The highest value that pixels can have, and by what they become 0..255.
_RANGES = ((255, 1), (4095, 16), (65535, 256))  # whole numbers, divided
_FLOATING_RANGES = ((1, 255.0), (255, 1.0), (65535, 255 / 65535))  # multiplied


class PixelError(ValueError):
    """No range is known for these pixels."""


def to_eight_bits(values: np.ndarray) -> tuple[np.ndarray, str]:
    """Scales grey pixels to 0..255.

    Of 16 bits the upper 8 are kept, as Pillow and libpng do. Cameras and microscopes often store 12
    bits, or 8, in 16, which would be almost black; so pixels that use no more are scaled by that.
    Pixels of 32 bits, whole or floating-point, have no agreed range: 0..1 (floating-point), 0..255,
    0..4095 (whole) and 0..65535 are recognized by the highest value.

    Args:
        values: array (H, W). uint16, int32 or float32.

    Returns:
        uint8 array (H, W), and a sentence about the range that was assumed, empty for ordinary
        pixels of 16 bits.

    Raises:
        PixelError: If values are negative, not finite or beyond 65535.
    """
    low, high = values.min().item(), values.max().item()
    if not 0 <= low <= high <= 65535:  # nor if one is no number
        raise PixelError(
            f"Pixels from {low:g} to {high:g} have no known range; scale them to 0..255 and store "
            "them as 8-bit."
        )
    if values.dtype.kind == "f":
        top, factor = next(row for row in _FLOATING_RANGES if high <= row[0])
        # In place: a large picture is not to be here many times.
        levels = values * np.float32(factor)
        levels += np.float32(0.5)
        return levels.astype(np.uint8), f"Floating-point pixels: 0..{top} is made 0..255."
    top, divisor = next(row for row in _RANGES if high <= row[0])
    levels = (values // divisor).astype(np.uint8)
    if high == 0 or (top == 65535 and values.dtype.itemsize == 2):
        return levels, ""
    return levels, f"Pixels of {8 * values.dtype.itemsize} bits: 0..{top} is made 0..255."
