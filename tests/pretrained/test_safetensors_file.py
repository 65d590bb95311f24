"""What a safetensors file says of its tensors is not believed before it is looked at."""

import json
import os
import time

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


def test_time_is_linear_in_the_number_of_tensors(tmp_path):
    """A network of some hundred tensors is read one by one."""

    def seconds(number):
        path = tmp_path / f"{number}.safetensors"
        write_safetensors(path, ((f"x{each}", np.ones(1)) for each in range(number)))
        began = time.process_time()
        for tensor in read_safetensors(path).values():
            tensor.read()
        return time.process_time() - began

    few = min(seconds(200) for _ in range(3))
    assert seconds(4000) < 60 * few


def test_a_number_of_tensors_and_a_header_have_limits(tmp_path):
    path = tmp_path / "x.safetensors"
    tensor = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    header = json.dumps({f"x{each}": tensor for each in range(100_001)}).encode()
    path.write_bytes(safe_file_of(header, b""))
    with pytest.raises(CheckpointError, match=r"limit of 100,000 tensors.*x\.safetensors\)"):
        read_safetensors(path)
    path.write_bytes(safe_file_of(b"{" + b" " * (33 << 20) + b"}", b""))
    with pytest.raises(CheckpointError, match=r"header has 34,.* bytes, far more.*x\.safetensors"):
        read_safetensors(path)


def test_a_file_that_becomes_shorter_is_said(tmp_path):
    path = tmp_path / "x.safetensors"
    write_safetensors(path, [("x", np.ones(100))])
    tensor = read_safetensors(path)["x"]
    os.truncate(path, path.stat().st_size - 8)
    with pytest.raises(CheckpointError, match="truncated while"):
        tensor.read()
