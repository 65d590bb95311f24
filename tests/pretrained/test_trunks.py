"""A trunk among other tensors: found by its own, whatever precedes their names."""

import argparse
import re
import time
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
import safetensors.torch
import torch
import torch_reference

import keras_convnext
from keras_convnext import CheckpointError, convert, identify, load_checkpoint, load_model
from keras_convnext.pretrained import limits
from keras_convnext.pretrained.checkpoint import chosen, open_checkpoint
from keras_convnext.pretrained.entries import entries_of
from keras_convnext.pretrained.rewriting import rewrite_checkpoint
from keras_convnext.pretrained.stored_tensor import Storage, StoredTensor

DEPTHS, DIMS = (1, 1, 1, 1), (8, 16, 24, 32)
OPTIONS = {"include_preprocessing": False, "classifier_activation": None}


def network(seed=0, **options):
    built = torch_reference.Hierarchical(DEPTHS, DIMS, **{"classes": 5, **options})
    return torch_reference.randomize(built, seed)


STATE = network().state_dict()
OTHER = network(seed=1).state_dict()
TRUNK = {key: tensor for key, tensor in STATE.items() if not key.startswith("head")}


def below(prefix, state):
    return {f"{prefix}{key}": tensor for key, tensor in state.items()}


def timm_names(state):
    """As timm's `checkpoint_filter_fn` renames them."""
    renamed = {}
    for key, tensor in state.items():
        key = key.replace("downsample_layers.0.", "stem.")
        key = re.sub(r"stages.(\d).(\d)", r"stages.\1.blocks.\2", key)
        key = re.sub(r"downsample_layers.(\d).(\d)", r"stages.\1.downsample.\2", key)
        key = key.replace("dwconv", "conv_dw").replace("pwconv", "mlp.fc")
        key = re.sub("^head", "head.fc", key)
        renamed[re.sub("^norm", "head.norm", key)] = tensor
    return renamed


TIMM, TIMM_TRUNK = timm_names(STATE), timm_names(TRUNK)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.pth"


def save(saved, path):
    torch.save(saved, path)
    return path


def model(**options):
    return keras_convnext.ConvNeXt(
        DEPTHS, DIMS, **{"classes": 5, "input_shape": (32, 32, 3), **OPTIONS, **options}
    )


def stem_of(ours):
    return keras.ops.convert_to_numpy(ours.get_layer("stem_conv").kernel).transpose(3, 2, 0, 1)


def read(checkpoint):
    return {place: source.read() for place, source in checkpoint.sources.items()}


# Beside what: the prefix, and the other tensors.
LONE = {
    "own classifier": (
        {**below("backbone.", TIMM_TRUNK), "classifier.weight": torch.zeros(3, 32),
         "classifier.bias": torch.zeros(3)},
        "backbone.", ["classifier.weight", "classifier.bias"]),
    "criterion": ({**below("model.", TRUNK), "criterion.weight": torch.ones(3)},
                  "model.", ["criterion.weight"]),
    "a head of several layers": (
        {**TIMM_TRUNK, "head.fc.0.weight": torch.ones(4, 32), "head.fc.2.weight": torch.ones(3)},
        "", ["head.fc.0.weight", "head.fc.2.weight"]),
    "timm's head with a layer within": (
        {**TIMM, "head.pre_logits.fc.weight": torch.zeros(32, 32)},
        "", ["head.fc.weight", "head.fc.bias", "head.pre_logits.fc.weight"]),
    "a head of another width": ({**TRUNK, "head.weight": torch.zeros(5, 64)}, "", ["head.weight"]),
    "a head without a bias": ({**TRUNK, "head.weight": torch.zeros(5, 32)}, "", ["head.weight"]),
    "a norm of another width": (
        {**TRUNK, "norm.weight": torch.zeros(5), "norm.bias": torch.zeros(5)},
        "", ["norm.weight", "norm.bias"]),
    "open_clip": ({**below("visual.trunk.", TIMM_TRUNK), "logit_scale": torch.tensor(1.0),
                   "transformer.resblocks.0.attn.in_proj_weight": torch.zeros(6, 2)},
                  "visual.trunk.", ["logit_scale", "transformer.resblocks.0.attn.in_proj_weight"]),
    "SWA": ({"n_averaged": torch.tensor(1), **below("module.", STATE)}, "module.", ["n_averaged"]),
    "several levels": (below("student.net.encoder.module.", STATE),
                       "student.net.encoder.module.", []),
    "torchmetrics": ({**below("net.", STATE), "val.confmat": torch.zeros(3, 3)},
                     "net.", ["val.confmat"]),
    "a detector's norms": (
        {**{f"backbone.{key}": tensor for key, tensor in TRUNK.items() if key[:4] != "norm"}
         | {f"backbone.norm{i}.{kind}": torch.ones(dim) for i, dim in enumerate(DIMS)
            for kind in ("weight", "bias")},
         "neck.lateral_convs.0.conv.weight": torch.zeros(4, 8, 1, 1)},
        "backbone.", [f"backbone.norm{i}.{kind}" for i in range(4) for kind in ("weight", "bias")]
        + ["neck.lateral_convs.0.conv.weight"]),
    "compiled blocks": ({key.replace("stages.1.", "stages.1._orig_mod."): tensor
                         for key, tensor in STATE.items()}, "", []),
    "an unknown name": ({**STATE, "x" * 100_000: torch.ones(1)}, "", ["x" * 100_000]),
    "a number for a name": ({**STATE, 7: torch.ones(1)}, "", ["7"]),
    "no tensors": ({**STATE, "epoch": 3, "args": argparse.Namespace(lr=1.0)}, "", []),
}  # fmt: skip


@pytest.mark.parametrize(("saved", "prefix", "others"), LONE.values(), ids=LONE)
def test_one_trunk_among_other_tensors(saved, prefix, others, path):
    if "backbone.norm0.weight" in saved:  # the names that such files have
        saved = {key.replace("dwconv", "depthwise_conv").replace("pwconv", "pointwise_conv"): tensor
                 for key, tensor in saved.items()}  # fmt: skip
    found = identify(save(saved, path))
    assert (found.variant.depths, found.variant.dims) == (DEPTHS, DIMS)
    assert found.prefix == prefix
    assert sorted(found.ignored) == sorted(others)
    kernel = next(source for place, source in open_checkpoint(path).sources.items()
                  if place == ("stem_conv", "kernel"))  # fmt: skip
    np.testing.assert_array_equal(kernel.read().transpose(3, 2, 0, 1), TIMM["stem.0.weight"])


def test_one_line_reports_the_prefix_and_the_others(path):
    save(LONE["own classifier"][0], path)
    told = r"prefix 'backbone\.' and ignored 2 other tensors: classifier\.weight, classifier\.bias"
    with pytest.warns(UserWarning, match=told) as caught:
        trunk = load_model(path, include_top=False, input_shape=(32, 32, 3))
    assert len(caught) == 1
    assert caught[0].filename == __file__
    np.testing.assert_array_equal(stem_of(trunk), TIMM["stem.0.weight"])
    for write in (convert, rewrite_checkpoint):
        with pytest.warns(UserWarning, match=told):
            write(path, path.with_name("y.safetensors"))
        assert identify(path.with_name("y.safetensors")).ignored == ()


def test_nothing_is_reported_of_what_was_named(path):
    save({"model": {**below("a.", STATE), "b.weight": torch.ones(3)}, "ema": OTHER}, path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_checkpoint(model(), path, entry="model", ignore="b.*")
        load_checkpoint(model(), path, entry="model", prefix="a.")
    found = identify(path, entry="model", ignore=("b.*",))
    assert (found.entry, found.prefix, found.ignored) == ("model", "a.", ())


def test_what_the_model_has_above_the_trunk_stays_fresh_with_a_warning(path):
    trunk_alone = {k: v for k, v in TRUNK.items() if not k.startswith("norm")}
    ours = model()
    before = {name: ours.get_layer(name).get_weights() for name in ("norm", "head")}
    with pytest.warns(UserWarning, match=r"has no (final norm|classifier)") as caught:
        load_checkpoint(ours, save(trunk_alone, path))
    assert len(caught) == 2
    for name, weights in before.items():
        for one, other in zip(ours.get_layer(name).get_weights(), weights):
            np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(stem_of(ours), STATE["downsample_layers.0.0.weight"])


def test_a_head_needs_the_norm_that_it_was_trained_with(path):
    """timm's `head_norm_first` has another norm, before the pooling."""
    saved = {k: v for k, v in TIMM.items() if not k.startswith("head.norm")}
    found = identify(save({**saved, "norm_pre.weight": torch.ones(32)}, path))
    assert found.classes is None
    assert not found.has_norm
    assert set(found.ignored) == {"head.fc.weight", "head.fc.bias", "norm_pre.weight"}


# As other packages name the modules around a trunk.


def torchvision_names(state):
    renamed = {}
    for key, tensor in state.items():
        key = re.sub(r"^downsample_layers\.(\d)", lambda m: f"features.{2 * int(m[1])}", key)
        key = re.sub(r"^stages\.(\d)\.", lambda m: f"features.{2 * int(m[1]) + 1}.", key)
        for ours, theirs in {"dwconv": "block.0", "norm": "block.2", "pwconv1": "block.3",
                             "pwconv2": "block.5"}.items():  # fmt: skip
            key = re.sub(rf"(features\.\d\.\d\.){ours}", rf"\1{theirs}", key)
        key = re.sub("^norm", "classifier.0", re.sub("^head", "classifier.2", key))
        scale = key.endswith("gamma")
        renamed[key.replace(".gamma", ".layer_scale")] = tensor[:, None, None] if scale else tensor
    return renamed


TORCHVISION = torchvision_names(STATE)
TRANSFORMERS = {
    re.sub(r"stages\.(\d)\.blocks", r"encoder.stages.\1.layers", key)
    .replace("stem.0", "embeddings.patch_embeddings").replace("stem.1", "embeddings.layernorm")
    .replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv").replace("head.norm", "layernorm")
    .replace(".norm.", ".layernorm.").replace("gamma", "layer_scale_parameter")
    .replace("head.fc", "classifier"): tensor
    for key, tensor in TIMM.items()
}  # fmt: skip
TRANSFORMERS = {
    re.sub(r"stages\.(\d)\.downsample", r"encoder.stages.\1.downsampling_layer", key): tensor
    for key, tensor in TRANSFORMERS.items()
}


AROUND = {
    "torchvision": (TORCHVISION, "features.", 5),
    "torchvision's features alone": (
        {key.replace("features.", "backbone."): tensor for key, tensor in TORCHVISION.items()
         if key.startswith("features")}, "backbone.", None),
    "torchvision, with a deeper classifier": (
        {**TORCHVISION, "classifier.4.weight": torch.ones(2, 5)}, "features.", None),
    "torchvision, with an own classifier": (
        {key: tensor for key, tensor in TORCHVISION.items() if key.startswith("features")}
        | {"classifier.0.weight": torch.ones(7, 32), "classifier.0.bias": torch.ones(7)},
        "features.", None),
    "transformers": (
        {key if key.startswith("classifier") else f"convnext.{key}": tensor
         for key, tensor in TRANSFORMERS.items()}, "convnext.", 5),
    "transformers, wrapped": (
        {f"model.{key}" if key.startswith("classifier") else f"model.convnext.{key}": tensor
         for key, tensor in TRANSFORMERS.items()}, "model.convnext.", 5),
    "transformers, the trunk alone": (
        below("encoder.", {key: tensor for key, tensor in TRANSFORMERS.items()
                           if not key.startswith("classifier")}), "encoder.", None),
    "timm, features_only": (
        below("encoder.model.", {re.sub(r"^(stem|stages)\.", r"\1_", key): tensor
                                 for key, tensor in TIMM.items() if not key.startswith("head")}),
        "encoder.model.", None),
}  # fmt: skip


@pytest.mark.parametrize(("saved", "prefix", "classes"), AROUND.values(), ids=AROUND)
def test_a_trunk_of_another_package(saved, prefix, classes, path):
    found = identify(save(saved, path))
    assert (found.variant.depths, found.variant.dims) == (DEPTHS, DIMS)
    assert (found.prefix, found.classes) == (prefix, classes)
    assert found.variant.layer_scale is not None
    sources = open_checkpoint(path).sources
    np.testing.assert_array_equal(
        sources["stages_2_blocks_0/pwconv1", "kernel"].read().T, STATE["stages.2.0.pwconv1.weight"]
    )


# Several trunks.


def test_several_trunks_are_listed_and_chosen_by_prefix(path):
    save({**below("student.backbone.", STATE), **below("teacher.backbone.", OTHER),
          "student.dino_head.mlp.0.weight": torch.ones(2, 2)}, path)  # fmt: skip
    number = sum(tensor.numel() for key, tensor in STATE.items() if key.split(".")[0] not in
                 ("norm", "head"))  # fmt: skip
    told = (
        rf"The file contains 2 ConvNeXts.*: prefix='student\.backbone\.': convnext with {number:,} "
        r"parameters; prefix='teacher\.backbone\.'.*Choose one with prefix=.*x\.pth"
    )
    for ask in (identify, load_model, lambda file: load_checkpoint(model(), file)):
        with pytest.raises(CheckpointError, match=told):
            ask(path)
    for prefix, state in (("student.backbone.", STATE), ("teacher.backbone", OTHER)):
        ours = load_model(path, prefix=prefix, input_shape=(32, 32, 3))
        expected = state["downsample_layers.0.0.weight"]
        np.testing.assert_array_equal(stem_of(ours), expected)
    assert identify(path, ignore="teacher.*").prefix == "student.backbone."
    with pytest.raises(CheckpointError, match=r"the prefix 'ema\.'\. Available: prefix='student"):
        identify(path, prefix="ema.")


def test_blocks_without_a_stem_are_no_second_trunk(path):
    decoder = {k: v for k, v in OTHER.items() if k.startswith("stages.0")}
    found = identify(save({**below("model.", STATE), **below("decoder.", decoder)}, path))
    assert (found.prefix, len(found.ignored)) == ("model.", len(decoder))
    assert identify(save({"a": {"head": decoder}, "model": STATE}, path)).entry == "model"
    with pytest.raises(CheckpointError, match="parts of a ConvNeXt are missing"):
        identify(save(decoder, path))


def test_the_same_tensors_by_two_names_are_one_trunk(path):
    save({**below("model.", STATE), **below("backbone.", STATE)}, path)
    found = identify(path)
    assert (found.prefix, len(found.ignored)) == ("model.", len(STATE))


ENTRIES = ("model_state_dict", "net", "teacher", "module", "ema", "state_dict_ema", "params",
           "params_ema", "weights", "network", "state.model", "a.b.c.d", "models.0")  # fmt: skip


@pytest.mark.parametrize("entry", ENTRIES)
def test_the_entry_is_found(entry, path):
    saved = {"epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}}}
    *around, last = entry.split(".")
    here = saved
    for name in around:
        here = here.setdefault(name, {})
    here[last] = STATE
    if entry == "models.0":
        saved["models"] = [STATE]
    found = identify(save(saved, path))
    assert found.entry == entry
    assert found.ignored == ("optimizer.state.0.exp_avg",)
    assert identify(path, entry=entry) == found._replace(ignored=())
    assert identify(path, entry=entry.partition(".")[0]).entry == entry


def test_an_object_may_be_around_the_entry(path):
    found = identify(save({"trainer": argparse.Namespace(model=STATE)}, path))
    assert found.entry == "trainer.model"


def test_several_entries_are_listed(path):
    save({"state_dict": STATE, "state_dict_ema": OTHER, "epoch": 1}, path)
    with pytest.raises(CheckpointError, match=r"2 ConvNeXts.*entry='state_dict', prefix='': convn.*"
                       r"entry='state_dict_ema'.*Choose one with entry= \("):  # fmt: skip
        identify(path)
    ema = read(open_checkpoint(path, entry="state_dict_ema"))
    np.testing.assert_array_equal(ema["head", "bias"], OTHER["head.bias"])


def test_of_an_official_training_checkpoint_the_model_is_taken(path):
    save({"model": STATE, "model_ema": OTHER, "optimizer": {"x": torch.ones(1)}}, path)
    checkpoint = open_checkpoint(path)
    np.testing.assert_array_equal(read(checkpoint)["head", "bias"], STATE["head.bias"])
    number = len(OTHER) + 1
    told = (
        rf"entry 'model' and ignored {number} other tensors: model_ema \({len(OTHER)}\), optimizer"
    )
    assert re.search(told, checkpoint.notice)


@pytest.mark.parametrize(
    ("saved", "entry", "told"),
    [
        ({"net": STATE, "epoch": 1}, "model", "no entry 'model'. Its entries: net, epoch. Entries "
                                              "with a ConvNeXt: net"),
        ({"net": STATE, "epoch": 1}, "epoch", "The entry 'epoch' contains no tensors"),
        ({"ema": {"shadow_params": list(STATE.values())}}, None,
         f"a list of {len(STATE)} tensors without names at 'ema.shadow_params'"),
        ({"x": torch.ones(1), "shadow_params": list(STATE.values())}, None,
         f"in the list at 'shadow_params' ({len(STATE)} tensors) have no names"),
        ({}, None, "The file contains no tensors. Save model.state_dict()"),
        ({"net\x1b[31m": {"y": 1}}, "z", "no entry 'z'. Its entries: net\\x1b[31m"),
    ],
)  # fmt: skip
def test_an_entry_that_is_not_there(saved, entry, told, path):
    with pytest.raises(CheckpointError, match=re.escape(told)):
        identify(save(saved, path), entry=entry)


# Inside of the trunk.


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda s: {k: v for k, v in s.items() if k != "net.stages.1.0.norm.bias"},
         "convnext are missing from the checkpoint: stages_1_blocks_0/norm/beta"),
        (lambda s: {**s, "net.stages.1.0.norm.bias": torch.ones(3)},
         "Received: net.stages.1.0.norm.bias of shape (3,)"),
        (lambda s: {**s, "net.stages.1.0.extra": torch.ones(3)},
         "unknown tensors: net.stages.1.0.extra. Use"),
        (lambda s: {**s, "net.stages.2.0.dwconv.weight": torch.ones(24, 1, 5, 5)},
         "Received: net.stages.2.0.dwconv.weight of shape (5, 5, 24, 1)"),
    ],
)  # fmt: skip
def test_loading_is_strict_inside_of_the_trunk(edit, told, path):
    save({**edit(below("net.", STATE)), "other": torch.ones(1)}, path)
    for read_it in (identify, lambda file: rewrite_checkpoint(file, file.with_name("y.pth"))):
        with pytest.raises(CheckpointError, match=re.escape(told)):
            read_it(path)
    if "extra" in told:
        assert identify(path, ignore="*.extra").ignored == ("other",)


def test_the_last_norm_of_dinov3_stands_in_the_file_twice(path):
    twice = {**TRUNK, "norms.3.weight": TRUNK["norm.weight"], "norms.3.bias": TRUNK["norm.bias"]}
    assert identify(save(twice, path)).ignored == ()
    # Copies of the numbers, and not of the storage.
    assert identify(save({key: value.clone() for key, value in twice.items()}, path)).ignored == ()
    found = identify(save({**twice, "norms.3.bias": torch.ones(32)}, path))
    assert found.ignored == ("norms.3.bias",)
    norm = read(open_checkpoint(path))["norm", "beta"]
    np.testing.assert_array_equal(norm, TRUNK["norm.bias"])


# What the file implies.


def test_a_checkpoint_of_four_channels_gives_a_model_of_four(path):
    stem = "downsample_layers.0.0.weight"
    save({**STATE, stem: torch.randn(8, 4, 4, 4)}, path)
    assert identify(path).channels == 4
    assert load_model(path).input_shape == (None, 224, 224, 4)
    assert model(weights=path, input_shape=None).input_shape == (None, 224, 224, 4)
    assert load_model(path, include_top=False).input_shape == (None, None, None, 4)
    for build in (load_model, lambda file, **options: model(weights=file, **options)):
        with pytest.raises(CheckpointError, match="4 channels, but the model expects 3"):
            build(path, input_shape=(32, 32, 3))


def test_all_that_a_file_tells_is_told(path):
    built = torch_reference.Hierarchical((1, 2), (8, 16), 7, False, 2, 5)
    found = identify(save({"net": below("m.", built.state_dict())}, path))
    assert found.variant.layer_scale is None
    assert (found.variant.patch_size, found.variant.kernel_size) == (2, 5)
    assert (found.classes, found.channels, found.layout) == (7, 3, "official")
    assert (found.entry, found.prefix) == ("net", "m.")
    assert found.parameters == sum(each.numel() for each in built.parameters())


def test_asked_for_other_classes_a_trunk_gets_a_random_head(path):
    save(TRUNK, path)
    assert load_model(path).output_shape == (None, 32)
    with pytest.warns(UserWarning, match="has no classifier: the model's"):
        ours = load_model(path, classes=7)
    assert ours.output_shape == (None, 7)
    assert np.ptp(ours.get_layer("head").get_weights()[0]) > 0
    with pytest.raises(
        ValueError,
        match="no classifier of images: pass include_top=False",
    ):
        model(weights=path, classes=None)


def test_the_largest_of_clip_has_another_epsilon(path, monkeypatch):
    monkeypatch.setattr(limits, "MAX_EXPANSION", 1 << 30)
    shapes = torch_reference.Hierarchical
    with torch.device("meta"):
        state = shapes((3, 4, 30, 3), (384, 768, 1536, 3072)).state_dict()
    zeros = {key: torch.zeros(1).expand(tensor.shape) for key, tensor in state.items()}
    variant = identify(save(below("visual.trunk.", timm_names(zeros)), path)).variant
    assert (variant.name, variant.epsilon) == ("convnext_xxlarge", 1e-5)
    ours = keras_convnext.ConvNeXt((1, 1), (8, 16), epsilon=1e-5, classes=2)
    norms = [layer.epsilon for layer in ours.layers if hasattr(layer, "epsilon")]
    norms += [ours.get_layer(f"stages_{stage}_blocks_0").norm.epsilon for stage in (0, 1)]
    assert norms == [1e-5] * 5
    again = keras.models.clone_model(ours)
    assert again.get_layer("stages_0_blocks_0").norm.epsilon == 1e-5


def test_another_epsilon_than_the_model_has_is_told(path, monkeypatch):
    from keras_convnext.pretrained import networks

    row = keras_convnext.variants.Variant("like_clip", DEPTHS, DIMS, epsilon=1e-5)
    monkeypatch.setitem(networks.VARIANTS, "like_clip", row)
    save(STATE, path)
    with pytest.warns(
        UserWarning, match="epsilon=1e-05, but those of the model have epsilon=1e-06"
    ):
        load_checkpoint(model(), path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = load_model(path)
    assert ours.get_layer("norm").epsilon == 1e-5


def test_the_size_of_the_images_is_taken_from_where_it_is_recorded(path):
    saved = {"model": STATE, "args": argparse.Namespace(input_size=96, lr=1.0)}
    assert identify(save(saved, path)).size == 96
    assert load_model(path).input_shape == (None, 96, 96, 3)
    for args in ({"img_size": [3, 64, 64]}, {"pretrained_cfg": {"input_size": (3, 64, 64)}}):
        assert identify(save({"state_dict": STATE, "args": args}, path)).size == 64
    for nonsense in (-1, 10**9, "x", [], None, True, {"a": 1}):
        assert identify(save({"model": STATE, "args": {"image_size": nonsense}}, path)).size is None


def test_the_size_of_the_images_beside_a_safetensors_file(path):
    file = path.with_suffix(".safetensors")
    state = {key: tensor.contiguous() for key, tensor in STATE.items()}
    safetensors.torch.save_file(state, file)
    config = path.with_name("config.json")
    for text, size in (('{"image_size": 384}', 384), ("[", None), ("[" * 10**5, None), ("3", None),
                       ('{"pretrained_cfg": {"input_size": [3, 288, 288]}}', 288)):  # fmt: skip
        config.write_text(text)
        assert identify(file).size == size
    safetensors.torch.save_file(state, file, {"input_size": "256"})
    assert identify(file).size == 256


def test_the_pixels_of_open_clip_are_normalized_otherwise(path):
    save(below("visual.trunk.", TIMM), path)
    with pytest.warns(UserWarning, match="CLIP's mean and standard deviation"):
        load_model(path, input_shape=(32, 32, 3))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_model(path, input_shape=(32, 32, 3), include_preprocessing=False)


# A stranger's file.


def stored(*shape):
    storage = Storage(Path("x"), 0, 0, None, np.dtype("float32"))
    return StoredTensor(storage, 0, shape, (0,) * len(shape))


KERNEL = stored(8, 1, 7, 7)
MANY = {
    "other tensors": {f"decoder.{i}.attn.q_proj.weight": KERNEL for i in range(20_000)},
    "norms": {f"a.b.c.d.{i}.blocks.{i % 97}.norm.weight": KERNEL for i in range(20_000)},
    "trunks": {f"{i}.stages.0.0.dwconv.weight": KERNEL for i in range(20_000)},
    "blocks": {f"stages.{i // 9999}.{i % 9999}.dwconv.weight": KERNEL for i in range(20_000)},
    "claims": {"downsample_layers.0.0.weight": stored(8, 3, 4, 4)}
    | {f"stages.{i}.9998.dwconv.weight": KERNEL for i in range(1000)},
}


@pytest.mark.parametrize("tensors", MANY.values(), ids=MANY)
def test_many_names_take_little_time(tensors):
    began = time.process_time()
    with pytest.raises(CheckpointError) as caught:
        chosen(tensors, entries_of(tensors), None, None)
    assert time.process_time() - began < 4
    assert len(str(caught.value)) < 1000
