"""What a safetensors file says of its tensors is not believed before it is looked at."""

import json

import numpy as np
import pytest
import safetensors.torch
import torch
from mutations import safe_file_of

from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.placeholder import Placeholder
from keras_convnext.pretrained.safetensors_file import DTYPES, read_safetensors, write_safetensors


def refusal(tmp_path, key="x", shape=(1,), offsets=(0, 4)):
    path = tmp_path / "x.safetensors"
    header = {key: {"dtype": "F32", "shape": shape, "data_offsets": offsets}}
    path.write_bytes(safe_file_of(json.dumps(header).encode(), bytes(offsets[-1])))
    with pytest.raises(CheckpointError) as caught:
        read_safetensors(path)
    assert str(caught.value).count(str(path)) == 1
    return str(caught.value)


@pytest.mark.parametrize(
    ("shape", "offsets"), [((2**62, 0), (0, 0)), ((1,) * 65, (0, 4))], ids=["empty", "65 axes"]
)
def test_a_shape_that_numpy_cannot_have_is_refused(shape, offsets, tmp_path):
    assert "impossible shape" in refusal(tmp_path, "x", shape, offsets)


@pytest.mark.parametrize("key", ["x" * 5000, "\x1b[2J\n"], ids=["long", "escape code"])
def test_a_name_does_not_spoil_the_message(key, tmp_path):
    told = refusal(tmp_path, key, offsets=(4, 0))
    assert "Not a valid safetensors file" in told
    assert told.isprintable()
    assert len(told) < 600


def test_all_dtypes_of_numpy_are_read(tmp_path):
    generator = np.random.default_rng(0)
    arrays = {
        name: generator.integers(0, 2, (2, 3)).astype(dtype) for name, dtype in DTYPES.items()
    }
    write_safetensors(tmp_path / "x.safetensors", arrays.items())
    tensors = read_safetensors(tmp_path / "x.safetensors")
    assert tensors.keys() == arrays.keys()
    for name, array in arrays.items():
        assert tensors[name].read().dtype == tensors[name].dtype == array.dtype
        assert tensors[name].read().tobytes() == array.tobytes()


def test_a_tensor_that_numpy_cannot_have_becomes_a_placeholder(tmp_path):
    tensors = {"x": torch.ones(2), "scale": torch.ones(2).to(torch.float8_e4m3fn)}
    path = tmp_path / "x.safetensors"
    safetensors.torch.save_file(tensors, path)
    loaded = read_safetensors(path)
    assert loaded["x"].read().tolist() == [1, 1]
    assert type(loaded["scale"]) is Placeholder
    del tensors["x"]
    safetensors.torch.save_file(tensors, path)
    with pytest.raises(CheckpointError, match=r"unsupported dtype.*F8_E4M3"):
        read_safetensors(path)


def test_others_may_read_what_is_written(tmp_path):
    write_safetensors(tmp_path / "x.safetensors", [("x", np.zeros(2, "float32"))])
    (tmp_path / "y").touch()
    assert (tmp_path / "x.safetensors").stat().st_mode == (tmp_path / "y").stat().st_mode
