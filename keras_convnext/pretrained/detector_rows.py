"""The published detectors, one row per file.

The files are published by facebookresearch/ConvNeXt (object_detection/README.md) and
open-mmlab/mmdetection (configs/convnext/README.md), which trained its own. "box AP" and "mask AP"
are measured on the validation images of COCO 2017, with a shorter side of 800 px. "AP50" is that of
rotated boxes in the test images of DOTA-v1.0, measured by its server, for a network trained on the
training and validation images: open-mmlab/mmrotate, configs/convnext/metafile.yml.
"""

from keras_convnext.pretrained.catalog_row import Checkpoint

_PARAMETERS = {
    "mask_rcnn_convnext_tiny":           48_095_376,
    "cascade_mask_rcnn_convnext_tiny":   85_930_578,
    "cascade_mask_rcnn_convnext_small":  107_565_138,
    "cascade_mask_rcnn_convnext_base":   145_800_242,
    "cascade_mask_rcnn_convnext_large":  254_710_770,
    "cascade_mask_rcnn_convnext_xlarge": 406_875_058,
    "rotated_retinanet_convnext_tiny":   37_431_892,
}  # fmt: skip


def _row(model: str, tag: str, source: str, file: str, box_ap: float, mask_ap: float) -> Checkpoint:
    return Checkpoint(
        model, tag, source, file, 80, 800,
        head=model.partition("_convnext")[0],
        parameters=_PARAMETERS[model],
        figures=(("box AP", box_ap), ("mask AP", mask_ap)),
    )  # fmt: skip


DETECTORS = (
    # official
    _row("mask_rcnn_convnext_tiny",           "coco",     "official_coco", "mask_rcnn_convnext_tiny_1k_3x.pth",            46.2, 41.7),
    _row("cascade_mask_rcnn_convnext_tiny",   "coco",     "official_coco", "cascade_mask_rcnn_convnext_tiny_1k_3x.pth",    50.4, 43.7),
    _row("cascade_mask_rcnn_convnext_small",  "coco",     "official_coco", "cascade_mask_rcnn_convnext_small_1k_3x.pth",   51.9, 45.0),
    _row("cascade_mask_rcnn_convnext_base",   "coco",     "official_coco", "cascade_mask_rcnn_convnext_base_1k_3x.pth",    52.7, 45.6),
    _row("cascade_mask_rcnn_convnext_base",   "coco_22k", "official_coco", "cascade_mask_rcnn_convnext_base_22k_3x.pth",   54.0, 46.9),
    _row("cascade_mask_rcnn_convnext_large",  "coco_22k", "official_coco", "cascade_mask_rcnn_convnext_large_22k_3x.pth",  54.8, 47.6),
    _row("cascade_mask_rcnn_convnext_xlarge", "coco_22k", "official_coco", "cascade_mask_rcnn_convnext_xlarge_22k_3x.pth", 55.2, 47.7),
    # trained by OpenMMLab
    _row("mask_rcnn_convnext_tiny",          "coco_openmmlab", "mmdetection", "mask_rcnn_convnext-t_p4_w7_fpn_fp16_ms-crop_3x_coco_20220426_154953-050731f4.pth",                       46.2, 41.7),
    _row("cascade_mask_rcnn_convnext_tiny",  "coco_openmmlab", "mmdetection", "cascade_mask_rcnn_convnext-t_p4_w7_fpn_giou_4conv1f_fp16_ms-crop_3x_coco_20220509_204200-8f07c40b.pth", 50.3, 43.6),
    _row("cascade_mask_rcnn_convnext_small", "coco_openmmlab", "mmdetection", "cascade_mask_rcnn_convnext-s_p4_w7_fpn_giou_4conv1f_fp16_ms-crop_3x_coco_20220510_201004-3d24f5a4.pth", 51.8, 44.8),
    # rotated boxes in DOTA-v1.0, trained by OpenMMLab
    Checkpoint(
        "rotated_retinanet_convnext_tiny", "dota_openmmlab", "mmrotate", "rotated_retinanet_obb_kld_stable_convnext_adamw_fpn_1x_dota_le90-388184f6.pth", 15, 1024,
        head="rotated_retinanet",
        parameters=_PARAMETERS["rotated_retinanet_convnext_tiny"],
        figures=(("AP50", 74.49),),
    ),
)  # fmt: skip
