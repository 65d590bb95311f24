"""Catalogue of the published checkpoints, one row per file.

The files are published by facebookresearch/ConvNeXt (README), open-mmlab/mmpretrain
(configs/convnext/README.md) and huggingface/pytorch-image-models (timm/models/convnext.py; its
README for the accuracies of Atto to Nano). "shipped" files are our own and part of the package.

Accuracies are those reported by the row's source: ImageNet-1K validation images (CIFAR-10 test
images for "cifar10"), single crop, resized and cropped as in `preprocessing.load_image` at that
size. For the isotropic networks they are the README's; table 2 of the paper has 79.7, 82.0 and 82.6.
"""

import re
from typing import NamedTuple

from keras_convnext.complexity import parts
from keras_convnext.printable import printable
from keras_convnext.variants import VARIANTS

# The values of `weights=`, and what each stands for.
TAGS = {
    "imagenet":           "ImageNet-1K at 224 px",
    "imagenet_384":       "ImageNet-1K at 224 px, then at 384 px",
    "imagenet_no_ema":    "ImageNet-1K at 224 px, without EMA: the initialization of detectors and segmenters",
    "imagenet22k":        "ImageNet-22K at 224 px, 21,841 classes",
    "imagenet22k_ft":     "ImageNet-22K, then ImageNet-1K at 224 px",
    "imagenet22k_ft_384": "ImageNet-22K, then ImageNet-1K at 384 px",
    "dinov3":             "LVD-1689M, distilled from DINOv3; no classifier",
    "cifar10":            "CIFAR-10 at 32 px; included in the package",
}  # fmt: skip

# URLs of each source: {file} is the file name of the row, {stem} the same without its suffix.
# Shipped files are in the folder `weights` of the repository and of the installed package.
SOURCES = {
    "official":    "https://dl.fbaipublicfiles.com/convnext/{file}",
    "openmmlab":   "https://download.openmmlab.com/mmclassification/v0/convnext/{file}",
    "timm":        "https://github.com/huggingface/pytorch-image-models/releases/download/v0.1-rsb-weights/{file}",
    "huggingface": "https://huggingface.co/timm/{stem}/resolve/main/model.safetensors",
    "shipped":     "{tag}/{file}",
}  # fmt: skip


class License(NamedTuple):
    """The license of a published file.

    Args:
        name: str. SPDX identifier, if it has one.
        url: str. Address of its text.
        is_open: bool. Whether it is a common open-source license. If not, read it before use.
            Defaults to True.
    """

    name: str
    url: str
    is_open: bool = True


_MIT = License("MIT", "https://opensource.org/license/mit")
_APACHE = License("Apache-2.0", "https://www.apache.org/licenses/LICENSE-2.0")

# By tag, for any source, or else by source. They are stated in the LICENSE of
# facebookresearch/ConvNeXt and of open-mmlab/mmpretrain, and in timm/models/convnext.py for timm's
# own weights, its copies and DINOv3.
LICENSES = {
    "dinov3":      License("DINOv3 License", "https://ai.meta.com/resources/models-and-libraries/dinov3-license/", is_open=False),
    "official":    _MIT,
    "openmmlab":   _APACHE,
    "timm":        _APACHE,
    "huggingface": _APACHE,
    "shipped":     _MIT,
}  # fmt: skip


class Checkpoint(NamedTuple):
    """A published weight file.

    Args:
        model: str. Name of the network, as in `keras-convnext list`.
        tag: str. The value of `weights=` that selects it, one of `TAGS`.
        source: str. The publisher, one of `SOURCES`.
        file: str. File name, on the server and in the cache.
        classes: int or None. Number of classes, or None without a classifier.
        size: int. Side of the images in the last training stage, in pixels.
        top1: float or None. Top-1 accuracy, in percent.
        top5: float or None. Top-5 accuracy, in percent.
        bytes: int or None. File size in bytes, if known.
        digest: str or None. "sha256:" or "sha384:" followed by the hexadecimal digest or its first
            digits, if known.
        least_probability: float or None. If the most probable class is less probable than this, the
            picture shows none of the classes. None if not measured.
    """

    model: str
    tag: str
    source: str
    file: str
    classes: int | None
    size: int
    top1: float | None = None
    top5: float | None = None
    bytes: int | None = None
    digest: str | None = None
    least_probability: float | None = None

    @property
    def stem(self) -> str:
        """The file name without its suffix."""
        return self.file.rpartition(".")[0]

    @property
    def url(self) -> str:
        """The download URL; for a shipped file, its path inside `weights`."""
        return SOURCES[self.source].format(file=self.file, stem=self.stem, tag=self.tag)

    @property
    def license(self) -> License:
        """The license under which it was published."""
        return LICENSES.get(self.tag) or LICENSES[self.source]

    @property
    def expected_bytes(self) -> int:
        """File size in bytes; if unknown, an estimate of four bytes per weight."""
        network = parts(VARIANTS[self.model], classes=self.classes or 0)
        return self.bytes or 4 * sum(part.parameters for part in network)

    @property
    def known_digest(self) -> str | None:
        """The digest, or its first eight digits if OpenMMLab or timm put them in the file name."""
        in_name = re.search(r"-([0-9a-f]{8})\.pth$", self.file)
        return self.digest or (in_name and f"sha256:{in_name[1]}")


# Open Model Zoo, models/public/convnext-tiny
_TINY_SHA384 = (
    "sha384:f277194ca9561079ea0519fffc204820922ae46dc865b9def7208cf5993382d6"
    "cced681d3d26f6b70c31bf7cec4aba62"
)

# `weights=` uses the first row of a model and tag. Later rows are copies of it, used if the first
# cannot be downloaded. XLarge has no weights trained on ImageNet-1K alone: its "imagenet" is the
# same file as "imagenet22k_ft".
CATALOG = (
    # official
    Checkpoint("convnext_tiny",            "imagenet",           "official", "convnext_tiny_1k_224_ema.pth",       1000,  224, 82.1, None, 114_414_741, _TINY_SHA384),
    Checkpoint("convnext_small",           "imagenet",           "official", "convnext_small_1k_224_ema.pth",      1000,  224, 83.1),
    Checkpoint("convnext_base",            "imagenet",           "official", "convnext_base_1k_224_ema.pth",       1000,  224, 83.8),
    Checkpoint("convnext_large",           "imagenet",           "official", "convnext_large_1k_224_ema.pth",      1000,  224, 84.3),
    Checkpoint("convnext_xlarge",          "imagenet",           "official", "convnext_xlarge_22k_1k_224_ema.pth", 1000,  224, 87.0),
    Checkpoint("convnext_isotropic_small", "imagenet",           "official", "convnext_iso_small_1k_224_ema.pth",  1000,  224, 78.7),
    Checkpoint("convnext_isotropic_base",  "imagenet",           "official", "convnext_iso_base_1k_224_ema.pth",   1000,  224, 82.0),
    Checkpoint("convnext_isotropic_large", "imagenet",           "official", "convnext_iso_large_1k_224_ema.pth",  1000,  224, 82.6),
    Checkpoint("convnext_base",            "imagenet_384",       "official", "convnext_base_1k_384.pth",           1000,  384, 85.1),
    Checkpoint("convnext_large",           "imagenet_384",       "official", "convnext_large_1k_384.pth",          1000,  384, 85.5),
    Checkpoint("convnext_tiny",            "imagenet_no_ema",    "official", "convnext_tiny_1k_224.pth",           1000,  224),
    Checkpoint("convnext_small",           "imagenet_no_ema",    "official", "convnext_small_1k_224.pth",          1000,  224),
    Checkpoint("convnext_base",            "imagenet_no_ema",    "official", "convnext_base_1k_224.pth",           1000,  224),
    Checkpoint("convnext_tiny",            "imagenet22k",        "official", "convnext_tiny_22k_224.pth",          21841, 224),
    Checkpoint("convnext_small",           "imagenet22k",        "official", "convnext_small_22k_224.pth",         21841, 224),
    Checkpoint("convnext_base",            "imagenet22k",        "official", "convnext_base_22k_224.pth",          21841, 224),
    Checkpoint("convnext_large",           "imagenet22k",        "official", "convnext_large_22k_224.pth",         21841, 224),
    Checkpoint("convnext_xlarge",          "imagenet22k",        "official", "convnext_xlarge_22k_224.pth",        21841, 224),
    Checkpoint("convnext_tiny",            "imagenet22k_ft",     "official", "convnext_tiny_22k_1k_224.pth",       1000,  224, 82.9),
    Checkpoint("convnext_small",           "imagenet22k_ft",     "official", "convnext_small_22k_1k_224.pth",      1000,  224, 84.6),
    Checkpoint("convnext_base",            "imagenet22k_ft",     "official", "convnext_base_22k_1k_224.pth",       1000,  224, 85.8),
    Checkpoint("convnext_large",           "imagenet22k_ft",     "official", "convnext_large_22k_1k_224.pth",      1000,  224, 86.6),
    Checkpoint("convnext_xlarge",          "imagenet22k_ft",     "official", "convnext_xlarge_22k_1k_224_ema.pth", 1000,  224, 87.0),
    Checkpoint("convnext_tiny",            "imagenet22k_ft_384", "official", "convnext_tiny_22k_1k_384.pth",       1000,  384, 84.1),
    Checkpoint("convnext_small",           "imagenet22k_ft_384", "official", "convnext_small_22k_1k_384.pth",      1000,  384, 85.8),
    Checkpoint("convnext_base",            "imagenet22k_ft_384", "official", "convnext_base_22k_1k_384.pth",       1000,  384, 86.8),
    Checkpoint("convnext_large",           "imagenet22k_ft_384", "official", "convnext_large_22k_1k_384.pth",      1000,  384, 87.5),
    Checkpoint("convnext_xlarge",          "imagenet22k_ft_384", "official", "convnext_xlarge_22k_1k_384_ema.pth", 1000,  384, 87.8),
    # trained by timm
    Checkpoint("convnext_atto",  "imagenet", "timm", "convnext_atto_d2-01bb0f51.pth",  1000,  224, 75.7),
    Checkpoint("convnext_femto", "imagenet", "timm", "convnext_femto_d1-d71d5b4c.pth", 1000,  224, 77.5),
    Checkpoint("convnext_pico",  "imagenet", "timm", "convnext_pico_d1-10ad7f0d.pth",  1000,  224, 79.5),
    Checkpoint("convnext_nano",  "imagenet", "timm", "convnext_nano_d1h-7eb4bdea.pth", 1000,  224, 80.8),
    # Meta's DINOv3, converted by timm
    Checkpoint("convnext_tiny",  "dinov3", "huggingface", "convnext_tiny.dinov3_lvd1689m.safetensors",  None,  224),
    Checkpoint("convnext_small", "dinov3", "huggingface", "convnext_small.dinov3_lvd1689m.safetensors", None,  224),
    Checkpoint("convnext_base",  "dinov3", "huggingface", "convnext_base.dinov3_lvd1689m.safetensors",  None,  224),
    Checkpoint("convnext_large", "dinov3", "huggingface", "convnext_large.dinov3_lvd1689m.safetensors", None,  224),
    # copies of the official files, converted by OpenMMLab
    Checkpoint("convnext_tiny",   "imagenet",           "openmmlab", "convnext-tiny_3rdparty_32xb128_in1k_20220124-18abde00.pth",            1000,  224, 82.05, 95.86),
    Checkpoint("convnext_small",  "imagenet",           "openmmlab", "convnext-small_3rdparty_32xb128_in1k_20220124-d39b5192.pth",           1000,  224, 83.13, 96.44),
    Checkpoint("convnext_base",   "imagenet",           "openmmlab", "convnext-base_3rdparty_32xb128_in1k_20220124-d0915162.pth",            1000,  224, 83.85, 96.74),
    Checkpoint("convnext_large",  "imagenet",           "openmmlab", "convnext-large_3rdparty_64xb64_in1k_20220124-f8a0ded0.pth",            1000,  224, 84.30, 96.89),
    Checkpoint("convnext_xlarge", "imagenet",           "openmmlab", "convnext-xlarge_in21k-pre-3rdparty_64xb64_in1k_20220124-76b6863d.pth", 1000,  224, 86.97, 98.20),
    Checkpoint("convnext_base",   "imagenet_384",       "openmmlab", "convnext-base_3rdparty_in1k-384px_20221219-c8f1dc2b.pth",              1000,  384, 85.10, 97.34),
    Checkpoint("convnext_large",  "imagenet_384",       "openmmlab", "convnext-large_3rdparty_in1k-384px_20221219-6dd29d10.pth",             1000,  384, 85.50, 97.59),
    Checkpoint("convnext_tiny",   "imagenet_no_ema",    "openmmlab", "convnext-tiny_3rdparty_32xb128-noema_in1k_20220222-2908964a.pth",      1000,  224),
    Checkpoint("convnext_small",  "imagenet_no_ema",    "openmmlab", "convnext-small_3rdparty_32xb128-noema_in1k_20220222-fa001ca5.pth",     1000,  224),
    Checkpoint("convnext_base",   "imagenet_no_ema",    "openmmlab", "convnext-base_3rdparty_32xb128-noema_in1k_20220222-dba4f95f.pth",      1000,  224, 83.71, 96.60),
    Checkpoint("convnext_base",   "imagenet22k",        "openmmlab", "convnext-base_3rdparty_in21k_20220124-13b83eec.pth",                   21841, 224),
    Checkpoint("convnext_large",  "imagenet22k",        "openmmlab", "convnext-large_3rdparty_in21k_20220124-41b5a79f.pth",                  21841, 224),
    Checkpoint("convnext_xlarge", "imagenet22k",        "openmmlab", "convnext-xlarge_3rdparty_in21k_20220124-f909bad7.pth",                 21841, 224),
    Checkpoint("convnext_tiny",   "imagenet22k_ft",     "openmmlab", "convnext-tiny_in21k-pre_3rdparty_in1k_20221219-7501e534.pth",          1000,  224, 82.90, 96.62),
    Checkpoint("convnext_small",  "imagenet22k_ft",     "openmmlab", "convnext-small_in21k-pre_3rdparty_in1k_20221219-aeca4c93.pth",         1000,  224, 84.59, 97.41),
    Checkpoint("convnext_base",   "imagenet22k_ft",     "openmmlab", "convnext-base_in21k-pre-3rdparty_32xb128_in1k_20220124-eb2d6ada.pth",  1000,  224, 85.81, 97.86),
    Checkpoint("convnext_large",  "imagenet22k_ft",     "openmmlab", "convnext-large_in21k-pre-3rdparty_64xb64_in1k_20220124-2412403d.pth",  1000,  224, 86.61, 98.04),
    Checkpoint("convnext_xlarge", "imagenet22k_ft",     "openmmlab", "convnext-xlarge_in21k-pre-3rdparty_64xb64_in1k_20220124-76b6863d.pth", 1000,  224, 86.97, 98.20),
    Checkpoint("convnext_tiny",   "imagenet22k_ft_384", "openmmlab", "convnext-tiny_in21k-pre_3rdparty_in1k-384px_20221219-c1182362.pth",    1000,  384, 84.11, 97.14),
    Checkpoint("convnext_small",  "imagenet22k_ft_384", "openmmlab", "convnext-small_in21k-pre_3rdparty_in1k-384px_20221219-96f0bb87.pth",   1000,  384, 85.75, 97.88),
    Checkpoint("convnext_base",   "imagenet22k_ft_384", "openmmlab", "convnext-base_in21k-pre-3rdparty_in1k-384px_20221219-4570f792.pth",    1000,  384, 86.82, 98.25),
    Checkpoint("convnext_large",  "imagenet22k_ft_384", "openmmlab", "convnext-large_in21k-pre-3rdparty_in1k-384px_20221219-6d38dd66.pth",   1000,  384, 87.46, 98.37),
    Checkpoint("convnext_xlarge", "imagenet22k_ft_384", "openmmlab", "convnext-xlarge_in21k-pre-3rdparty_in1k-384px_20221219-b161bc14.pth",  1000,  384, 87.76, 98.55),
    # copies of the official files, converted by timm
    Checkpoint("convnext_tiny",   "imagenet",           "huggingface", "convnext_tiny.fb_in1k.safetensors",                1000,  224),
    Checkpoint("convnext_small",  "imagenet",           "huggingface", "convnext_small.fb_in1k.safetensors",               1000,  224),
    Checkpoint("convnext_base",   "imagenet",           "huggingface", "convnext_base.fb_in1k.safetensors",                1000,  224),
    Checkpoint("convnext_large",  "imagenet",           "huggingface", "convnext_large.fb_in1k.safetensors",               1000,  224),
    Checkpoint("convnext_xlarge", "imagenet",           "huggingface", "convnext_xlarge.fb_in22k_ft_in1k.safetensors",     1000,  224),
    Checkpoint("convnext_tiny",   "imagenet22k",        "huggingface", "convnext_tiny.fb_in22k.safetensors",               21841, 224),
    Checkpoint("convnext_small",  "imagenet22k",        "huggingface", "convnext_small.fb_in22k.safetensors",              21841, 224),
    Checkpoint("convnext_base",   "imagenet22k",        "huggingface", "convnext_base.fb_in22k.safetensors",               21841, 224),
    Checkpoint("convnext_large",  "imagenet22k",        "huggingface", "convnext_large.fb_in22k.safetensors",              21841, 224),
    Checkpoint("convnext_xlarge", "imagenet22k",        "huggingface", "convnext_xlarge.fb_in22k.safetensors",             21841, 224),
    Checkpoint("convnext_tiny",   "imagenet22k_ft",     "huggingface", "convnext_tiny.fb_in22k_ft_in1k.safetensors",       1000,  224),
    Checkpoint("convnext_small",  "imagenet22k_ft",     "huggingface", "convnext_small.fb_in22k_ft_in1k.safetensors",      1000,  224),
    Checkpoint("convnext_base",   "imagenet22k_ft",     "huggingface", "convnext_base.fb_in22k_ft_in1k.safetensors",       1000,  224),
    Checkpoint("convnext_large",  "imagenet22k_ft",     "huggingface", "convnext_large.fb_in22k_ft_in1k.safetensors",      1000,  224),
    Checkpoint("convnext_xlarge", "imagenet22k_ft",     "huggingface", "convnext_xlarge.fb_in22k_ft_in1k.safetensors",     1000,  224),
    Checkpoint("convnext_tiny",   "imagenet22k_ft_384", "huggingface", "convnext_tiny.fb_in22k_ft_in1k_384.safetensors",   1000,  384),
    Checkpoint("convnext_small",  "imagenet22k_ft_384", "huggingface", "convnext_small.fb_in22k_ft_in1k_384.safetensors",  1000,  384),
    Checkpoint("convnext_base",   "imagenet22k_ft_384", "huggingface", "convnext_base.fb_in22k_ft_in1k_384.safetensors",   1000,  384),
    Checkpoint("convnext_large",  "imagenet22k_ft_384", "huggingface", "convnext_large.fb_in22k_ft_in1k_384.safetensors",  1000,  384),
    Checkpoint("convnext_xlarge", "imagenet22k_ft_384", "huggingface", "convnext_xlarge.fb_in22k_ft_in1k_384.safetensors", 1000,  384),
    # ours; weights/cifar10/README.md has how 0.70 was measured
    Checkpoint("convnext_cifar",           "cifar10",            "shipped",  "convnext_cifar_32.safetensors",      10,    32, 93.42, 99.49, 4_015_420, "sha256:dc90dee56217648e76ef58819876940ad67d778b80b01d69aac37876bc79c828", 0.70),
)  # fmt: skip

# The first three logits of some files for image 000000039769 of COCO val2017, as published in
# huggingface/transformers, convert_convnext_to_pytorch.py, which compares them with a tolerance of
# 1e-3.
COCO_LOGITS = {
    "convnext_tiny_1k_224_ema.pth":       (-0.1210, -0.6605, 0.1918),
    "convnext_small_1k_224_ema.pth":      (-0.4473, -0.1847, -0.6365),
    "convnext_base_1k_224_ema.pth":       (0.4525, 0.7539, 0.0308),
    "convnext_base_1k_384.pth":           (0.3561, 0.6350, -0.0384),
    "convnext_large_1k_224_ema.pth":      (0.4174, -0.0989, 0.1489),
    "convnext_large_1k_384.pth":          (0.2513, -0.1349, -0.1613),
    "convnext_base_22k_224.pth":          (1.2980, 0.3631, -0.1198),
    "convnext_large_22k_224.pth":         (1.2963, 0.1227, 0.1723),
    "convnext_xlarge_22k_224.pth":        (1.7956, 0.8390, 0.2820),
    "convnext_base_22k_1k_224.pth":       (-0.2822, -0.0502, -0.0878),
    "convnext_base_22k_1k_384.pth":       (-0.5672, -0.0730, -0.4348),
    "convnext_large_22k_1k_224.pth":      (0.2681, 0.2365, 0.6246),
    "convnext_large_22k_1k_384.pth":      (-0.2642, 0.3931, 0.5116),
    "convnext_xlarge_22k_1k_224_ema.pth": (-0.6677, -0.1873, -0.8379),
    "convnext_xlarge_22k_1k_384_ema.pth": (-0.7749, -0.2967, -0.6444),
}  # fmt: skip


def find(model: str | None, tag: str) -> tuple[Checkpoint, ...]:
    """Returns the checkpoint of a network for a tag, followed by its copies.

    Raises:
        ValueError: If the network has no such checkpoint; the message lists the available tags.
    """
    found = tuple(row for row in CATALOG if (row.model, row.tag) == (model, tag))
    if not found:
        tags = [row.tag for row in list_weights(model)]
        raise ValueError(
            f"{printable(model)} has no published weights of this name. Available: "
            f"{', '.join(map(repr, tags)) or 'none'}. You can also pass a file, such as a .pth or a "
            f".weights.h5, or None for random weights. Received: weights={tag!r}"
        )
    return found


def list_weights(model: str | None = None, copies: bool = False) -> list[Checkpoint]:
    """Lists the published checkpoints.

    Example:

    ```python
    [row.tag for row in keras_convnext.list_weights("convnext_base")]
    ```

    Args:
        model: str or None. The network to list checkpoints for. Defaults to None, for all.
        copies: bool. Whether to include copies of the same weights from other publishers. Defaults
            to False.

    Returns:
        List of `Checkpoint`s, each with its network, URL and accuracy.
    """
    first = {(row.model, row.tag): row for row in reversed(CATALOG)}
    return [
        row
        for row in CATALOG
        if model in (None, row.model) and (copies or first[row.model, row.tag] is row)
    ]
