"""Corruptions of 32 px images after CIFAR-10-C, for `robustness.py`.

Each function follows the one of the same name in `ImageNet-C/create_c/make_cifar_c.py` of
hendrycks/robustness (Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common
Corruptions and Perturbations", arXiv 1903.12261), with its parameters, for a batch at once.
Differences are stated where they are. Missing are frost, which needs photographs that are not ours,
and snow, elastic_transform and spatter, which depend on the details of OpenCV and ImageMagick. The
random numbers are others, so the images are not those of the release.

Images are arrays (N, 32, 32, 3) in 0..1.
"""

import io
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

Generator = np.random.Generator


def gaussian_noise(x: np.ndarray, rng: Generator, scale: float) -> np.ndarray:
    return x + rng.normal(scale=scale, size=x.shape)


def shot_noise(x: np.ndarray, rng: Generator, photons: float) -> np.ndarray:
    return rng.poisson(x * photons) / photons


def impulse_noise(x: np.ndarray, rng: Generator, share: float) -> np.ndarray:
    """Salt and pepper: a share of the values becomes 0 or 1."""
    replaced = rng.random(x.shape) <= share
    return np.where(replaced, rng.random(x.shape) <= 0.5, x)


def speckle_noise(x: np.ndarray, rng: Generator, scale: float) -> np.ndarray:
    return x + x * rng.normal(scale=scale, size=x.shape)


def gaussian_blur(x: np.ndarray, rng: Generator, sigma: float) -> np.ndarray:
    return ndimage.gaussian_filter(x, sigma, mode="nearest", axes=(1, 2))


def defocus_blur(x: np.ndarray, rng: Generator, radius: float, sigma: float) -> np.ndarray:
    """Averages over a disk, whose border is softened by a 3 x 3 Gaussian."""
    grid = np.arange(-8, 9)
    disk = (grid**2 + grid[:, None] ** 2 <= radius**2).astype(float)
    weights = np.exp(-(np.arange(-1, 2) ** 2) / (2 * sigma**2))
    kernel = np.multiply.outer(weights, weights) / weights.sum() ** 2
    disk = ndimage.convolve(disk / disk.sum(), kernel, mode="constant")
    rows, columns = np.nonzero(disk)
    padded = np.pad(x, ((0, 0), (8, 8), (8, 8), (0, 0)), "reflect")
    height, width = x.shape[1:3]
    return sum(
        disk[row, column] * padded[:, row : row + height, column : column + width]
        for row, column in zip(rows, columns)
    )


def glass_blur(x: np.ndarray, rng: Generator, sigma: float, reach: int, times: int) -> np.ndarray:
    """Shuffles neighboring pixels between two blurs.

    As in the published code, whose swap writes through views, a pixel receives its neighbor's
    value, and the neighbor keeps it.
    """
    x = np.floor(gaussian_blur(x, rng, sigma) * 255)
    images = np.arange(len(x))
    for _ in range(times):
        for row in range(x.shape[1] - reach, reach, -1):
            for column in range(x.shape[2] - reach, reach, -1):
                right, down = rng.integers(-reach, reach, size=(2, len(x)))
                x[:, row, column] = x[images, row + down, column + right]
    return gaussian_blur(x / 255, rng, sigma)


def motion_blur(x: np.ndarray, rng: Generator, radius: int, sigma: float) -> np.ndarray:
    """Averages along a line from each pixel, at -45 to 45 degrees, with Gaussian weights.

    The published code calls ImageMagick, which rounds its intermediate values.
    """
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    margin, (height, width) = 2 * radius, x.shape[1:3]
    padded = np.pad(x, ((0, 0), (margin, margin), (margin, margin), (0, 0)), "edge")
    blurred = np.empty_like(x)
    for index, angle in enumerate(np.deg2rad(rng.uniform(-45, 45, len(x)))):
        down = np.ceil(steps * np.sin(angle) - 0.5).astype(int) + margin
        right = np.ceil(steps * np.cos(angle) - 0.5).astype(int) + margin
        blurred[index] = sum(
            weight * padded[index, row : row + height, column : column + width]
            for weight, row, column in zip(weights, down, right)
        )
    return blurred


def zoom_blur(x: np.ndarray, rng: Generator, largest: float) -> np.ndarray:
    """Averages the image and its enlargements, in steps of 1 %."""
    factors = np.arange(1, largest, 0.01)
    return (x + sum(_enlarged(x, factor) for factor in factors)) / (len(factors) + 1)


def _enlarged(x: np.ndarray, factor: float) -> np.ndarray:
    side = x.shape[1]
    kept = int(np.ceil(side / factor))
    first = (side - kept) // 2
    enlarged = round(kept * factor)
    positions = np.linspace(0, kept - 1, enlarged)[(enlarged - side) // 2 :][:side]
    bilinear = np.maximum(0, 1 - np.abs(positions[:, None] - np.arange(kept)))  # (side, kept)
    window = x[:, first : first + kept, first : first + kept]
    return np.einsum("ir,nrsc,js->nijc", bilinear, window, bilinear, optimize=True)


def fog(x: np.ndarray, rng: Generator, amount: float, decay: float) -> np.ndarray:
    brightest = x.max(axis=(1, 2, 3), keepdims=True)
    clouds = plasma(len(x), x.shape[1], decay, rng)[..., None]
    return (x + amount * clouds) * brightest / (brightest + amount)


def plasma(count: int, side: int, decay: float, rng: Generator) -> np.ndarray:
    """Draws fractal clouds (count, side, side) in 0..1, by the diamond-square algorithm."""
    clouds = np.zeros((count, side, side))
    step, amplitude = side, 100.0
    while step >= 2:
        half = step // 2
        corners = clouds[:, ::step, ::step]
        sums = corners + np.roll(corners, -1, axis=1)
        sums += np.roll(sums, -1, axis=2)
        shape = corners.shape
        noise = amplitude * rng.uniform(-amplitude, amplitude, (3, *shape))
        centers = clouds[:, half::step, half::step] = sums / 4 + noise[0]
        above = centers + np.roll(centers, 1, axis=1)
        beside = corners + np.roll(corners, -1, axis=2)
        clouds[:, ::step, half::step] = (above + beside) / 4 + noise[1]
        left = centers + np.roll(centers, 1, axis=2)
        # The corner below would be the neighbor; the published code takes the one beside.
        clouds[:, half::step, ::step] = (left + beside) / 4 + noise[2]
        step, amplitude = half, amplitude / decay
    clouds -= clouds.min(axis=(1, 2), keepdims=True)
    return clouds / clouds.max(axis=(1, 2), keepdims=True)


def brightness(x: np.ndarray, rng: Generator, added: float) -> np.ndarray:
    """Raises the value of HSV."""
    value = x.max(axis=-1, keepdims=True)
    brighter = np.minimum(value + added, 1)
    return np.where(value > 0, x * brighter / np.maximum(value, 1e-12), brighter)


def contrast(x: np.ndarray, rng: Generator, factor: float) -> np.ndarray:
    means = x.mean(axis=(1, 2), keepdims=True)
    return (x - means) * factor + means


def saturate(x: np.ndarray, rng: Generator, factor: float, added: float) -> np.ndarray:
    """Changes the saturation of HSV. The hue of gray is red, as in scikit-image."""
    value = x.max(axis=-1, keepdims=True)
    below = value - x  # of the brightest channel
    spread = below.max(axis=-1, keepdims=True)
    saturation = np.clip(factor * spread / np.maximum(value, 1e-12) + added, 0, 1)
    colored = below / np.maximum(spread, 1e-12)
    return value * (1 - saturation * np.where(spread > 0, colored, [0.0, 1.0, 1.0]))


def pixelate(x: np.ndarray, rng: Generator, factor: float) -> np.ndarray:
    side = x.shape[1]
    small = int(side * factor), int(side * factor)
    box = Image.Resampling.BOX
    return _each(x, lambda image: image.resize(small, box).resize((side, side), box))


def jpeg_compression(x: np.ndarray, rng: Generator, quality: int) -> np.ndarray:
    def compressed(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.open(file)

    return _each(x, compressed)


def _each(x: np.ndarray, change: Callable[[Image.Image], Image.Image]) -> np.ndarray:
    pixels: Iterable[np.ndarray] = np.rint(x * 255).astype(np.uint8)
    return np.stack([np.asarray(change(Image.fromarray(image))) / 255 for image in pixels])


class Corruption(NamedTuple):
    """A corruption, and its parameters at severity 1 to 5.

    Args:
        apply: function (images, generator, *parameters).
        severities: tuple of five tuples.
        counts: bool. Whether it is one of the 15 of the benchmark, not one of the four extra ones.
    """

    apply: Callable[..., np.ndarray]
    severities: tuple[tuple[float, ...], ...]
    counts: bool = True

    @property
    def name(self) -> str:
        return self.apply.__name__


def _row(apply: Callable[..., np.ndarray], *severities, counts: bool = True) -> Corruption:
    return Corruption(
        apply, tuple(each if isinstance(each, tuple) else (each,) for each in severities), counts
    )


CORRUPTIONS = (
    _row(gaussian_noise, 0.04, 0.06, 0.08, 0.09, 0.10),
    _row(shot_noise, 500, 250, 100, 75, 50),
    _row(impulse_noise, 0.01, 0.02, 0.03, 0.05, 0.07),
    _row(defocus_blur, (0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    _row(glass_blur, (0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    _row(motion_blur, (6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    _row(zoom_blur, 1.06, 1.11, 1.16, 1.21, 1.26),
    _row(fog, (0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    _row(brightness, 0.05, 0.1, 0.15, 0.2, 0.3),
    _row(contrast, 0.75, 0.5, 0.4, 0.3, 0.15),
    _row(pixelate, 0.95, 0.9, 0.85, 0.75, 0.65),
    _row(jpeg_compression, 80, 65, 58, 50, 40),
    _row(speckle_noise, 0.06, 0.1, 0.12, 0.16, 0.2, counts=False),
    _row(gaussian_blur, 0.4, 0.6, 0.7, 0.8, 1, counts=False),
    _row(saturate, (0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2), counts=False),
)


def corrupted(
    images: np.ndarray, corruption: Corruption, severity: int, first: int = 0
) -> np.ndarray:
    """Corrupts uint8 images (N, 32, 32, 3), always in the same way.

    `severity` is 1 to 5, and `first` the position of the first image in the data: batches at
    different positions have different random numbers.
    """
    rng = np.random.default_rng([CORRUPTIONS.index(corruption), severity, first])
    changed = corruption.apply(images / 255, rng, *corruption.severities[severity - 1])
    # Rounded down as in the release; a thousandth protects levels that did not change.
    return np.floor(np.clip(changed, 0, 1) * 255 + 1e-3).astype(np.uint8)
