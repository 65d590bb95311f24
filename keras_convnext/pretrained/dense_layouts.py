"""How other programs name the tensors of dense heads, one table per program, as in `layouts.py`.

The trunk of such a file has one of the layouts there; its prefix ends in `backbone.`, which the
names here do not have.
"""

from keras_convnext.pretrained.layouts import Row


def _conv_norm(ours: str, theirs: str, norm: str) -> tuple[Row, Row]:
    return (
        Row(f"{ours}_conv", f"{theirs}.conv", "conv"),
        Row(f"{ours}_norm", f"{theirs}.{norm}", "batch_norm"),
    )


def _upernet(norms: tuple[Row, ...], norm: str, classifier: str) -> tuple[Row, ...]:
    return (
        *norms,
        *_conv_norm("psp_{s}", "decode_head.psp_modules.{s}.1", norm),
        *_conv_norm("bottleneck", "decode_head.bottleneck", norm),
        *_conv_norm("lateral_{s}", "decode_head.lateral_convs.{s}", norm),
        *_conv_norm("fpn_{s}", "decode_head.fpn_convs.{s}", norm),
        *_conv_norm("fpn_bottleneck", "decode_head.fpn_bottleneck", norm),
        Row("classifier", f"decode_head.{classifier}", "conv"),
        *_conv_norm("auxiliary_{s}", "auxiliary_head.convs.{s}", norm),
        Row("auxiliary_classifier", f"auxiliary_head.{classifier}", "conv"),
    )


# open-mmlab/mmsegmentation, mmseg/models/decode_heads/uper_head.py and fcn_head.py; also the files
# of facebookresearch/ConvNeXt, which was trained with it.
_MMSEG = _upernet((Row("norm_{s}", "backbone.norm{s}", "norm"),), "bn", "conv_seg")

# huggingface/transformers, models/upernet/modeling_upernet.py; the first spelling of the norms is
# written, and the second one, of the first conversion script, is read too.
_TRANSFORMERS = _upernet(
    (
        Row("norm_{s}", "backbone.hidden_states_norms.stage{s+1}", "norm"),
        Row("norm_{s}", "backbone.hidden_states_norms.{s}", "norm"),
    ),
    "batch_norm",
    "classifier",
)

# By the layout of the trunk, which is written under `backbone.`.
UPERNET = {"official": _MMSEG, "openmmlab": _MMSEG, "transformers": _TRANSFORMERS}


def _mask_head(ours: str, theirs: str) -> tuple[Row, ...]:
    return (
        Row(f"{ours}/conv_{{b}}", f"{theirs}.convs.{{b}}.conv", "conv"),
        Row(f"{ours}/upsample", f"{theirs}.upsample", "conv"),  # IOHW -> HWOI, transposed
        Row(f"{ours}/classifier", f"{theirs}.conv_logits", "conv"),
    )


def _box_head(ours: str, theirs: str) -> tuple[Row, ...]:
    return (
        Row(f"{ours}/conv_{{b}}", f"{theirs}.shared_convs.{{b}}.conv", "conv"),
        Row(f"{ours}/norm_{{b}}", f"{theirs}.shared_convs.{{b}}.bn", "batch_norm"),
        Row(f"{ours}/dense_{{b}}", f"{theirs}.shared_fcs.{{b}}", "linear"),
        Row(f"{ours}/classifier", f"{theirs}.fc_cls", "linear"),
        Row(f"{ours}/deltas", f"{theirs}.fc_reg", "linear"),
    )


# open-mmlab/mmdetection, mmdet/models: necks/fpn.py, dense_heads/rpn_head.py and roi_heads.
_PYRAMID = (
    Row("norm_{s}", "backbone.norm{s}", "norm"),
    Row("pyramid/lateral_{s}", "neck.lateral_convs.{s}.conv", "conv"),
    Row("pyramid/output_{s}", "neck.fpn_convs.{s}.conv", "conv"),
)
_MMDET = (
    *_PYRAMID,
    Row("proposal_head/conv", "rpn_head.rpn_conv", "conv"),
    Row("proposal_head/objectness", "rpn_head.rpn_cls", "conv"),
    Row("proposal_head/deltas", "rpn_head.rpn_reg", "conv"),
)
_MASK_RCNN = (
    *_MMDET,
    *_box_head("box_head", "roi_head.bbox_head"),
    *_mask_head("mask_head", "roi_head.mask_head"),
)
_CASCADE_MASK_RCNN = (
    *_MMDET,
    *_box_head("box_head_{s}", "roi_head.bbox_head.{s}"),
    *_mask_head("mask_head_{s}", "roi_head.mask_head.{s}"),
)
MASK_RCNN = {"official": _MASK_RCNN, "openmmlab": _MASK_RCNN}
CASCADE_MASK_RCNN = {"official": _CASCADE_MASK_RCNN, "openmmlab": _CASCADE_MASK_RCNN}


# open-mmlab/mmrotate, mmdet's RetinaHead; and Xuyihaoby/rotate_detection, RGFLHeadVanilla.
_ROTATED_RETINANET = (
    *_PYRAMID,
    Row("rotated_head/class_conv_{b}", "bbox_head.cls_convs.{b}.conv", "conv"),
    Row("rotated_head/box_conv_{b}", "bbox_head.reg_convs.{b}.conv", "conv"),
    Row("rotated_head/classifier", "bbox_head.retina_cls", "conv"),
    Row("rotated_head/deltas", "bbox_head.retina_reg", "conv"),
)
_ROTATED_GFL_RETINANET = (
    *_PYRAMID,
    Row("expectation_head/class_conv_{b}", "bbox_head.cls_convs.{b}.conv", "conv"),
    Row("expectation_head/class_norm_{b}", "bbox_head.cls_convs.{b}.gn", "norm"),
    Row("expectation_head/box_conv_{b}", "bbox_head.reg_convs.{b}.conv", "conv"),
    Row("expectation_head/box_norm_{b}", "bbox_head.reg_convs.{b}.gn", "norm"),
    Row("expectation_head/classifier", "bbox_head.gfl_cls", "conv"),
    Row("expectation_head/deltas", "bbox_head.gfl_reg", "conv"),
)
ROTATED_RETINANET = {"official": _ROTATED_RETINANET, "openmmlab": _ROTATED_RETINANET}
ROTATED_GFL_RETINANET = {"official": _ROTATED_GFL_RETINANET, "openmmlab": _ROTATED_GFL_RETINANET}
