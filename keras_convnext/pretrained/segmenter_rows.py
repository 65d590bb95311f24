"""The published segmenters, one row per file.

The files are published by facebookresearch/ConvNeXt (semantic_segmentation/README.md) and
open-mmlab/mmsegmentation (configs/convnext/README.md), which trained its own; huggingface.co serves
copies of the latter for transformers. "mIoU" is measured on the validation images of ADE20K at a
single scale, "mIoU ms" at six scales with flips.
"""

from keras_convnext.pretrained.catalog_row import Checkpoint

_PARAMETERS = {
    "upernet_convnext_tiny":   60_242_636,
    "upernet_convnext_small":  81_877_196,
    "upernet_convnext_base":   122_102_956,
    "upernet_convnext_large":  234_994_796,
    "upernet_convnext_xlarge": 391_140_396,
}  # fmt: skip


def _row(
    model: str,
    tag: str,
    source: str,
    file: str,
    size: int,
    single: float | None = None,
    multi: float | None = None,
) -> Checkpoint:
    return Checkpoint(
        model, tag, source, file, 150, size,
        head="upernet",
        parameters=_PARAMETERS[model],
        figures=(("mIoU", single), ("mIoU ms", multi)),
    )  # fmt: skip


SEGMENTERS = (
    # official
    _row("upernet_convnext_tiny",   "ade20k",     "official_ade20k", "upernet_convnext_tiny_1k_512x512.pth",    512, 46.0, 46.7),
    _row("upernet_convnext_small",  "ade20k",     "official_ade20k", "upernet_convnext_small_1k_512x512.pth",   512, 48.7, 49.6),
    _row("upernet_convnext_base",   "ade20k",     "official_ade20k", "upernet_convnext_base_1k_512x512.pth",    512, 49.1, 49.9),
    _row("upernet_convnext_base",   "ade20k_22k", "official_ade20k", "upernet_convnext_base_22k_640x640.pth",   640, 52.6, 53.1),
    _row("upernet_convnext_large",  "ade20k_22k", "official_ade20k", "upernet_convnext_large_22k_640x640.pth",  640, 53.2, 53.7),
    _row("upernet_convnext_xlarge", "ade20k_22k", "official_ade20k", "upernet_convnext_xlarge_22k_640x640.pth", 640, 53.6, 54.0),
    # trained by OpenMMLab
    _row("upernet_convnext_tiny",   "ade20k_openmmlab",     "mmsegmentation", "upernet_convnext_tiny_fp16_512x512_160k_ade20k_20220227_124553-cad485de.pth",   512, 46.11, 46.62),
    _row("upernet_convnext_small",  "ade20k_openmmlab",     "mmsegmentation", "upernet_convnext_small_fp16_512x512_160k_ade20k_20220227_131208-1b1e394f.pth",  512, 48.56, 49.02),
    _row("upernet_convnext_base",   "ade20k_openmmlab",     "mmsegmentation", "upernet_convnext_base_fp16_512x512_160k_ade20k_20220227_181227-02a24fc6.pth",   512, 48.71, 49.54),
    _row("upernet_convnext_base",   "ade20k_22k_openmmlab", "mmsegmentation", "upernet_convnext_base_fp16_640x640_160k_ade20k_20220227_182859-9280e39b.pth",   640, 52.13, 52.66),
    _row("upernet_convnext_large",  "ade20k_22k_openmmlab", "mmsegmentation", "upernet_convnext_large_fp16_640x640_160k_ade20k_20220226_040532-e57aa54d.pth",  640, 53.16, 53.38),
    _row("upernet_convnext_xlarge", "ade20k_22k_openmmlab", "mmsegmentation", "upernet_convnext_xlarge_fp16_640x640_160k_ade20k_20220226_080344-95fc38c2.pth", 640, 53.58, 54.11),
    # copies of OpenMMLab's, converted for transformers
    _row("upernet_convnext_tiny",   "ade20k_openmmlab",     "transformers", "upernet-convnext-tiny.bin",   512),
    _row("upernet_convnext_small",  "ade20k_openmmlab",     "transformers", "upernet-convnext-small.bin",  512),
    _row("upernet_convnext_base",   "ade20k_openmmlab",     "transformers", "upernet-convnext-base.bin",   512),
    _row("upernet_convnext_large",  "ade20k_22k_openmmlab", "transformers", "upernet-convnext-large.bin",  640),
    _row("upernet_convnext_xlarge", "ade20k_22k_openmmlab", "transformers", "upernet-convnext-xlarge.bin", 640),
)  # fmt: skip
