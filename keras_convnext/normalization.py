"""How images are cropped and pixels normalized for a network, as figures."""

from typing import NamedTuple

WARP_FROM = 384  # px: from this size on, the whole image is warped to the square, without cropping
CROPPED_SHARE = 0.875  # below WARP_FROM, the side of the crop divided by the short side


class Pixels(NamedTuple):
    """Mean and standard deviation of each channel of RGB, for pixels in 0..1.

    Args:
        mean: tuple of float. Is subtracted.
        std: tuple of float. Divides the difference.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]


IMAGENET = Pixels((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # as in the official code
# openai/CLIP, clip/clip.py
CLIP = Pixels((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


def crop_share(size: int, crop: float | None = None) -> float:
    """Returns the `crop` of `load_image`, or that of the official evaluation for None.

    Raises:
        ValueError: If it is not in 0..1.
    """
    if crop is None:
        return 0 if size >= WARP_FROM else CROPPED_SHARE
    if not 0 <= crop <= 1:
        raise ValueError(f"crop must be in 0..1. Received: crop={crop}")
    return crop
