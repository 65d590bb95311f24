"""Makes the golden arrays of `test_crops.py` with OpenCV and mmsegmentation.

Command: `python tests/segmentation/make_golden_crops.py FOLDER`, with the folder and `PYTHONPATH`
of `make_golden_arrays.py`, and OpenCV 5. Writes `golden/crops.npz`: a picture and labels; both
resized by OpenCV to several sizes; and the picture after mmsegmentation's `PhotoMetricDistortion`
for some draws.
"""

import sys
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).with_name("golden")
SIZES = (20, 40), (53, 86), (37, 96)  # of the resized picture of 37 x 64


def picture():
    """A picture with smooth colors, all hues, gray parts and noise."""
    rows, columns = np.mgrid[0:37, 0:64] / 64
    turns = np.stack([columns, columns + 1 / 3, columns + 2 / 3], -1)
    pixels = 128 + 110 * np.sin(2 * np.pi * turns) * rows[..., None] * 1.4
    pixels += np.random.default_rng(0).normal(0, 12, (37, 64, 1)) * (columns[..., None] > 0.5)
    pixels[:6] = pixels[:6].mean(-1, keepdims=True)
    return pixels.clip(0, 255).astype("uint8")


class Scripted:
    """Stands in for `numpy.random`: turns the draws of our own code into those calls."""

    def __init__(self, draws):
        choices, amounts = draws
        changes = [int(choice < 0.5) for choice in choices]
        brightness, contrast, saturation, hue, early = changes
        self.integers = [brightness, early, *[contrast] * early, saturation, hue]
        if hue:
            self.integers.append(int(np.floor(np.float32(36) * amounts[3])) - 18)
        self.integers += [contrast] * (not early)
        self.amounts = [amounts[0]] * brightness + [amounts[1]] * (contrast and early)
        self.amounts += [amounts[2]] * saturation + [amounts[1]] * (contrast and not early)

    def randint(self, *_):
        return self.integers.pop(0)

    def uniform(self, low, high):
        return np.float32(low) + np.float32(high - low) * np.float32(self.amounts.pop(0))


def main():
    import cv2
    import openmmlab  # noqa: F401  (stands in for compiled operators)
    from mmseg.datasets.transforms import transforms

    pixels = picture()
    labels = np.random.default_rng(1).integers(0, 5, (37, 64)).astype("uint8")
    arrays = {"picture": pixels, "labels": labels}
    for height, width in SIZES:
        arrays[f"picture {height}"] = cv2.resize(pixels, (width, height))
        arrays[f"labels {height}"] = cv2.resize(
            labels, (width, height), interpolation=cv2.INTER_NEAREST
        )
    draws = np.random.default_rng(2).uniform(size=(16, 2, 5)).astype("float32")
    distortion, found = transforms.PhotoMetricDistortion(), []
    for own in draws:
        transforms.random = Scripted(own)
        bgr = np.ascontiguousarray(pixels[..., ::-1])
        found.append(distortion.transform({"img": bgr})["img"][..., ::-1])
        assert not transforms.random.integers + transforms.random.amounts
    np.savez_compressed(GOLDEN / "crops.npz", draws=draws, distorted=np.stack(found), **arrays)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    sys.path.insert(0, sys.argv[1])
    main()
