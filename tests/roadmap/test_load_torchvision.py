import numpy as np
import pytest
import torch
import torch_roadmap
from battery import assert_close, normalized, random
from torch_reference import declare_torchvision_operators

import keras_convnext
from keras_convnext import roadmap
from keras_convnext.roadmap import REGIMES


@pytest.mark.parametrize(
    "depths", [(1, 1, 1, 1), pytest.param((3, 4, 6, 3), marks=pytest.mark.slow)], ids=str
)
@torch.no_grad()
def test_resnet50_of_torchvision(depths, tmp_path, monkeypatch):
    declare_torchvision_operators()
    from torchvision.models import resnet

    regime = REGIMES["resnet50"]
    assert regime.depths[0] == (3, 4, 6, 3)
    monkeypatch.setitem(REGIMES, "resnet50", regime._replace(depths=(depths, depths)))
    theirs = resnet.ResNet(resnet.Bottleneck, list(depths))  # what its resnet50 returns
    torch_roadmap.randomize(theirs)
    torch.save(theirs.state_dict(), tmp_path / "resnet50.pth")
    model = roadmap.network("resnet", classifier_activation=None, input_shape=(64, 96, 3))
    roadmap.load_torchvision(model, tmp_path / "resnet50.pth")
    pixels = random(2, 64, 96, 3, scale=255)
    assert_close(model(pixels), theirs(normalized(pixels)))


def saved(path, step="resnet", depths=(2, 1), width=4, change=None, wrap=lambda state: state):
    reference = torch_roadmap.randomize(torch_roadmap.Roadmap(step, depths, width, 5))
    state = reference.state_dict()
    if change:
        change(state)
    torch.save(wrap(state), path)
    return reference


def built(step="resnet", **options):
    own = {"input_shape": (None, None, 3), "classes": 5, "classifier_activation": None}
    return roadmap.network(step, "toy4", **{**own, **options})


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"model": state, "epoch": 3},
        lambda state: {f"module.{key}": value for key, value in state.items()},
    ],
    ids=["entry", "parallel"],
)
@torch.no_grad()
def test_files_of_a_trainer(wrap, tmp_path):
    reference = saved(tmp_path / "toy.pth", wrap=wrap)
    model, pixels = built(name="left"), random(2, 45, 67, 3, scale=255)
    roadmap.load_torchvision(model, tmp_path / "toy.pth")
    assert_close(model(pixels), reference(normalized(pixels)))


@torch.no_grad()
def test_depthwise_kernels_and_no_classifier(tmp_path):
    reference = saved(tmp_path / "toy.pth", "depthwise", (1, 2), 8)
    model, pixels = built("depthwise"), random(2, 45, 67, 3, scale=255)
    roadmap.load_torchvision(model, tmp_path / "toy.pth")
    assert_close(model(pixels), reference(normalized(pixels)))
    features = built("depthwise", include_top=False)
    roadmap.load_torchvision(features, tmp_path / "toy.pth")
    np.testing.assert_array_equal(features.get_weights()[0], model.get_weights()[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("layer1.1.bn2.bias"), r"layer1.1.bn2.bias.*no such tensor"),
        (lambda state: state.update(more=torch.zeros(2)), r"no variables for 1.*Received: more"),
        (
            lambda state: state.update({"fc.weight": torch.zeros(7, 32)}),
            r"fc.weight is for head/kernel of shape \(32, 5\). Received: shape \(7, 32\)",
        ),
        (
            lambda state: state.update({"bn1.bias": torch.full((4,), torch.nan)}),
            "bn1.bias contains NaN",
        ),
        (lambda state: state.pop("conv1.weight"), "There is no ResNet of torchvision in the file"),
    ],
)
def test_other_files_change_nothing(change, message, tmp_path):
    saved(tmp_path / "toy.pth", change=change)
    model = built()
    before = model.get_weights()
    with pytest.raises(keras_convnext.CheckpointError, match=message) as caught:
        roadmap.load_torchvision(model, tmp_path / "toy.pth")
    assert str(tmp_path / "toy.pth") in str(caught.value)
    for was, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(was, now)


def test_a_step_that_is_no_resnet_is_named(tmp_path):
    saved(tmp_path / "toy.pth")
    with pytest.raises(keras_convnext.CheckpointError, match="has no layer for this one"):
        roadmap.load_torchvision(built("final_norm"), tmp_path / "toy.pth")
