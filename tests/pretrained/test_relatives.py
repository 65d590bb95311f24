"""Networks close to a ConvNeXt are named, by the names that their owners give to tensors."""

import pytest
import torch
import torch_reference

from keras_convnext import CheckpointError, identify, load_model
from keras_convnext.pretrained.relatives import RELATIVES, relative_of
from keras_convnext.pretrained.trunks import candidates_in

# Of each network the names that tell it, as its owner's state_dict() has them.
NAMES = {
    "an EdgeNeXt": ("stages.1.blocks.1.gamma_xca",),
    "a UniRepLKNet": ("stages.0.0.dwconv.lk_origin.weight",),
    "an InceptionNeXt": ("stem.0.weight", "stages.0.blocks.0.token_mixer.dwconv_hw.weight"),
    "a MogaNet": ("patch_embed1.projection.weight", "blocks1.0.attn.value.DW_conv0.weight"),
    "a HorNet": ("stages.0.0.gnconv.dwconv.weight", "downsample_layers.0.0.weight"),
    "a Visual Attention Network": ("block1.0.attn.spatial_gating_unit.conv0.weight",),
    "a MetaFormer (CAFormer, ConvFormer or PoolFormer)": (
        "stages.0.blocks.0.token_mixer.pwconv1.weight", "stages.0.blocks.0.mlp.act.scale"),
    "a MetaFormer (PoolFormer)": ("network.0.0.layer_scale_1", "network.0.0.mlp.fc1.weight"),
    "a FocalNet": ("layers.0.blocks.0.modulation.focal_layers.0.0.weight",),
    "a BEiT": ("blocks.0.gamma_1", "blocks.0.attn.q_bias", "cls_token"),
    "a MaxViT": ("stages.0.blocks.0.attn_grid.attn.qkv.weight",),
    "a Swin Transformer V2": ("layers.0.blocks.0.attn.cpb_mlp.0.weight",),
    "a Swin Transformer": (
        "layers.0.blocks.0.attn.relative_position_bias_table", "layers.0.downsample.norm.weight"),
    "an EVA": ("blocks.0.attn.q_bias", "blocks.0.mlp.fc1.weight", "cls_token", "pos_embed"),
    "a Vision Transformer of CLIP": ("visual.transformer.resblocks.0.attn.in_proj_weight",),
    "a DeiT": ("cls_token", "dist_token", "pos_embed", "blocks.0.attn.qkv.weight"),
    "a Vision Transformer (ViT)": ("cls_token", "pos_embed", "blocks.0.attn.qkv.weight"),
    "a RegNet": ("stem.conv.weight", "s1.b1.conv1.conv.weight"),
    "a ResNet": ("conv1.weight", "bn1.weight", "layer1.0.conv1.weight"),
    "a ResNet or RegNet": ("embedder.embedder.convolution.weight",),
    "a DenseNet": ("features.denseblock1.denselayer1.conv1.weight",),
    "an EfficientNet or MobileNet": ("conv_stem.weight", "blocks.0.0.conv_dw.weight"),
    "an EfficientNet": ("_conv_stem.weight", "_blocks.0._depthwise_conv.weight"),
    "a VGG": ("features.0.weight", "classifier.0.weight"),
}  # fmt: skip

# Of timm, by which the patterns were checked: as many as can be made in a few seconds.
OF_TIMM = {
    "convnext_atto_rms": "a ConvNeXt with RMS norm",
    "convnext_zepto_rms": "a ConvNeXt with RMS norm",
    "convnext_zepto_rms_ols": "a ConvNeXt with an overlapping stem",
    "edgenext_xx_small": "an EdgeNeXt",
    "inception_next_atto": "an InceptionNeXt",
    "caformer_s18": "a MetaFormer",
    "convformer_s18": "a MetaFormer",
    "poolformer_s12": "a MetaFormer",
    "poolformerv2_s12": "a MetaFormer",
    "vit_tiny_patch16_224": "a Vision Transformer (ViT)",
    "deit_tiny_distilled_patch16_224": "a DeiT",
    "swin_tiny_patch4_window7_224": "a Swin Transformer,",
    "swinv2_tiny_window8_256": "a Swin Transformer V2",
    "resnet18": "a ResNet,",
    "regnetx_002": "a RegNet",
    "efficientnet_b0": "an EfficientNet",
    "mobilenetv3_small_050": "an EfficientNet or MobileNet",
    "eva02_tiny_patch14_224": "an EVA",
    "beit_base_patch16_224": "a BEiT",
}


def save(names, path):
    torch.save({"model": dict.fromkeys(names, torch.ones(1))}, path)
    return path


def test_every_row_has_an_example():
    assert {row.name for row in RELATIVES} == NAMES.keys()


@pytest.mark.parametrize("prefix", ["", "module.encoder."])
@pytest.mark.parametrize(("name", "names"), NAMES.items(), ids=NAMES)
def test_a_relative_is_named(name, names, prefix, tmp_path):
    path = save([f"{prefix}{each}" for each in (*names, "head.weight")], tmp_path / "x.pth")
    with pytest.raises(CheckpointError) as caught:
        identify(path)
    message = str(caught.value)
    assert message.startswith(f"This is {name}")
    assert not any(each in message for each in names)


@pytest.mark.parametrize(("model", "name"), OF_TIMM.items(), ids=OF_TIMM)
def test_the_names_of_timm(model, name, tmp_path):
    torch_reference.declare_torchvision_operators()
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        state = timm.create_model(model).state_dict()
    zeros = {key: torch.zeros(()).expand(tensor.shape) for key, tensor in state.items()}
    torch.save(zeros, tmp_path / "x.pth")
    for ask in (identify, load_model):
        with pytest.raises(CheckpointError, match="This is ") as caught:
            ask(tmp_path / "x.pth")
        assert f"This is {name}" in str(caught.value)
        assert str(caught.value).count("weight") < 2  # no list of tensors


TRUNK = torch_reference.Hierarchical((1, 1), (8, 16), classes=5).state_dict()
VARIATIONS = {
    "a ConvNeXt with LoRA adapters": (
        {"stages.0.0.pwconv1.lora_A.default.weight": torch.ones(2, 8)}, "merge_and_unload"),
    "a ConvNeXt with parametrized weights": (
        {"stages.0.0.pwconv1.weight_orig": torch.ones(2, 8)}, "in PyTorch first"),
    "a ConvNeXt with quantized weights": (
        {"stages.0.0.pwconv1.weight_fake_quant.scale": torch.ones(1)}, "before quantization"),
}  # fmt: skip


@pytest.mark.parametrize(("more", "remedy"), VARIATIONS.values(), ids=VARIATIONS)
def test_a_variation_of_the_trunk_is_named(more, remedy, request, tmp_path):
    torch.save({**TRUNK, **more}, tmp_path / "x.pth")
    name = request.node.callspec.id
    with pytest.raises(CheckpointError, match=f"This is {name}.*{remedy}"):
        identify(tmp_path / "x.pth")


def test_norms_without_bias_are_of_another_network(tmp_path):
    rms = {key: each for key, each in TRUNK.items() if not key.endswith("norm.bias")}
    torch.save(rms, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="This is a ConvNeXt with RMS norm"):
        load_model(tmp_path / "x.pth")


def test_a_convnext_is_no_relative():
    assert relative_of(TRUNK) is None
    assert candidates_in({}) == []
