"""The statistics with which networks normalize pixels."""

from typing import NamedTuple


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
