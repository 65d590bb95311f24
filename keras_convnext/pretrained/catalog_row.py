"""A row of the catalog of published weights: what a file contains, where it is and its license."""

import re
from typing import NamedTuple

from keras_convnext.complexity import parts
from keras_convnext.normalization import IMAGENET, Pixels, crop_share
from keras_convnext.variants import VARIANTS

# URLs of each source: {file} is the file name of the row, {stem} the same without its suffix, and
# {run} without the date and digest that OpenMMLab appends. Shipped files are in the folder `weights`
# of the repository and of the installed package.
SOURCES = {
    "official":        "https://dl.fbaipublicfiles.com/convnext/{file}",
    "official_ade20k": "https://dl.fbaipublicfiles.com/convnext/ade20k/{file}",
    "official_coco":   "https://dl.fbaipublicfiles.com/convnext/coco/{file}",
    "official_v2_fcmae": "https://dl.fbaipublicfiles.com/convnext/convnextv2/pt_only/{file}",
    "official_v2_1k":  "https://dl.fbaipublicfiles.com/convnext/convnextv2/im1k/{file}",
    "official_v2_22k": "https://dl.fbaipublicfiles.com/convnext/convnextv2/im22k/{file}",
    "openmmlab":       "https://download.openmmlab.com/mmclassification/v0/convnext/{file}",
    "mmsegmentation":  "https://download.openmmlab.com/mmsegmentation/v0.5/convnext/{run}/{file}",
    "mmdetection":     "https://download.openmmlab.com/mmdetection/v2.0/convnext/{run}/{file}",
    "mmrotate":        "https://download.openmmlab.com/mmrotate/v0.1.0/convnext/{run}/{file}",
    "timm":            "https://github.com/huggingface/pytorch-image-models/releases/download/v0.1-rsb-weights/{file}",
    "huggingface":     "https://huggingface.co/timm/{stem}/resolve/main/model.safetensors",
    "transformers":    "https://huggingface.co/openmmlab/{stem}/resolve/main/pytorch_model.bin",
    "timm_hub":        "https://huggingface.co/timm/{stem}/resolve/main/model.safetensors",
    "shipped":         "{tag}/{file}",
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

_CC_BY_NC = License(
    "CC-BY-NC-4.0", "https://creativecommons.org/licenses/by-nc/4.0/", is_open=False
)

# V2's weights have one license, from any source; others by tag, for any source, or else by source.
# They are stated in the README of facebookresearch/ConvNeXt-V2, in the LICENSE of
# facebookresearch/ConvNeXt, and of open-mmlab/mmpretrain, mmsegmentation, mmdetection and mmrotate, in
# timm/models/convnext.py for timm's own weights, its copies and DINOv3, and on the pages of
# huggingface.co/openmmlab.
LICENSES = {
    "eupe":            License("FAIR Noncommercial Research License", "https://huggingface.co/timm/convnext_base.eupe_lvd1689m", is_open=False),
    "dinov3":          License("DINOv3 License", "https://ai.meta.com/resources/models-and-libraries/dinov3-license/", is_open=False),
    "official":        _MIT,
    "official_ade20k": _MIT,
    "official_coco":   _MIT,
    "openmmlab":       _APACHE,
    "mmsegmentation":  _APACHE,
    "mmdetection":     _APACHE,
    "mmrotate":        _APACHE,
    "timm":            _APACHE,
    "huggingface":     _APACHE,
    "transformers":    _MIT,
    "timm_hub":        _APACHE,
    "shipped":         _MIT,
}  # fmt: skip


# By the beginning of the network's name or of the tag, or else by source.
AUTHORS = {
    "convnextv2_":     "Meta AI and KAIST",
    "dinov3":          "Meta AI",
    "eupe":            "Meta AI",
    "clip_":           "LAION",
    "official":        "Meta AI",
    "official_ade20k": "Meta AI",
    "official_coco":   "Meta AI",
    "openmmlab":       "Meta AI",
    "mmsegmentation":  "OpenMMLab",
    "mmdetection":     "OpenMMLab",
    "mmrotate":        "OpenMMLab",
    "timm":            "Ross Wightman",
    "huggingface":     "Meta AI",
    "timm_hub":        "Ross Wightman",
    "transformers":    "OpenMMLab",
    "shipped":         "keras_convnext",
}  # fmt: skip


class Checkpoint(NamedTuple):
    """A published weight file.

    Args:
        model: str. Name of the network, as in `keras-convnext list`; for a dense network, its head
            and its backbone, such as "upernet_convnext_tiny".
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
        head: str. Name of the head of a dense network, or "" for a classifier.
        parameters: int or None. Number of parameters of a dense network.
        figures: tuple of pairs of str and float or None. Published figures of a dense network, in
            percent.
        crop: float or None. As in `preprocessing.load_image`.
        pixels: Pixels. How the network normalizes pixels.
        is_embedding: bool. Whether the outputs are CLIP's image embedding instead of classes.
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
    head: str = ""
    parameters: int | None = None
    figures: tuple[tuple[str, float | None], ...] = ()
    crop: float | None = None
    pixels: Pixels = IMAGENET
    is_embedding: bool = False

    @property
    def stem(self) -> str:
        """The file name without its suffix."""
        return self.file.rpartition(".")[0]

    @property
    def url(self) -> str:
        """The download URL; for a shipped file, its path inside `weights`."""
        run = re.sub(r"(_[0-9]{8}_[0-9]{6})?-[0-9a-f]{8}$", "", self.stem)
        return SOURCES[self.source].format(file=self.file, stem=self.stem, run=run, tag=self.tag)

    @property
    def license(self) -> License:
        """The license under which it was published."""
        if self.model.startswith("convnextv2_"):
            return _CC_BY_NC
        return LICENSES.get(self.tag) or LICENSES[self.source]

    @property
    def author(self) -> str:
        """Who trained it."""
        starts = self.model, self.tag
        names = (name for name in AUTHORS if any(each.startswith(name) for each in starts))
        return AUTHORS[next(names, self.source)]

    @property
    def crop_share(self) -> float:
        """The `crop` of `load_image` with which it was evaluated; 0 warps the whole image."""
        return crop_share(self.size, self.crop)

    @property
    def interpolation(self) -> str:
        """How images are resized: all weights were evaluated with "bicubic"."""
        return "bicubic"

    @property
    def epsilon(self) -> float:
        """Is added to the variance in the norms."""
        return VARIANTS[self.model].epsilon

    @property
    def expected_bytes(self) -> int:
        """File size in bytes; if unknown, an estimate of four bytes per weight."""
        if self.bytes is not None:
            return self.bytes
        if self.parameters is not None:
            return 4 * self.parameters
        return 4 * sum(
            part.parameters for part in parts(VARIANTS[self.model], classes=self.classes or 0)
        )

    @property
    def known_digest(self) -> str | None:
        """The digest, or its first eight digits if OpenMMLab or timm put them in the file name."""
        in_name = re.search(r"-([0-9a-f]{8})\.pth$", self.file)
        return self.digest or (in_name and f"sha256:{in_name[1]}")
