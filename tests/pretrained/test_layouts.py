"""Every layout against the package that owns it: its file into a model, and a model's back."""

from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
import torch
import torch_reference

import keras_convnext
from keras_convnext import CheckpointError, identify, load_checkpoint, save_checkpoint
from keras_convnext.pretrained.layouts import HDF5_LAYOUTS, LAYOUTS

TOLERANCE = 1e-5  # of the largest value
DEPTHS, DIMS = (2, 1, 2, 1), (8, 16, 24, 32)


def official():
    return torch_reference.Hierarchical(DEPTHS, DIMS, classes=5)


def isotropic():
    return torch_reference.Isotropic(3, 8, classes=5)


def timm(conv_mlp=False):
    torch_reference.declare_torchvision_operators()
    from timm.models.convnext import ConvNeXt

    return ConvNeXt(depths=DEPTHS, dims=DIMS, num_classes=5, conv_mlp=conv_mlp)


def transformers():
    torch_reference.declare_torchvision_operators()
    from transformers import ConvNextConfig, ConvNextForImageClassification

    # Its last norm has the epsilon of the configuration, 1e-12 unless told; the official has 1e-6.
    config = ConvNextConfig(
        hidden_sizes=list(DIMS), depths=list(DEPTHS), num_labels=5, layer_norm_eps=1e-6
    )
    return ConvNextForImageClassification(config)


def dinov3():
    torch_reference.declare_torchvision_operators()
    from transformers import DINOv3ConvNextConfig, DINOv3ConvNextModel

    return DINOv3ConvNextModel(DINOv3ConvNextConfig(hidden_sizes=list(DIMS), depths=list(DEPTHS)))


def torchvision():
    torch_reference.declare_torchvision_operators()
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    widths = [*DIMS, None]
    blocks = [CNBlockConfig(widths[i], widths[i + 1], depth) for i, depth in enumerate(DEPTHS)]
    return ConvNeXt(blocks, num_classes=5)


OWNERS = {
    "official": official,
    "official_isotropic": isotropic,
    "timm": timm,
    "timm_conv_mlp": lambda: timm(conv_mlp=True),
    "transformers": transformers,
    "dinov3": dinov3,
    "torchvision": torchvision,
}


@pytest.fixture(params=OWNERS)
def owner(request):
    return SimpleNamespace(
        layout=request.param, network=torch_reference.randomize(OWNERS[request.param]())
    )


def keras_model(layout, **options):
    options = {"include_preprocessing": False, "input_shape": (64, 64, 3), "classes": 5} | options
    if layout in ("dinov3", "keras_applications_notop"):
        options |= {"include_top": False, "pooling": "avg"}
    elif layout == "timm_features":
        options |= {"include_top": False}
    else:
        options |= {"classifier_activation": None}
    if layout == "official_isotropic":
        return keras_convnext.ConvNeXtIsotropic(3, 8, **options)
    return keras_convnext.ConvNeXt(DEPTHS, DIMS, **options)


def output_of(network, images):
    with torch.no_grad():
        output = network(torch.tensor(images).movedim(-1, 1))
    return getattr(output, "logits", getattr(output, "pooler_output", output)).numpy()


def write(state, path):
    if path.suffix == ".safetensors":
        safetensors.torch.save_file({k: v.contiguous() for k, v in state.items()}, path)
    else:
        torch.save(state, path)
    return path


def read(path):
    if path.suffix == ".safetensors":
        return safetensors.torch.load_file(path)
    saved = torch.load(path, weights_only=True)
    return saved.get("model", saved.get("state_dict", saved))


@pytest.mark.parametrize("suffix", [".pth", pytest.param(".safetensors", marks=pytest.mark.slow)])
def test_a_file_of_the_owner_gives_its_numbers_and_comes_back_to_the_bit(owner, suffix, tmp_path):
    state = owner.network.state_dict()
    model = keras_model(owner.layout)
    load_checkpoint(model, write(state, tmp_path / f"theirs{suffix}"))
    images = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype("float32")
    expected = output_of(owner.network, images)
    error = np.abs(model.predict(images, verbose=0) - expected).max() / np.abs(expected).max()
    assert error < TOLERANCE

    save_checkpoint(model, tmp_path / f"ours{suffix}", layout=owner.layout)
    back = read(tmp_path / f"ours{suffix}")
    # transformers' DINOv3 puts `model.` before its stages in memory, and not in published files.
    bare = {key.removeprefix("model."): tensor for key, tensor in state.items()}
    assert back.keys() == bare.keys()
    for key, tensor in bare.items():
        assert back[key].shape == tensor.shape
        assert torch.equal(back[key], tensor), key


@pytest.mark.parametrize(
    ("layout", "suffix"),
    [(name, ".pth") for name in LAYOUTS if name not in ("official_isotropic", *HDF5_LAYOUTS)]
    + [(name, suffix) for name in HDF5_LAYOUTS for suffix in (".weights.h5", ".h5")],
)
def test_a_file_of_ours_comes_back_to_the_bit(layout, suffix, tmp_path):
    model, again = keras_model(layout), keras_model(layout)
    save_checkpoint(model, tmp_path / f"x{suffix}", layout=layout)
    load_checkpoint(again, tmp_path / f"x{suffix}")
    for ours, theirs in zip(again.get_weights(), model.get_weights()):
        np.testing.assert_array_equal(ours, theirs)
    found = identify(tmp_path / f"x{suffix}")
    assert (found.variant.depths, found.variant.dims) == (DEPTHS, DIMS)


def test_openmmlab_has_its_names_and_its_entry(tmp_path):
    """The names of mmpretrain 1.2, models/backbones/convnext.py and heads/linear_head.py."""
    save_checkpoint(keras_model("openmmlab"), tmp_path / "x.pth", layout="openmmlab")
    saved = torch.load(tmp_path / "x.pth", weights_only=True)
    assert list(saved) == ["state_dict"]
    shapes = {key: tuple(tensor.shape) for key, tensor in saved["state_dict"].items()}
    expected = {
        "backbone.downsample_layers.0.0.weight": (8, 3, 4, 4),
        "backbone.downsample_layers.0.1.weight": (8,),
        "backbone.downsample_layers.2.0.weight": (16,),
        "backbone.downsample_layers.2.1.weight": (24, 16, 2, 2),
        "backbone.stages.2.1.gamma": (24,),
        "backbone.stages.2.1.depthwise_conv.weight": (24, 1, 7, 7),
        "backbone.stages.2.1.norm.bias": (24,),
        "backbone.stages.2.1.pointwise_conv1.weight": (96, 24),
        "backbone.stages.2.1.pointwise_conv2.weight": (24, 96),
        "backbone.norm3.weight": (32,),
        "head.fc.weight": (5, 32),
    }
    assert expected.items() <= shapes.items()
    assert len(shapes) == len(official().state_dict())


@pytest.mark.parametrize("wrapper", ["module.", "_orig_mod.", "module.backbone.", "backbone."])
def test_wrappers_before_the_names_are_seen_through(wrapper, tmp_path):
    network = torch_reference.randomize(official())
    state = {f"{wrapper}{key}": tensor for key, tensor in network.state_dict().items()}
    plain, wrapped = keras_model("official"), keras_model("official")
    load_checkpoint(plain, write(network.state_dict(), tmp_path / "plain.pth"))
    load_checkpoint(wrapped, write(state, tmp_path / "wrapped.pth"))
    for ours, theirs in zip(wrapped.get_weights(), plain.get_weights()):
        np.testing.assert_array_equal(ours, theirs)


def test_a_tensor_under_two_names_is_refused(tmp_path):
    state = official().state_dict()
    state["stages.0.0._orig_mod.norm.bias"] = state["stages.0.0.norm.bias"]
    with pytest.raises(CheckpointError, match=r"0\.norm\.bias and stages\.0\.0\._orig_mod\.norm"):
        load_checkpoint(keras_model("official"), write(state, tmp_path / "x.pth"))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_weights_may_be_rounded_on_the_way_out(suffix, dtype, tmp_path):
    model = keras_model("official")
    save_checkpoint(model, tmp_path / f"x{suffix}", dtype=dtype)
    for tensor in read(tmp_path / f"x{suffix}").values():
        assert str(tensor.dtype) == f"torch.{dtype}"
    again = keras_model("official")
    load_checkpoint(again, tmp_path / f"x{suffix}")
    for ours, theirs in zip(again.get_weights(), model.get_weights()):
        np.testing.assert_allclose(ours, theirs, rtol=0.01, atol=1e-7)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "bool", "complex64", "mixed_float16", "nope"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".weights.h5"])
def test_weights_are_rounded_to_floating_point_numbers_alone(suffix, dtype, tmp_path):
    with pytest.raises(ValueError, match=rf"dtype must be float16.*Received: dtype={dtype}"):
        save_checkpoint(keras_model("official"), tmp_path / f"x{suffix}", dtype=dtype)
    assert not any(tmp_path.iterdir())


def test_a_weight_too_large_for_float16_is_not_written(tmp_path):
    model = keras_model("official")
    model.get_layer("stem_conv").bias.assign([7e4] * model.get_layer("stem_conv").bias.shape[0])
    with pytest.raises(CheckpointError, match=r"0\.0\.bias .* too large for float16"):
        save_checkpoint(model, tmp_path / "x.pth", dtype="float16")
    assert not any(tmp_path.iterdir())
    save_checkpoint(model, tmp_path / "x.pth", dtype="bfloat16")


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"<html></html>"])
def test_a_damaged_safetensors_file_is_named(content, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.safetensors"):
        identify(path)


def test_what_a_layout_has_no_place_for_is_not_written(tmp_path):
    with pytest.raises(CheckpointError, match="blocks_0/dwconv"):
        save_checkpoint(keras_model("official_isotropic"), tmp_path / "x.pth", layout="timm")
    with pytest.raises(CheckpointError, match="head/kernel"):
        save_checkpoint(keras_model("official"), tmp_path / "x.pth", layout="dinov3")
    trunk = keras_model("official", include_top=False)
    with pytest.raises(CheckpointError, match="pooling='avg'"):
        save_checkpoint(trunk, tmp_path / "x.h5", layout="keras_applications")
    with pytest.raises(ValueError, match="layout=onnx"):
        save_checkpoint(keras_model("official"), tmp_path / "x.pth", layout="onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        ("timm", "x.weights.h5"),
        ("official", "x.h5"),
        ("keras", "x.pth"),
        ("keras", "x.safetensors"),
    ],
)
def test_a_layout_is_of_one_kind_of_file(layout, name, tmp_path):
    with pytest.raises(ValueError, match=f"layout={layout}, path=.*{name}"):
        save_checkpoint(keras_model("official"), tmp_path / name, layout=layout)
    assert list(tmp_path.iterdir()) == []
