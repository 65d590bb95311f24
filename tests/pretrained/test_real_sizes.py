"""Published sizes against the packages that own a layout, on random weights."""

import numpy as np
import pytest
import torch
import torch_reference

from keras_convnext import save_checkpoint
from keras_convnext.builders import BUILDERS
from keras_convnext.variants import VARIANTS

TOLERANCE = 1e-5  # of the largest value
OPTIONS = {
    "include_preprocessing": False,
    "classifier_activation": None,
    "input_shape": (96, 96, 3),
}


def official(name):
    return torch_reference.network(name)


def timm(name):
    torch_reference.declare_torchvision_operators()
    from timm.models import convnext

    return getattr(convnext, name)(pretrained=False)


def transformers(name):
    torch_reference.declare_torchvision_operators()
    from transformers import ConvNextConfig, ConvNextForImageClassification

    variant = VARIANTS[name]
    config = ConvNextConfig(
        hidden_sizes=list(variant.dims),
        depths=list(variant.depths),
        num_labels=1000,
        layer_norm_eps=1e-6,
    )
    return ConvNextForImageClassification(config)


def torchvision(name):
    torch_reference.declare_torchvision_operators()
    import torchvision

    return getattr(torchvision.models, name)()


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(0).normal(size=(1, 96, 96, 3)).astype("float32")


@pytest.mark.parametrize(
    ("owner", "layout", "name"),
    [
        (official, "official", "convnext_atto"),
        (timm, "timm_conv_mlp", "convnext_atto"),
        (transformers, "transformers", "convnext_femto"),
        pytest.param(official, "official", "convnext_tiny", marks=pytest.mark.slow),
        pytest.param(timm, "timm", "convnext_tiny", marks=pytest.mark.slow),
        pytest.param(transformers, "transformers", "convnext_tiny", marks=pytest.mark.slow),
        pytest.param(torchvision, "torchvision", "convnext_tiny", marks=pytest.mark.slow),
    ],
)
def test_a_network_of_published_size(owner, layout, name, image, tmp_path):
    network = torch_reference.randomize(owner(name))
    torch.save(network.state_dict(), tmp_path / "theirs.pth")
    model = BUILDERS[name](weights=tmp_path / "theirs.pth", **OPTIONS)
    with torch.no_grad():
        expected = network(torch.tensor(image).movedim(-1, 1))
    expected = getattr(expected, "logits", expected).numpy()
    assert np.abs(np.asarray(model(image)) - expected).max() < TOLERANCE * np.abs(expected).max()

    save_checkpoint(model, tmp_path / "ours.pth", layout=layout)
    saved = torch.load(tmp_path / "ours.pth", weights_only=True)
    state = saved.get("model", saved)
    theirs = network.state_dict()
    assert state.keys() == theirs.keys()
    assert all(torch.equal(state[key], theirs[key]) for key in theirs)
    network.load_state_dict(state, strict=True)
