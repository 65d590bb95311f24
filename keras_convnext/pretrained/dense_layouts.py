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
