"""Published robustness of the files in the catalog, one row per file and measurement.

"paper" rows are table 8 of Liu et al., CVPR 2022 (arXiv:2201.03545v2). How images were prepared for
the models of 384 px is not published there. "timm" rows are measurements of the same weights in
huggingface/pytorch-image-models, results/results-imagenet*.csv, at commit aa4b5850 of 2026-08-08;
images for the models of 384 px are warped to the square, as here.
"""

from typing import NamedTuple

from keras_convnext.pretrained.catalog import find
from keras_convnext.pretrained.catalog_row import Checkpoint


class PublishedRobustness(NamedTuple):
    """Published figures of a file, in percent. None where nothing was published.

    The fields after `source` have the names of the sets in `classification.suites`.

    Args:
        file: str. The file, as in the first row of its network and tag in the catalog.
        source: str. "paper" or "timm".
        imagenet, imagenet_a, imagenet_r, imagenet_sketch, imagenet_v2, imagenet_real: float or
            None. Top-1 accuracy.
        imagenet_c: float or None. Mean corruption error (mCE), normalized by AlexNet's.
        imagenet_c_bar: float or None. Mean error.
    """

    file: str
    source: str
    imagenet: float | None = None
    imagenet_a: float | None = None
    imagenet_r: float | None = None
    imagenet_sketch: float | None = None
    imagenet_v2: float | None = None
    imagenet_real: float | None = None
    imagenet_c: float | None = None
    imagenet_c_bar: float | None = None


# Headings of the figures in tables.
COLUMNS = {
    "imagenet":        "ImageNet",
    "imagenet_a":      "A",
    "imagenet_r":      "R",
    "imagenet_sketch": "Sketch",
    "imagenet_v2":     "V2",
    "imagenet_real":   "ReaL",
    "imagenet_c":      "C (mCE)",
    "imagenet_c_bar":  "C-bar (error)",
}  # fmt: skip

_P = PublishedRobustness
ROBUSTNESS = (
    # file, source, imagenet, a, r, sketch, v2, real, c, c_bar
    _P("convnext_tiny_1k_224_ema.pth",       "paper",  82.1,  24.2,  47.2,  33.8,  None,  None,  53.2,  40.0),
    _P("convnext_base_1k_224_ema.pth",       "paper",  83.8,  36.7,  51.3,  38.2,  None,  None,  46.8,  34.4),
    _P("convnext_base_22k_1k_384.pth",       "paper",  86.8,  62.3,  64.9,  51.6,  None,  None,  43.1,  30.7),
    _P("convnext_large_22k_1k_384.pth",      "paper",  87.5,  65.5,  66.7,  52.8,  None,  None,  40.2,  29.9),
    _P("convnext_xlarge_22k_1k_384_ema.pth", "paper",  87.8,  69.3,  68.2,  55.0,  None,  None,  38.8,  27.1),
    _P("convnext_atto_d2-01bb0f51.pth",      "timm",  75.67,  5.16, 36.04, 24.37, 63.67, 82.98),
    _P("convnext_femto_d1-d71d5b4c.pth",     "timm",  77.50,  6.77, 38.22, 26.39, 65.82, 84.11),
    _P("convnext_pico_d1-10ad7f0d.pth",      "timm",  79.52, 11.95, 40.18, 28.64, 67.99, 85.26),
    _P("convnext_nano_d1h-7eb4bdea.pth",     "timm",  80.76, 16.29, 43.77, 31.14, 70.26, 85.93),
    _P("convnext_tiny_1k_224_ema.pth",       "timm",  82.07, 24.11, 47.13, 33.83, 70.93, 87.31),
    _P("convnext_small_1k_224_ema.pth",      "timm",  83.14, 31.37, 49.54, 37.06, 72.30, 88.05),
    _P("convnext_base_1k_224_ema.pth",       "timm",  83.84, 36.69, 51.25, 38.24, 73.78, 88.38),
    _P("convnext_large_1k_224_ema.pth",      "timm",  84.30, 41.21, 53.41, 40.10, 74.19, 88.59),
    _P("convnext_tiny_22k_1k_224.pth",       "timm",  82.90, 36.64, 50.98, 38.46, 72.58, 88.02),
    _P("convnext_small_22k_1k_224.pth",      "timm",  84.58, 45.15, 57.30, 43.61, 74.80, 89.15),
    _P("convnext_base_22k_1k_224.pth",       "timm",  85.81, 54.77, 61.78, 48.80, 76.16, 89.67),
    _P("convnext_large_22k_1k_224.pth",      "timm",  86.61, 60.48, 63.84, 49.92, 77.56, 89.83),
    _P("convnext_xlarge_22k_1k_224_ema.pth", "timm",  86.97, 63.79, 65.07, 52.57, 77.89, 89.98),
    _P("convnext_tiny_22k_1k_384.pth",       "timm",  84.10, 42.01, 52.07, 39.80, 73.36, 88.86),
    _P("convnext_small_22k_1k_384.pth",      "timm",  85.75, 53.16, 59.93, 46.87, 76.17, 89.93),
    _P("convnext_base_22k_1k_384.pth",       "timm",  86.83, 63.31, 64.74, 51.55, 77.79, 90.34),
    _P("convnext_large_22k_1k_384.pth",      "timm",  87.46, 67.39, 66.51, 52.73, 78.70, 90.31),
    _P("convnext_xlarge_22k_1k_384_ema.pth", "timm",  87.76, 71.19, 67.78, 55.01, 78.81, 90.54),
)  # fmt: skip


def published_robustness(row: Checkpoint) -> tuple[PublishedRobustness, ...]:
    """Returns the published figures of a file in the catalog, or of the file that it copies."""
    file = find(row.model, row.tag)[0].file
    return tuple(each for each in ROBUSTNESS if each.file == file)
