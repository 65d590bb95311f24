"""Files of segmenters where any weight file is taken: loaded, identified, converted, checked."""

import os
import warnings
from argparse import Namespace
from random import Random

import keras
import numpy as np
import pytest
import torch
from test_upernet import CHECKPOINT, STRUCTURE
from typer.testing import CliRunner

import keras_convnext
from keras_convnext import CheckpointError, cli, convert, identify, load_model
from keras_convnext.pretrained.checks import check_network, check_numbers
from keras_convnext.segmentation import UperNet, load_segmenter_weights

PARAMETERS = 122_186


def run(*arguments):
    return CliRunner().invoke(cli.app, [str(each) for each in arguments])


def trunk(**options):
    return keras_convnext.ConvNeXt(
        **STRUCTURE, include_top=False, input_shape=(None, None, 3), **options
    )


def assert_same_weights(ours, theirs):
    for one, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.fixture(scope="module")
def model():
    return load_model(CHECKPOINT)


def test_the_network_is_determined_by_the_file(model):
    assert model.name == "upernet_convnext"
    assert model.output_shape == (None, None, None, 5)
    assert model.get_layer("auxiliary_classifier")
    assert_same_weights(model, UperNet(trunk(), weights=CHECKPOINT, channels=16))
    found = identify(CHECKPOINT)
    assert (found.name, found.head, found.task) == ("upernet_convnext", "upernet", "segmentation")
    assert (found.classes, found.parameters, found.ignored) == (5, PARAMETERS, ())
    assert found.parameters == sum(np.prod(each.shape) for each in model.trainable_weights)


@pytest.mark.parametrize("suffix", [".keras", ".safetensors", ".pth"])
def test_a_segmenter_is_converted_and_comes_back(suffix, tmp_path):
    there, back = tmp_path / f"there{suffix}", tmp_path / "back.pth"
    convert(CHECKPOINT, there)
    assert (identify(there).name, identify(there).parameters) == ("upernet_convnext", PARAMETERS)
    convert(there, back, layout="openmmlab")
    ours = torch.load(back, weights_only=True)["state_dict"]
    theirs = torch.load(CHECKPOINT, weights_only=True)["state_dict"]
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(ours[name], tensor.float() if tensor.is_floating_point() else tensor)


def test_a_keras_file_starts_another_number_of_classes(model, tmp_path):
    path = tmp_path / "mine.keras"
    model.save(path)
    with pytest.warns(UserWarning, match=r"5 classes, but the model has 3: everything except"):
        tuned = UperNet(trunk(), weights=path, channels=16, classes=3)
    name = "fpn_bottleneck_conv"
    np.testing.assert_array_equal(
        tuned.get_layer(name).get_weights()[0], model.get_layer(name).get_weights()[0]
    )


def test_options_of_the_builder_are_passed_on():
    built = load_model(
        CHECKPOINT, input_shape=(64, 96, 3), classifier_activation=None, auxiliary=False
    )
    assert built.output_shape == (None, 64, 96, 5)
    assert "auxiliary_classifier" not in {layer.name for layer in built.layers}


def test_the_trunk_alone_may_be_used():
    with pytest.warns(UserWarning, match=r"no final norm"):
        features = load_model(CHECKPOINT, include_top=False)
    assert features.output_shape == (None, STRUCTURE["dims"][-1])
    with pytest.raises(ValueError, match=r"of upernet_convnext.* no classifier of images: pass"):
        keras_convnext.ConvNeXt(**STRUCTURE, weights=CHECKPOINT)
    with pytest.warns(UserWarning, match=r"classifier is unchanged"):
        classifier = keras_convnext.ConvNeXt(**STRUCTURE, weights=CHECKPOINT, classes=7)
    assert classifier.output_shape == (None, 7)


def test_refusals(tmp_path):
    with pytest.raises(CheckpointError, match=r"checkpoint of upernet_convnext, not of convnext_t"):
        load_model(CHECKPOINT, "convnext_tiny")
    with pytest.raises(ValueError, match=r"saved as .safetensors, PyTorch or, with model.save"):
        convert(CHECKPOINT, tmp_path / "mine.weights.h5")
    with pytest.raises(ValueError, match=r"Available: 'ade20k_22k', 'ade20k_22k_openmmlab'"):
        UperNet("convnext_large", weights="ade20k")


def test_a_file_is_checked_before_it_is_used(model, tmp_path):
    assert check_network(CHECKPOINT, "upernet_convnext", 5, parameters=PARAMETERS) == PARAMETERS
    with pytest.raises(CheckpointError, match=r"with 150 classes. Received: upernet_convnext with"):
        check_network(CHECKPOINT, "upernet_convnext", 150)
    with pytest.raises(CheckpointError, match=r"has 7 parameters"):
        check_network(CHECKPOINT, "upernet_convnext", 5, parameters=7)
    check_numbers(CHECKPOINT)
    saved = torch.load(CHECKPOINT, weights_only=True)
    saved["state_dict"]["decode_head.conv_seg.bias"][0] = float("nan")
    torch.save(saved, tmp_path / "bad.pth")
    with pytest.raises(CheckpointError, match=r"decode_head.conv_seg.bias contains NaN"):
        check_numbers(tmp_path / "bad.pth")


def test_the_commands(tmp_path):
    shown = run("identify", CHECKPOINT).stdout
    assert "upernet_convnext" in shown
    assert "segmentation" in shown
    assert "150" not in shown
    target = tmp_path / "mine.safetensors"
    printed = run("convert", CHECKPOINT, target, "--layout", "transformers", "--names")
    assert printed.exit_code == 0, printed.output
    assert "decode_head.classifier.weight" in printed.stdout
    verified = run("verify", CHECKPOINT)
    assert verified.exit_code == 0, verified.output
    assert "upernet_convnext, 5 classes, 122,186 parameters" in verified.stdout
    assert keras.tree.flatten(load_model(target).output_shape) == [None, None, None, 5]


class Harm:
    """Runs a command when it is unpickled by pickle."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


def test_what_may_run_code_beside_the_weights_is_refused(tmp_path):
    saved = torch.load(CHECKPOINT, weights_only=True)
    path = tmp_path / "hostile.pth"
    torch.save({**saved, "meta": {"config": Harm(tmp_path / "trace")}}, path)
    with pytest.raises(CheckpointError, match="nothing was run"):
        load_model(path)
    assert [each.name for each in tmp_path.iterdir()] == ["hostile.pth"]


def test_what_trainers_keep_beside_the_weights_is_skipped(model, tmp_path):
    """mmengine's, as objects of classes that are not imported."""
    saved = torch.load(CHECKPOINT, weights_only=True)
    kept = {"config": Namespace(lr=1e-4), "iter": 160_000, "seed": np.float64(0)}
    saved |= {"meta": kept, "message_hub": [kept], "optimizer": {"state": {0: torch.ones(3)}}}
    torch.save(saved, tmp_path / "trained.pth")
    assert_same_weights(load_model(tmp_path / "trained.pth"), model)


def changed(tensors, random):
    """Returns the tensors with one random change to a head."""
    name = random.choice([name for name in tensors if "head" in name and "tracked" not in name])
    tensor = tensors[name]
    change = random.choice(["drop", "rename", "longer", "flat", "nan", "integers", "twice"])
    if change in ("drop", "rename"):
        del tensors[name]
    if change == "rename":
        tensors[name.replace("conv", "c0nv") + "x"] = tensor
    elif change == "longer":
        tensors[name] = torch.cat([tensor, tensor])
    elif change == "flat":
        tensors[name] = tensor.reshape(-1, 1, 1)
    elif change == "nan":
        tensors[name] = tensor * float("nan")
    elif change == "integers":
        tensors[name] = torch.zeros(tensor.shape, dtype=torch.int64)
    elif change == "twice":
        tensors[f"module.{name}"] = tensor
    return change, name


def refusal(target, path):
    """The error of loading a file, or None."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            load_segmenter_weights(target, path)
    except CheckpointError as error:
        return str(error)
    return None


def test_damaged_heads_are_refused_or_loaded_whole(tmp_path):
    random, path = Random(0), tmp_path / "damaged.pth"
    target = load_model(CHECKPOINT)
    for _ in range(25):
        saved = torch.load(CHECKPOINT, weights_only=True)["state_dict"]
        tensors = dict(saved)
        change, name = changed(tensors, random)
        torch.save({"state_dict": tensors}, path)
        before = target.get_weights()
        if told := refusal(target, path):
            assert told.endswith(f"(file: {path})")
            for after, kept in zip(target.get_weights(), before, strict=True):
                np.testing.assert_array_equal(after, kept)
            continue
        is_vector = saved[name].ndim == 1 and change == "flat"
        # With other classes, the last layers are not loaded.
        is_last = "conv_seg" in name and change == "longer"
        assert is_vector or is_last or change in ("integers", "twice"), (change, name)
