"""Colors to draw classes and objects with."""

from functools import cache

import numpy as np

_LEVELS = np.linspace(0, 255, 9).astype(int)  # of red, green and blue, of the candidates

# Linear RGB to what people see: all of it, or as protanopes and deuteranopes do, after Machado,
# Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency",
# IEEE TVCG 2009, table 1.
_VISIONS = (
    np.eye(3),
    np.array([
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ]),
    np.array([
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ]),
)  # fmt: skip
# Linear RGB to the responses of the cones, and these to Oklab: Ottosson, "A perceptual color space
# for image processing", 2020.
_CONES = np.array([
    [0.4122214708, 0.5363325363, 0.0514459929],
    [0.2119034982, 0.6806995451, 0.1073969566],
    [0.0883024619, 0.2817188376, 0.6299787005],
])  # fmt: skip
_OKLAB = np.array([
    [0.2104542553, 0.7936177850, -0.0040720468],
    [1.9779984951, -2.4285922050, 0.4505937099],
    [0.0259040371, 0.7827717662, -0.8086757660],
])  # fmt: skip


@cache
def distinct_colors(number: int) -> np.ndarray:
    """Returns colors that also people with red-green color blindness can tell apart.

    Each color is the candidate that is the farthest from all colors before it, in the closest of
    normal vision, protanopia and deuteranopia.

    Args:
        number: int. Number of colors. The first colors are the same for any number.

    Returns:
        uint8 array (number, 3).
    """
    grid = np.stack(np.meshgrid(_LEVELS, _LEVELS, _LEVELS, indexing="ij"), axis=-1).reshape(-1, 3)
    seen = np.stack([_oklab(grid, vision) for vision in _VISIONS])  # (3, candidates, 3)
    lightness, chroma = seen[0, :, 0], np.linalg.norm(seen[0, :, 1:], axis=-1)
    # So that it shows over a photograph.
    usable = (lightness > 0.42) & (lightness < 0.92) & (chroma > 0.09)
    grid, seen = grid[usable], seen[:, usable]
    nearest = np.full(len(grid), np.inf)
    chosen = int(np.argmin(np.abs(grid - np.array([0, 114, 178])).sum(axis=1)))  # blue
    order = []
    for _ in range(number):
        order.append(chosen)
        apart = np.linalg.norm(seen - seen[:, chosen, None], axis=-1).min(axis=0)
        nearest = np.minimum(nearest, apart)
        if not nearest.max():  # more classes than candidates
            nearest[:] = np.inf
        chosen = int(np.argmax(nearest))
    return grid[order].astype(np.uint8)


def _oklab(colors: np.ndarray, vision: np.ndarray) -> np.ndarray:
    """Returns colors (N, 3) in Oklab, as they are seen."""
    scaled = colors / 255
    linear = np.where(scaled <= 0.04045, scaled / 12.92, ((scaled + 0.055) / 1.055) ** 2.4)
    return np.cbrt(np.clip(linear @ vision.T, 0, 1) @ _CONES.T) @ _OKLAB.T
