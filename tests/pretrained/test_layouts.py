"""Every layout against the package that owns it: its file into a model, and a model's back."""

import re
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


def official_v2():
    return torch_reference.Hierarchical(DEPTHS, DIMS, classes=5, gamma=False, grn=True)


def isotropic():
    return torch_reference.Isotropic(3, 8, classes=5)


def timm(conv_mlp=False, **options):
    torch_reference.declare_torchvision_operators()
    from timm.models.convnext import ConvNeXt

    return ConvNeXt(depths=DEPTHS, dims=DIMS, num_classes=5, conv_mlp=conv_mlp, **options)


def timm_v2(conv_mlp=False):
    return timm(conv_mlp, use_grn=True, ls_init_value=None)


def transformers():
    torch_reference.declare_torchvision_operators()
    from transformers import ConvNextConfig, ConvNextForImageClassification

    # Its last norm has the epsilon of the configuration, 1e-12 unless told; the official has 1e-6.
    config = ConvNextConfig(
        hidden_sizes=list(DIMS), depths=list(DEPTHS), num_labels=5, layer_norm_eps=1e-6
    )
    return ConvNextForImageClassification(config)


def transformers_v2():
    torch_reference.declare_torchvision_operators()
    from transformers import ConvNextV2Config, ConvNextV2ForImageClassification

    config = ConvNextV2Config(
        hidden_sizes=list(DIMS), depths=list(DEPTHS), num_labels=5, layer_norm_eps=1e-6
    )
    return ConvNextV2ForImageClassification(config)


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
    "official V2": official_v2,
    "official_isotropic": isotropic,
    "timm": timm,
    "timm_conv_mlp": lambda: timm(conv_mlp=True),
    "timm V2": timm_v2,
    "timm_conv_mlp V2": lambda: timm_v2(conv_mlp=True),
    "transformers": transformers,
    "transformers_v2 V2": transformers_v2,
    "dinov3": dinov3,
    "torchvision": torchvision,
}


OTHER_NETWORKS = ("official_isotropic", "timm_overlap", "transformers_v2", "fcmae")


@pytest.fixture(params=OWNERS)
def owner(request):
    layout, _, is_v2 = request.param.partition(" ")
    return SimpleNamespace(
        layout=layout,
        network=torch_reference.randomize(OWNERS[request.param]()),
        options={"v2": True} if is_v2 else {},
    )


def keras_model(layout, v2=False, **options):
    options = {"include_preprocessing": False, "input_shape": (64, 64, 3), "classes": 5} | options
    if layout in ("dinov3", "keras_applications_notop"):
        options |= {"include_top": False, "pooling": "avg"}
    elif layout == "timm_features":
        options |= {"include_top": False}
    else:
        options |= {"classifier_activation": None}
    if layout == "official_isotropic":
        return keras_convnext.ConvNeXtIsotropic(3, 8, **options)
    build = keras_convnext.ConvNeXtV2 if v2 else keras_convnext.ConvNeXt
    return build(DEPTHS, DIMS, **options)


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
    model = keras_model(owner.layout, **owner.options)
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
    ("layout", "suffix"), [("openmmlab", ".pth"), ("keras", ".weights.h5"), ("keras", ".h5")]
)
def test_a_file_of_v2_comes_back_to_the_bit(layout, suffix, tmp_path):
    model, again = keras_model(layout, v2=True), keras_model(layout, v2=True)
    for number, weight in enumerate(model.weights):
        weight.assign(np.random.default_rng(number).normal(size=weight.shape))
    save_checkpoint(model, tmp_path / f"x{suffix}", layout=layout)
    load_checkpoint(again, tmp_path / f"x{suffix}")
    for ours, theirs in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    found = identify(tmp_path / f"x{suffix}").variant
    assert (found.name, found.grn, found.layer_scale) == ("convnextv2", True, None)
    loaded = keras_convnext.load_model(tmp_path / f"x{suffix}")
    np.testing.assert_array_equal(loaded.weights[-1], model.weights[-1])


@pytest.fixture(scope="module")
def model_v2():
    return keras_model("", v2=True)


def loaded(model, state, path):
    """The weights of a model after others and then these have been loaded."""
    model.set_weights([np.zeros_like(weight) for weight in model.get_weights()])
    load_checkpoint(model, write(state, path))
    return model.get_weights()


@pytest.mark.parametrize("owner_of", [official_v2, timm_v2, transformers_v2])
def test_grn_may_have_axes_of_length_1_in_front(owner_of, model_v2, tmp_path):
    state = torch_reference.randomize(owner_of()).state_dict()
    expected = loaded(model_v2, state, tmp_path / "x.pth")
    for shape in ((-1,), (1, -1), (1, 1, -1), (1, 1, 1, -1)):
        other = {k: t.reshape(shape) if ".grn." in k else t for k, t in state.items()}
        for ours, theirs in zip(loaded(model_v2, other, tmp_path / "y.pth"), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_both_names_of_grn_in_transformers_are_read(model_v2, tmp_path):
    state = torch_reference.randomize(transformers_v2()).state_dict()
    older = {
        key.replace("grn.weight", "grn.gamma").replace("grn.bias", "grn.beta"): tensor
        for key, tensor in state.items()
    }
    assert older.keys() != state.keys()
    found = [loaded(model_v2, each, tmp_path / "x.pth") for each in (state, older)]
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_transformers_stands_for_its_v2(model_v2, tmp_path):
    save_checkpoint(model_v2, tmp_path / "x.pth", layout="transformers")
    assert identify(tmp_path / "x.pth").layout == "transformers_v2"
    assert "convnextv2.encoder.stages.0.layers.0.grn.weight" in read(tmp_path / "x.pth")


def sparse(state):
    """What V2's pre-training code saves: the inverse of its utils.remap_checkpoint_keys."""
    saved = {
        "mask_token": torch.ones(1, 8, 1, 1),
        "proj.weight": torch.ones(8, 32, 1, 1),
        "decoder.0.dwconv.weight": torch.ones(8, 1, 7, 7),
        "pred.bias": torch.ones(3072),
    }
    for key, tensor in state.items():
        if key.startswith(("norm.", "head.")):
            continue
        module, _, parameter = key.rpartition(".")
        is_dense = module.startswith("downsample_layers.0")
        if ".grn." in key:
            tensor = tensor.reshape(1, -1)
        elif "pwconv" in module:
            module += ".linear"
        elif not is_dense and tensor.ndim == 4:
            parameter, (out, into, side, _) = "kernel", tensor.shape
            tensor = tensor.transpose(3, 2).reshape(out, into, side**2).permute(2, 1, 0)
            tensor = tensor[:, 0] if into == 1 else tensor
        elif not is_dense and (module.endswith(".norm") or re.search(r"[123]\.0$", module)):
            module += ".ln"
        elif not is_dense and parameter == "bias":
            tensor = tensor.reshape(1, -1)
        saved[f"encoder.{module}.{parameter}"] = tensor.contiguous()
    return saved


def test_a_file_of_the_pretraining_code_is_that_of_its_encoder(tmp_path):
    state = torch_reference.randomize(official_v2()).state_dict()
    dense, again = (keras_model("", v2=True, include_top=False) for _ in range(2))
    load_checkpoint(dense, write(state, tmp_path / "dense.pth"))
    with pytest.warns(UserWarning, match="ignored 4 other tensors: mask_token"):
        load_checkpoint(again, write({"model": sparse(state)}, tmp_path / "sparse.pth"))
    for ours, theirs in zip(again.get_weights(), dense.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    found = identify(tmp_path / "sparse.pth")
    assert (found.variant.name, found.classes, found.has_norm) == ("convnextv2", None, False)
    assert (found.layout, found.prefix) == ("fcmae", "encoder.")

    save_checkpoint(again, tmp_path / "ours.pth", layout="fcmae")
    back = read(tmp_path / "ours.pth")
    expected = {k: t for k, t in sparse(state).items() if k.startswith("encoder.")}
    assert back.keys() == expected.keys()
    for key, tensor in expected.items():
        assert back[key].shape == tensor.shape
        assert torch.equal(back[key], tensor), key


def test_a_sparse_kernel_has_a_square_number_of_positions(tmp_path):
    state = sparse(official_v2().state_dict())
    key = "encoder.stages.0.0.dwconv.kernel"
    write({**state, key: state[key][1:]}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=rf"{re.escape(key)} has 4 axes.*\(48, 8\)"):
        identify(tmp_path / "x.pth")


def test_an_encoder_loads_without_the_top_and_what_starts_fresh_is_said(tmp_path):
    state = torch_reference.randomize(official_v2()).state_dict()
    encoder = {k: t for k, t in state.items() if not k.startswith(("norm.", "head."))}
    path = write({"model": encoder}, tmp_path / "x.pth")
    trunk = keras_convnext.load_model(path, include_top=False, pooling=None)
    whole = keras_model("", v2=True)
    load_checkpoint(whole, write(state, tmp_path / "whole.pth"))
    for ours, theirs in zip(trunk.get_weights(), whole.get_weights()):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.warns(UserWarning, match="The checkpoint has no") as told:
        model = keras_convnext.load_model(path, classes=3)
    assert [str(each.message).partition(" (file")[0] for each in told] == [
        "The checkpoint has no final norm: the model's final norm is unchanged",
        "The checkpoint has no classifier: the model's classifier is unchanged",
    ]
    np.testing.assert_array_equal(model.get_layer("norm").gamma, 1)


def of_another_shape(state):
    return {k: t.reshape(1, 2, 1, -1) if k == "stages.0.0.grn.beta" else t for k, t in state}


WRONG = {
    "one without beta": (
        lambda s: {k: t for k, t in s if k != "stages.0.0.grn.beta"},
        "missing from the checkpoint: stages_0_blocks_0/grn/beta",
    ),
    "two axes": (of_another_shape, r"stages\.0\.0\.grn\.beta has 1 axes"),
    "another width": (
        lambda s: {k: t[..., 1:] if k == "stages.0.0.grn.beta" else t for k, t in s},
        r"stages_0_blocks_0/grn/beta has the shape \(32,\)",
    ),
    "layer scale": (
        lambda s: {**dict(s), "stages.0.0.gamma": torch.ones(8)},
        "both layer scale .* and global response normalization",
    ),
    "V1": (
        lambda s: {k: t for k, t in s if ".grn." not in k},
        "checkpoint of convnext .*, but the model convnextv2 is a convnextv2",
    ),
}


@pytest.mark.parametrize(("change", "told"), WRONG.values(), ids=WRONG)
def test_a_wrong_file_of_v2_is_refused(change, told, model_v2, tmp_path):
    state = change(list(official_v2().state_dict().items()))
    with pytest.raises(CheckpointError, match=told):
        load_checkpoint(model_v2, write(state, tmp_path / "x.pth"))


@pytest.mark.parametrize(
    ("layout", "suffix"),
    [(name, ".pth") for name in LAYOUTS if name not in (*OTHER_NETWORKS, *HDF5_LAYOUTS)]
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
