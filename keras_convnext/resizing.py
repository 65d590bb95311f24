"""Resizes images to the same pixels with every version of Pillow.

Images are resized in two passes, each bicubic, antialiased and rounded to whole gray levels: first
along the width, then along the height. That is what Pillow did up to version 12.1, with which the
published accuracies were measured. Pillow 12.2 and 12.3 reverse the order for images more than 100
times as tall as wide, and Pillow 13 if the height shrinks by more than twice as many pixels as the
width, which changes sharp edges by many levels. One call per pass gives the same pixels in all
versions. `data.images` does the same in a graph.

Dense networks resize as OpenCV does instead, by `resized_linearly`.
"""

import numpy as np
from PIL import Image

# Times the height of the result. If a taller image also widens, the first pass would need far more
# memory than the image and the result, so the height is resized first.
TALLEST = 16

Box = tuple[float, float, float, float]  # left, top, right, bottom


def resized(image: Image.Image, sides: tuple[int, int], box: Box | None = None) -> Image.Image:
    """Resizes a part of an image.

    Args:
        image: PIL image in RGB.
        sides: pair of int. Width and height of the result.
        box: four floats or None. The left, top, right and bottom of the part, in pixels. Defaults
            to None, for the whole image.

    Returns:
        PIL image in RGB, of `sides` pixels.
    """
    (width, height), bicubic = sides, Image.Resampling.BICUBIC
    left, top, right, bottom = box or (0, 0, *image.size)
    if image.height > TALLEST * height and image.width < width:
        image = image.resize((image.width, height), bicubic, (0, top, image.width, bottom))
        return image.resize(sides, bicubic, (left, 0, right, height))
    image = image.resize((width, image.height), bicubic, (left, 0, right, image.height))
    return image.resize(sides, bicubic, (0, top, width, bottom))


def resized_linearly(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes an image (H, W, 3) by bilinear interpolation, without antialiasing: OpenCV's default.

    OpenCV rounds its weights to 1/2048, so that some of its levels differ by 1.
    """
    above, below, shares = positions(image.shape[0], size[0])
    rows = image[above] + shares[:, None, None] * (image[below].astype(np.float32) - image[above])
    left, right, shares = positions(image.shape[1], size[1])
    found = rows[:, left] + shares[:, None] * (rows[:, right] - rows[:, left])
    return np.rint(found).astype(image.dtype)


def scaled_size(size: tuple[int, int], scale: tuple[int, int]) -> tuple[int, int]:
    """Returns the height and width of an image of `size` that is fitted into `scale`: mmcv.

    Args:
        size: tuple of int. Height and width of the image.
        scale: tuple of int. The longest and the shortest side, in any order.
    """
    factor = min(max(scale) / max(size), min(scale) / min(size))
    height, width = (int(side * factor + 0.5) for side in size)
    return max(height, 1), max(width, 1)


def positions(before: int, after: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the two neighbors of each position of the result, and the share of the second."""
    centers = np.maximum((np.arange(after) + 0.5) * (before / after) - 0.5, 0)
    first = np.minimum(centers.astype(int), before - 1)
    return first, np.minimum(first + 1, before - 1), (centers - first).astype(np.float32)
