"""Heads with a hidden layer, as LAION's large image tower has, against timm."""

import numpy as np
import pytest
import torch
import torch_reference
from test_layouts import DEPTHS, DIMS, output_of, read, timm, write

from keras_convnext import CheckpointError, identify, load_checkpoint, load_model, save_checkpoint
from keras_convnext.builders import _builder
from keras_convnext.variants import Variant

VARIANT = Variant("convnext", DEPTHS, DIMS, hidden=12)


def toy(variant=VARIANT, **options):
    options = {"include_preprocessing": False, "input_shape": (64, 64, 3), "classes": 5} | options
    return _builder(variant)(**{"weights": None, "classifier_activation": None, **options})


@pytest.fixture(scope="module")
def network():
    return torch_reference.randomize(timm(head_hidden_size=12))


@pytest.fixture
def path(network, tmp_path):
    return write(network.state_dict(), tmp_path / "theirs.safetensors")


def test_its_numbers_are_timms_and_come_back_to_the_bit(network, path, tmp_path):
    model = toy()
    load_checkpoint(model, path)
    images = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype("float32")
    expected = output_of(network, images)
    error = np.abs(model.predict(images, verbose=0) - expected).max() / np.abs(expected).max()
    assert error < 1e-5
    save_checkpoint(model, tmp_path / "ours.pth", layout="timm")
    back = read(tmp_path / "ours.pth")
    assert back.keys() == network.state_dict().keys()
    for key, tensor in network.state_dict().items():
        assert torch.equal(back[key], tensor), key
    found = identify(path)
    assert (found.variant.hidden, found.classes, found.parameters) == (12, 5, model.count_params())


@pytest.mark.parametrize("name", ["x.pth", "x.weights.h5", "x.h5"])
def test_its_files_are_read(name, path, tmp_path):
    model, again = toy(), toy()
    load_checkpoint(model, path)
    save_checkpoint(model, tmp_path / name)
    load_checkpoint(again, tmp_path / name)
    for ours, theirs in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert identify(tmp_path / name).variant.hidden == 12
    again.save_weights(tmp_path / "keras.weights.h5")
    assert identify(tmp_path / "keras.weights.h5").classes == 5


def test_it_and_a_plain_head_are_not_mistaken_for_each_other(path, tmp_path):
    told = "The classifier of the {} has a hidden layer, and that of the {} has none"
    plain = toy(VARIANT._replace(hidden=None))
    before = plain.get_layer("head").get_weights()
    with pytest.warns(UserWarning, match=told.format("checkpoint", "model")):
        load_checkpoint(plain, path)
    np.testing.assert_array_equal(plain.get_layer("head").kernel, before[0])
    save_checkpoint(plain, tmp_path / "plain.pth")
    hidden = toy()
    with pytest.warns(UserWarning, match=told.format("model", "checkpoint")):
        load_checkpoint(hidden, tmp_path / "plain.pth")
    np.testing.assert_array_equal(hidden.get_layer("norm").gamma, plain.get_layer("norm").gamma)


def test_load_model_says_which_network_has_one(path):
    with pytest.raises(CheckpointError, match=r"only convnext_large_mlp has: pass include_top=Fal"):
        load_model(path)
    assert load_model(path, include_top=False).output_shape == (None, DIMS[-1])
