"""Weights are not far larger than the file that contains them."""

import pytest
import safetensors.torch
import torch
import torch_reference

from keras_convnext import CheckpointError, identify, load_model
from keras_convnext.pretrained import checkpoint, limits


def tiny(change):
    """Returns the weights of ConvNeXt-T, 114 MB, each changed before it exists."""
    with torch.device("meta"):
        network = torch_reference.network("convnext_tiny")
    return {key: change(tensor.shape) for key, tensor in network.state_dict().items()}


one = torch.ones(1)


@pytest.mark.parametrize("legacy", [False, True])
def test_weights_of_one_number_are_refused(legacy, tmp_path):
    path = tmp_path / "x.pth"
    state = {"model": tiny(lambda shape: one.expand(shape))}
    torch.save(state, path, _use_new_zipfile_serialization=not legacy)
    assert path.stat().st_size < 100_000
    for read in (identify, load_model):
        with pytest.raises(CheckpointError, match=r"take 114,.* bytes, far more .*clone.*x\.pth"):
            read(path)


def test_weights_with_a_second_name_are_read(tmp_path):
    torch.manual_seed(0)
    network = torch_reference.network("convnext_atto", classes=3)
    path = torch_reference.save(network, tmp_path / "x.pth")
    state = torch.load(path)["model"]
    torch.save({"model": state, "copy": state, "tied": {"head": state["head.weight"]}}, path)
    assert identify(path, entry="model").classes == 3
    safetensors.torch.save_file(state, tmp_path / "x.safetensors")
    assert identify(tmp_path / "x.safetensors").classes == 3


def test_the_number_of_tensors_has_a_limit_in_every_format(tmp_path, monkeypatch):
    path = tmp_path / "x.pth"
    torch.save({"model": {f"x{number}": one for number in range(20)}}, path)
    with pytest.raises(CheckpointError, match="Not a ConvNeXt"):
        identify(path)
    monkeypatch.setattr(limits, "MAX_TENSORS", 19)
    with pytest.raises(CheckpointError, match=r"limit of 19 tensors.*x\.pth\)"):
        identify(path)
    assert checkpoint.check_number is limits.check_number
