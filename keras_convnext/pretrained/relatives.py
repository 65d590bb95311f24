"""Networks that are often mistaken for a ConvNeXt, and the tensor names that identify them.

All patterns of a row must match some tensor name. The first matching row wins, so special cases
come first. The comment after a row names the library it was checked with: timm 1.0, torchvision
0.28 or transformers 5.24; "official" is the authors' code.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple


class Relative(NamedTuple):
    """A row of the table.

    Args:
        name: str. The network, as it follows "This is" in a sentence.
        patterns: tuple of str. Regular expressions, each of which must match a tensor name.
        remark: str. The remedy, or why the network is not supported. Defaults to "".
    """

    name: str
    patterns: tuple[str, ...]
    remark: str = ""


# Matched against unknown tensors inside a ConvNeXt. The first two are separate architectures.
VARIATIONS = (
    Relative("an EdgeNeXt", (r"\.gamma_xca$",)),  # timm
    Relative("a UniRepLKNet", (r"\.dwconv\.(lk_origin|dil_reparam|norm)\b",)),  # official
    Relative("a ConvNeXt with an overlapping stem", (r"\bstem[._][2-9]\.",),  # timm, _ols
             "Its stem has several convolutions, which is not supported"),
    Relative("a ConvNeXt with LoRA adapters", (r"\blora_(A|B|embedding)",),
             "Merge them into the weights first, in peft with merge_and_unload()"),
    Relative("a ConvNeXt with quantized weights",
             (r"(_packed_params|fake_quant|activation_post_process|\.zero_point)",),
             "Use weights saved before quantization"),
    Relative("a ConvNeXt with parametrized weights",
             (r"(\.parametrizations\.|weight_(orig|mask|g|v|u)$)",),
             "Remove the pruning or weight norm in PyTorch first, to get plain weights"),
)  # fmt: skip

RMS_NORM = Relative(
    "a ConvNeXt with RMS norm",
    (),  # timm, convnext_atto_rms
    "Its norms have no bias and do not subtract the mean, which is not supported",
)

# Matched against all tensors in a file.
RELATIVES = (
    *VARIATIONS[:2],
    Relative("an InceptionNeXt", (r"\btoken_mixer\.dwconv_hw\.",)),  # timm
    Relative("a MogaNet", (r"\.value\.DW_conv0\.",)),  # official
    Relative("a HorNet", (r"\.gnconv\.",)),  # official
    Relative("a Visual Attention Network", (r"\.spatial_gating_unit\.",)),  # official
    Relative("a MetaFormer (CAFormer, ConvFormer or PoolFormer)",  # timm
             (r"(\btoken_mixer\.pwconv1\.|\.(layer|res)_scale1\.scale$)",)),
    Relative("a MetaFormer (PoolFormer)",  # official; transformers
             (r"(\bnetwork\.\d+\.\d+\.layer_scale_1$|\.output\.conv1\.)",)),
    Relative("a MetaFormer (PoolFormer)",  # timm, V2
             (r"\bstem\.conv\.weight", r"\bmlp\.act\.scale$")),
    Relative("a FocalNet", (r"\.modulation\.focal_layers\.",)),  # timm
    Relative("a BEiT", (r"\.(gamma_1|lambda_1)$", r"\.(q_bias|q_proj\.bias)$")),
    Relative("a MaxViT", (r"(\.attn_grid\.|MBconv\.)",)),  # timm, torchvision
    Relative("a Swin Transformer V2", (r"\.(cpb_mlp|logit_scale)\b", r"\battn")),  # timm
    Relative("a Swin Transformer",  # timm, torchvision, transformers
             (r"relative_position_bias_table$",
              r"\b(layers\.\d+\.(blocks|downsample)|features\.\d+\.\d+\.attn)\b")),
    Relative("an EVA", (r"\.attn\.q_bias$", r"\bblocks\.\d+\.mlp\.(w1|fc1)")),  # timm
    Relative("a Vision Transformer of CLIP",                  # openai, open_clip, transformers
             (r"(resblocks\.\d+\.attn\.in_proj_weight$|pre_layrnorm\.)",)),
    Relative("a DeiT", (r"(\bdist_token|\bdistillation_token)$",)),  # timm, transformers
    Relative("a Vision Transformer (ViT)",  # timm, torchvision, transformers, DINOv2 and 3
             (r"(\bpos_embed|\bcls_token|position_embeddings|pos_embedding)$",
              r"(\battn\.qkv|\battention\.|self_attention\.)")),
    Relative("a RegNet",  # timm, torchvision, transformers
             (r"(\bs1\.b1\.conv1\b|\btrunk_output\.block1\b|\bregnet\.encoder\.)",)),
    Relative("a ResNet",  # timm, torchvision
             (r"\blayer1\.0\.conv1\.weight$", r"\bbn1\.(weight|running_mean)$")),
    Relative("a ResNet or RegNet", (r"\bembedder\.embedder\.convolution\.",)),  # transformers
    Relative("a DenseNet", (r"\bdenseblock1\.denselayer1\b",)),  # timm, torchvision
    Relative("an EfficientNet or MobileNet",  # timm
             (r"\bconv_stem\.", r"\bblocks\.\d+\.\d+\.")),
    Relative("an EfficientNet or MobileNet",  # torchvision
             (r"\bfeatures\.0\.0\.weight$", r"\bfeatures\.\d+(\.\d+)?\.(block|conv)\.\d+\.\d+\.")),
    Relative("an EfficientNet or MobileNet",  # transformers
             (r"(\bdepthwise_conv\.depthwise_norm|\bconv_stem\.first_conv)\.",)),
    Relative("an EfficientNet", (r"\b_conv_stem\.",)),  # efficientnet_pytorch
    Relative("a VGG", (r"\bfeatures\.\d+\.weight$", r"\b(classifier|pre_logits)\.")),
)  # fmt: skip

_MAX_NAMES = 5000  # ten times as many as in any network, not counting numbers


def relative_of(keys: Iterable[str], table: tuple[Relative, ...] = RELATIVES) -> Relative | None:
    """Returns the related network with tensors of these names, or None."""
    # Names that differ only by numbers are searched once, which takes the time of one layer.
    shown: dict[str, str] = {}
    for key in keys:
        shown.setdefault(re.sub(r"[0-9]+", "#", key[:200]), key[:200])
        if len(shown) == _MAX_NAMES:
            break
    text = "\n".join(key.replace("\n", " ") for key in shown.values())
    return next(
        (row for row in table if all(re.search(each, text, re.M) for each in row.patterns)), None
    )


def explained(relative: Relative) -> str:
    """Returns the error message for a related network."""
    if relative.remark:
        return f"This is {relative.name}. {relative.remark}"
    return f"This is {relative.name}, not a ConvNeXt. Only ConvNeXts can be loaded"
