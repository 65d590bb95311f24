"""Official checkpoints into toy models and out again, against PyTorch networks of the same size."""

import argparse
import linecache
import os
import re
import warnings
from collections import OrderedDict

import keras
import numpy as np
import pytest
import torch
import torch_reference

import keras_convnext
from keras_convnext import CheckpointError, load_checkpoint, save_checkpoint
from keras_convnext.pretrained import limits
from keras_convnext.pretrained.checkpoint import Source

TOLERANCE = 1e-5  # of the largest value
PLAIN = {"include_preprocessing": False, "classifier_activation": None}
STEM = "downsample_layers.0.0.weight"
PWCONV1 = "stages.0.0.pwconv1.weight"


def toy(depths=(1, 1), dims=(8, 16), classes=5, input_shape=(32, 32, 3), **options):
    return keras_convnext.ConvNeXt(
        depths, dims, classes=classes, input_shape=input_shape, **{**PLAIN, **options}
    )


def toy_isotropic(**options):
    return keras_convnext.ConvNeXtIsotropic(
        2, 8, classes=5, input_shape=(64, 64, 3), **{**PLAIN, **options}
    )


def reference(depths=(1, 1), dims=(8, 16), classes=5, seed=0, **options):
    network = torch_reference.Hierarchical(depths, dims, classes, **options)
    return torch_reference.randomize(network, seed)


def reference_isotropic(**options):
    return torch_reference.randomize(torch_reference.Isotropic(2, 8, 5, **options))


PAIRS = {
    "hierarchical": (toy, reference, {}, {}),
    "without gamma": (toy, reference, {"layer_scale_init_value": None}, {"gamma": False}),
    "patch 2 kernel 5": (toy, reference, *[{"patch_size": 2, "kernel_size": 5}] * 2),
    "isotropic": (toy_isotropic, reference_isotropic, {}, {}),
    "isotropic gamma": (
        toy_isotropic, reference_isotropic, {"layer_scale_init_value": 1.0}, {"gamma": True},
    ),
}  # fmt: skip


@pytest.fixture(params=PAIRS.values(), ids=PAIRS)
def pair(request):
    build, refer, options, reference_options = request.param
    return build(**options), refer(**reference_options)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "checkpoint.pth"


def save(state, path):
    torch.save({"model": state}, path)
    return path


def images(shape, seed=0):
    return np.random.default_rng(seed).normal(size=(2, *shape)).astype("float32")


def channels_first(array):
    return torch.tensor(array).movedim(-1, 1)


def assert_close(ours, theirs):
    theirs = theirs.detach().numpy()
    ours = keras.ops.convert_to_numpy(ours)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= TOLERANCE * np.abs(theirs).max()


def assert_same_logits(model, network):
    pixels = images(model.input_shape[1:])
    assert_close(model(pixels), network(channels_first(pixels)))


def weights(model):
    """By path, as copies."""
    return {weight.path: keras.ops.convert_to_numpy(weight).copy() for weight in model.weights}


def changed(before, after):
    return {name for name in before if before[name].tobytes() != after[name].tobytes()}


# Loading.


def test_logits_equal_pytorch(pair, path):
    model, network = pair
    before = weights(model)
    load_checkpoint(model, torch_reference.save(network, path))
    assert changed(before, weights(model)) == before.keys()
    assert_same_logits(model, network)


def test_the_builder_loads_too(path):
    network = reference()
    model = toy(weights=torch_reference.save(network, path))
    assert_same_logits(model, network)
    assert_same_logits(toy(weights=str(path)), network)


def training_checkpoint(network, ema):
    """What the official training writes."""
    optimizer = torch.optim.AdamW(network.parameters())
    network(torch.zeros(1, 3, 32, 32)).sum().backward()
    optimizer.step()
    return {
        "model": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 299,
        "scaler": {},
        "args": argparse.Namespace(model="convnext", lr=4e-3, layers=[1, None], ema=True),
        "model_ema": ema.state_dict(),
    }


def test_entries_of_a_training_checkpoint(path):
    network, ema = reference(seed=1), reference(seed=2)
    saved = training_checkpoint(network, ema)
    torch.save(saved, path)
    model = toy()
    with pytest.warns(UserWarning, match=r"entry 'model' .*: model_ema \(\d+\), optimizer \("):
        load_checkpoint(model, path)
    assert_same_logits(model, network)
    for entry, expected in (("model_ema", ema), ("model", network)):
        load_checkpoint(model, path, entry=entry)
        assert_same_logits(model, expected)
    with pytest.raises(
        CheckpointError, match=r"no entry 'ema'\. Its entries: model, optimizer, epoch, sc"
    ):
        load_checkpoint(model, path, entry="ema")
    for entry in ("optimizer", "epoch", "scaler", "args"):
        with pytest.raises(CheckpointError, match=re.escape(str(path))):
            load_checkpoint(model, path, entry=entry)
    assert_same_logits(model, network)


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"model_ema": s}], ids=["bare", "ema"])
def test_a_file_without_an_entry_model(wrap, path):
    network = reference()
    torch.save(wrap(network.state_dict()), path)
    assert_same_logits(toy(weights=path), network)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_checkpoints_of_other_dtypes(dtype, path):
    network = reference().to(dtype)
    model = toy(weights=torch_reference.save(network, path))
    assert all(weight.dtype == "float32" for weight in model.weights)
    assert_same_logits(model, network.float())


def test_views_and_parameters(path):
    network = reference()
    state = OrderedDict(network.named_parameters())
    state["head.weight"] = state["head.weight"].t().contiguous().t()
    state[STEM] = state[STEM].contiguous(memory_format=torch.channels_last)
    everything = torch.cat([tensor.flatten() for tensor in state.values()])
    parts = everything.split([tensor.numel() for tensor in state.values()])
    shared = {key: part.view(state[key].shape) for key, part in zip(state, parts)}
    for saved in (state, shared):
        assert_same_logits(toy(weights=save(saved, path)), network)


@pytest.mark.parametrize("pooling", [None, "avg", "max"])
def test_a_model_without_the_top_leaves_out_what_is_above(pooling, path):
    network = reference()
    model = toy(include_top=False, pooling=pooling, weights=torch_reference.save(network, path))
    pixels = images((32, 32, 3))
    last_map = network.maps(channels_first(pixels))[-1]
    expected = {
        None: last_map.movedim(1, -1),
        "avg": network.norm(last_map.mean((2, 3))),
        "max": network.norm(last_map.amax((2, 3))),
    }
    assert_close(model(pixels), expected[pooling])


def test_other_classes_keep_their_fresh_head_with_a_warning(path):
    network = torch_reference.save(reference(classes=7), path)
    model = toy()
    before = weights(model)
    with pytest.warns(UserWarning, match="7 classes, but the model has 5: everything except"):
        load_checkpoint(model, network)
    head = {"head/kernel", "head/bias"}
    assert changed(before, weights(model)) == before.keys() - head
    whole = weights(toy(classes=7, weights=network))
    assert not changed({name: weights(model)[name] for name in before.keys() - head}, whole)


@pytest.mark.parametrize(
    "load",
    [
        lambda path: load_checkpoint(toy(), path),
        lambda path: keras_convnext.ConvNeXt((1, 1), (8, 16), classes=5, weights=path),
        lambda path: keras_convnext.load_model(path, classes=5),
    ],
    ids=["load_checkpoint", "builder", "load_model"],
)
def test_the_warning_names_the_line_that_called(load, path):
    torch_reference.save(reference(classes=7), path)
    with pytest.warns(UserWarning, match="7 classes, but the model has 5") as caught:
        load(path)
    assert caught[0].filename == __file__
    assert linecache.getline(__file__, caught[0].lineno).lstrip().startswith("lambda path:")


def test_one_channel_sees_a_gray_image_as_three_equal_ones(path):
    network = reference()
    model = toy(input_shape=(32, 32, 1), weights=torch_reference.save(network, path))
    gray = images((32, 32, 1))
    rgb = channels_first(np.repeat(gray, 3, axis=-1))
    assert_close(model.get_layer("stem_conv")(gray).numpy(), stem(network, rgb))
    assert_close(model(gray), network(rgb))


def stem(network, image):
    return network.downsample_layers[0][0](image).movedim(1, -1)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 6])
def test_the_stem_kernel_is_fitted_to_the_channels(channels, path):
    network = reference()
    model = toy(input_shape=(32, 32, channels), weights=torch_reference.save(network, path))
    theirs = network.state_dict()[STEM].numpy().transpose(2, 3, 1, 0)
    ours = weights(model)
    if channels == 1:
        expected = theirs[:, :, [0]] + theirs[:, :, [1]] + theirs[:, :, [2]]
    else:
        expected = np.stack([theirs[:, :, i % 3] for i in range(channels)], 2) * 3 / channels
    np.testing.assert_allclose(ours["stem_conv/kernel"], expected, rtol=1e-6, atol=1e-7)
    assert not changed({"head/kernel": ours["head/kernel"]}, weights(toy(weights=path)))


def test_the_stem_of_four_channels_returns_from_its_own_checkpoint(path):
    model = toy(input_shape=(32, 32, 4))
    save_checkpoint(model, path)
    again = toy(input_shape=(32, 32, 4), weights=path)
    assert not changed(weights(model), weights(again))


# What does not fit.


def without(state, *keys):
    return {key: tensor for key, tensor in state.items() if key not in keys}


def with_value(state, key, value):
    tensor = state[key].clone()
    tensor.view(-1)[-1] = value
    return {**state, key: tensor}


def resnet(state):
    keys = ("conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "fc.weight", "fc.bias")
    return dict.fromkeys(keys, torch.zeros(8))


MISFITS = {
    "missing": (lambda s: without(s, "norm.weight", "stages.0.0.gamma"),
                "Tensors of convnext are missing from the checkpoint: stages_0_blocks_0/gamma"),
    "half a norm": (lambda s: without(s, "norm.weight"),
                    "A tensor of the final norm is missing: only norm.bias exists"),
    "no stem": (lambda s: without(s, STEM), "parts of a ConvNeXt are missing"),
    "extra of the pattern": (lambda s: {**s, "stages.0.0.norm2.bias": s["norm.bias"]},
                             "stages.0.0.norm2.bias"),
    "misshapen": (lambda s: {**s, "stages.0.0.pwconv1.bias": torch.zeros(3)},
                  "Received: stages.0.0.pwconv1.bias of shape (3,)"),
    "axes": (lambda s: {**s, PWCONV1: s[PWCONV1][..., None].expand(32, 8, 2)},
             f"{PWCONV1} has 2 axes in a ConvNeXt. Received: shape=(32, 8, 2)"),
    "misshapen stem": (lambda s: {**s, STEM: torch.zeros(8, 3, 4, 5)},
                       f"Received: {STEM} of shape (4, 5, 3, 8)"),
    "channels": (lambda s: {**s, STEM: torch.zeros(8, 2, 4, 4)},
                 "for images with 2 channels, but the model expects 3"),
    "nan": (lambda s: with_value(s, "stages.1.0.dwconv.weight", float("nan")),
            "stages.1.0.dwconv.weight contains NaN or infinite"),
    "inf": (lambda s: with_value(s, "head.bias", float("-inf")), "head.bias contains NaN or inf"),
    "too large": (lambda s: {**s, "head.bias": s["head.bias"].double() + 1e300},
                  "head.bias contains NaN or infinite values in float32"),
    "nan of half": (lambda s: with_value({k: v.bfloat16() for k, v in s.items()}, "norm.bias",
                                         float("nan")), "norm.bias contains NaN"),
    "resnet": (resnet, "This is a ResNet, not a ConvNeXt"),
    "another": (lambda s: {"fc.weight": s["head.weight"]}, "in any supported layout"),
    "no tensors": (lambda s: {}, "contains no tensors"),
    "no dict": (lambda s: list(s.values()),
                " tensors without names at 'model'"),
    "deeper": (lambda s: reference((1, 2)).state_dict(),
               "a checkpoint of convnext (depths (1, 2), dims (8, 16), patch 4, kernel 7)"),
    "wider": (lambda s: reference(dims=(8, 24)).state_dict(), "(depths (1, 1), dims (8, 24)"),
    "patch": (lambda s: reference(patch_size=2).state_dict(), "patch 2, kernel 7), but"),
    "kernel": (lambda s: reference(kernel_size=5).state_dict(), "patch 4, kernel 5), but"),
    "isotropic": (lambda s: reference_isotropic().state_dict(),
                  "(depths (2,), dims (8,), patch 16, kernel 7), but"),
    "no gamma": (lambda s: reference(gamma=False).state_dict(), "layer_scale_init_value=None"),
}  # fmt: skip


@pytest.mark.parametrize(("edit", "told"), MISFITS.values(), ids=MISFITS)
def test_a_misfit_is_refused_and_nothing_is_loaded(edit, told, path):
    save(edit(reference().state_dict()), path)
    model = toy()
    before = weights(model)
    with pytest.raises(CheckpointError, match=re.escape(told)) as caught:
        load_checkpoint(model, path)
    assert str(caught.value).count(str(path)) == 1
    assert not changed(before, weights(model))


def test_gamma_for_a_model_without_it(path):
    torch_reference.save(reference(), path)
    with pytest.raises(CheckpointError, match="layer_scale_init_value=1e-6"):
        load_checkpoint(toy(layer_scale_init_value=None), path)


def zeros_of(name):
    """The state of a published network, of shapes alone: each tensor is one 0, expanded."""
    with torch.device("meta"):
        shapes = {k: v.shape for k, v in torch_reference.network(name).state_dict().items()}
    return {key: torch.zeros(1).expand(shape) for key, shape in shapes.items()}


@pytest.mark.parametrize("name", ["convnext_base", "convnext_xlarge", "convnext_isotropic_small"])
def test_another_network_is_named(name, path, monkeypatch):
    monkeypatch.setattr(limits, "MAX_EXPANSION", 1 << 30)
    save(zeros_of(name), path)
    assert path.stat().st_size < 1 << 20
    with pytest.raises(
        CheckpointError, match=rf"This is a checkpoint of {name} \(.*the model mine is a conv"
    ):
        load_checkpoint(toy(name="mine"), path)


def test_damaged_numbers_are_found_before_any_is_loaded(path):
    network = reference()
    torch_reference.save(network, path)
    content = path.read_bytes()
    # The bytes of the last tensor, so that all the others are whole.
    position = content.index(network.head.bias.detach().numpy().tobytes())
    path.write_bytes(content[:position] + b"\x01" + content[position + 1 :])
    model = toy()
    before = weights(model)
    with pytest.raises(CheckpointError, match="checksum") as caught:
        load_checkpoint(model, path)
    assert str(caught.value).count(str(path)) == 1
    assert not changed(before, weights(model))


def test_a_file_cut_while_it_is_loaded_is_named(path, monkeypatch):
    torch_reference.save(reference(), path)
    monkeypatch.setattr(Source, "check", lambda source, dtype: os.truncate(path, 100))
    with pytest.raises(CheckpointError, match="was truncated while it was being read") as caught:
        load_checkpoint(toy(), path)
    assert str(caught.value).count(str(path)) == 1


def test_a_file_that_is_no_checkpoint_is_told_once(path):
    path.write_text("<html>")
    with pytest.raises(CheckpointError, match="web page") as caught:
        load_checkpoint(toy(), path)
    assert str(caught.value).count(str(path)) == 1
    with pytest.raises(FileNotFoundError):
        load_checkpoint(toy(), path.with_name("absent.pth"))


# Saving.


def test_torch_takes_what_is_saved(pair, path):
    model, network = pair
    for weight in model.weights:
        weight.assign(np.random.default_rng(weight.shape[-1]).normal(size=weight.shape) * 0.3)
    save_checkpoint(model, path)
    state = torch.load(path, weights_only=True)
    assert state.keys() == {"model"}
    network.load_state_dict(state["model"], strict=True)
    assert_same_logits(model, network)


def test_the_round_trip_is_to_the_bit(pair, path):
    model, network = pair
    load_checkpoint(model, torch_reference.save(network, path))
    before = weights(model)
    save_checkpoint(model, path)
    theirs = torch.load(path, weights_only=True)["model"]
    assert theirs.keys() == network.state_dict().keys()
    for key, tensor in network.state_dict().items():
        assert tensor.dtype == theirs[key].dtype
        assert tensor.numpy().tobytes() == theirs[key].numpy().tobytes(), key
    for weight in model.weights:
        weight.assign(np.zeros(weight.shape))
    load_checkpoint(model, path)
    assert not changed(before, weights(model))


def test_a_trunk_is_saved_without_a_head(path):
    save_checkpoint(toy(include_top=False, pooling="avg"), path)
    network = reference()
    state = torch.load(path, weights_only=True)["model"]
    missing, unexpected = network.load_state_dict(state, strict=False)
    assert missing == ["head.weight", "head.bias"]
    assert unexpected == []


def test_drop_path_adds_no_weights(path):
    save_checkpoint(toy(drop_path_rate=0.5), path)
    assert torch.load(path, weights_only=True)["model"].keys() == reference().state_dict().keys()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_model_of_half_precision_is_saved_as_such(dtype, path):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        model = toy()
    finally:
        keras.config.set_dtype_policy(before)
    save_checkpoint(model, path)
    state = torch.load(path, weights_only=True)["model"]
    for key, tensor in state.items():
        # A layer scale starts from 1e-6, which float16 cannot hold.
        assert tensor.dtype == (torch.float32 if "gamma" in key else getattr(torch, dtype)), key
    reference().load_state_dict(state, strict=True)
    again = weights(toy(weights=path))
    assert all((again[name] == array).all() for name, array in weights(model).items())


def test_a_quantized_model_is_neither_saved_nor_filled(path):
    save_checkpoint(toy(), path)
    model = toy()
    model.get_layer("stages_1_blocks_0").pwconv2.quantize("int8")
    before = weights(model)
    for call in (save_checkpoint, load_checkpoint):
        with pytest.raises(CheckpointError, match=r"call quantize.*stages_1_blocks_0/pwconv2"):
            call(model, path)
    assert not changed(before, weights(model))


def test_what_lora_learned_is_saved_and_not_loaded_over(path):
    model = toy(layer_scale_init_value=0.3)
    dense = model.get_layer("stages_1_blocks_0").pwconv2
    dense.enable_lora(2)
    dense.lora_kernel_b.assign(images(dense.lora_kernel_b.shape)[0])
    save_checkpoint(model, path)
    again = toy(weights=path, layer_scale_init_value=0.3)
    pixels = images((32, 32, 3))
    assert np.abs(again(pixels) - model(pixels)).max() < TOLERANCE * np.abs(model(pixels)).max()
    learned = np.abs(weights(again)["stages_1_blocks_0/pwconv2/kernel"] - dense._kernel)
    assert learned.max() > 0.1
    with pytest.raises(CheckpointError, match=r"call enable_lora.*stages_1_blocks_0/pwconv2"):
        load_checkpoint(model, path)


def test_a_failed_save_leaves_no_file_and_the_older_one(path):
    def failing(tensors):
        yield from tensors[:5]
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        save_checkpoint(toy(), path, progress=failing)
    assert not list(path.parent.iterdir())
    path.write_text("older")
    with pytest.raises(OSError, match="no space left"):
        save_checkpoint(toy(), path, progress=failing)
    assert list(path.parent.iterdir()) == [path]
    assert path.read_text() == "older"


def test_where_no_file_can_be_saved(tmp_path):
    with pytest.raises(FileNotFoundError):
        save_checkpoint(toy(), tmp_path / "absent" / "checkpoint.pth")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        save_checkpoint(toy(), tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_weights_that_the_network_has_not_are_not_saved(path):
    trunk = toy(include_top=False, pooling="avg")
    hidden = keras.layers.Dense(7, name="probe")(trunk.output)
    output = keras.layers.Dense(2, name="classes")(hidden)
    with pytest.warns(UserWarning, match="without the layers probe, classes"):
        save_checkpoint(keras.Model(trunk.input, output), path)
    assert not any("head" in key for key in torch.load(path, weights_only=True)["model"])


def test_nothing_is_warned_of_in_an_ordinary_load(path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        toy(weights=torch_reference.save(reference(), path))
