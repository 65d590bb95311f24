"""What torch saved is read to the bit, and torch reads to the bit what is written."""

import argparse
import math
import os
import tracemalloc
import zipfile
from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import nn

from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.placeholder import Placeholder
from keras_convnext.pretrained.stored_tensor import StoredTensor
from keras_convnext.pretrained.torch_file import read_torch_file
from keras_convnext.pretrained.torch_writer import write_torch_file

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex128,
          torch.complex64, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8,
          torch.bool]  # fmt: skip
READ_ONLY = [torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2,
             torch.float8_e4m3fnuz, torch.float8_e5m2fnuz]  # fmt: skip
MATRIX = torch.arange(24, dtype=torch.float32).reshape(4, 6).sin()
ONES = np.ones(4, np.float32)


def numpy_of(tensor):
    """The array with the bits of a tensor."""
    name = str(tensor.dtype).removeprefix("torch.")
    if hasattr(ml_dtypes, name):
        bits = torch.int16 if tensor.itemsize == 2 else torch.int8
        return tensor.view(bits).numpy().view(getattr(ml_dtypes, name))
    return tensor.detach().numpy()


def assert_same(ours, theirs):
    if isinstance(theirs, torch.Tensor):
        assert isinstance(ours, StoredTensor)
        array, expected = ours.read(), numpy_of(theirs)
        assert (array.dtype, array.shape) == (expected.dtype, expected.shape)
        assert array.tobytes() == expected.tobytes()
    elif isinstance(theirs, argparse.Namespace):
        assert type(ours) is Placeholder
        assert ours.name == "argparse.Namespace"
        assert_same(ours.attributes or {}, vars(theirs))
    elif isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        for key in theirs:
            assert_same(ours[key], theirs[key])
    elif isinstance(theirs, list | tuple):
        assert type(ours) is (list if isinstance(theirs, list) else tuple)
        assert len(ours) == len(theirs)
        for item, expected in zip(ours, theirs):
            assert_same(item, expected)
    else:
        assert type(ours) is type(theirs)
        assert ours == theirs


def training_checkpoint():
    """The entries that the official `utils.save_model` writes."""
    network = nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4), nn.GELU(), nn.Conv2d(4, 2, 1))
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.05)
    network(torch.randn(2, 3, 4, 4)).square().sum().backward()
    optimizer.step()
    assert network.state_dict()._metadata
    return {
        "model": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 299,
        "scaler": {},
        "args": argparse.Namespace(
            model="convnext_tiny", data_path="/data/imagenet/é", nb_classes=1000, seed=0, lr=4e-3,
            opt_betas=None, opt_eps=1e-8, distributed=True, crop_pct=None, gpu=-1, big=2**40,
            layers=["stem", ["head"]], size=(224, 224), inner=argparse.Namespace(empty={}),
        ),
        "model_ema": network.state_dict(),
    }  # fmt: skip


def nested_namespace():
    namespace = argparse.Namespace(rate=0.1)
    return {"args": namespace, "vars": vars(namespace), "empty": argparse.Namespace()}


SAVED = {
    "training": training_checkpoint(),
    "tensor": MATRIX,
    "list": [MATRIX, 1, "x", [None]],
    "none": None,
    "namespace": nested_namespace(),
    "dtypes": {
        str(dtype): torch.arange(-3, 3).to(dtype).reshape(2, 3) for dtype in DTYPES + READ_ONLY
    },
    "nonfinite": {"x": torch.tensor([math.nan, math.inf, -math.inf, -0.0, 1e-45])},
    "transposed": {"x": MATRIX.t(), "axes": torch.randn(2, 3, 4).permute(2, 0, 1)},
    "sliced": {"rows": MATRIX[1:3], "both": MATRIX[1:, 2:5], "steps": MATRIX[::2, ::3]},
    "expanded": {"x": torch.ones(1, 3).expand(5, 3), "0-d": torch.tensor(2.0).expand(3, 4)},
    "overlapping": {"x": torch.arange(9).unfold(0, 3, 1), "y": MATRIX.diagonal()},
    "empty": {"x": torch.zeros(0, 3), "y": torch.zeros(3, 0, 2), "z": torch.zeros(0)},
    "0-d": {"x": torch.tensor(5), "y": MATRIX[3, 4]},
    "shared": {"x": MATRIX, "same": MATRIX, "part": MATRIX[2], "flat": MATRIX.view(-1)},
    "channels_last": {"x": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)},
    "parameter": {"x": nn.Parameter(MATRIX), "frozen": nn.Parameter(MATRIX, requires_grad=False)},
    "ddp": OrderedDict({"module.head.weight": MATRIX, "module.head.bias": MATRIX[0]}),
    "size": {"shape": MATRIX.shape},
    "numbers": [0, -1, 255, 256, 65536, 2**31, -(2**31), 2**63, -(2**70), 0.1, math.inf, True],
    "many": {"list": list(range(3000)), "dict": {f"key {i}": i for i in range(3000)}},
    "text": {"é\n\x00": "x" * 70_000},
    "random": {"state": torch.get_rng_state()},
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("saved", SAVED.values(), ids=SAVED)
def test_what_torch_saved_is_read_to_the_bit(saved, protocol, tmp_path):
    path = tmp_path / "saved.v1..pth"
    torch.save(saved, path, pickle_protocol=protocol)
    assert_same(read_torch_file(path), saved)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_sets_come_as_lists(protocol, tmp_path):
    path = tmp_path / "saved.pth"
    torch.save([{1}, frozenset({2}), set(), frozenset()], path, pickle_protocol=protocol)
    assert read_torch_file(path) == [[1], [2], [], []]


class Labeled(torch.Tensor):
    """As fastai's tensors."""


def test_tensors_of_other_classes_are_read(tmp_path):
    parameter = nn.Parameter(MATRIX.clone())
    parameter.is_frozen = True
    saved = {"labeled": MATRIX.as_subclass(Labeled), "parameter": parameter}
    torch.save(saved, tmp_path / "saved.pth")
    loaded = read_torch_file(tmp_path / "saved.pth")
    for tensor in loaded.values():
        np.testing.assert_array_equal(tensor.read(), MATRIX.numpy())


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_tensors_that_numpy_cannot_have_become_placeholders(tmp_path):
    quantized = torch.quantize_per_tensor(MATRIX, 0.1, 0, torch.qint8)
    others = {
        "quantized": quantized,
        "sparse": MATRIX.to_sparse(),
        "meta": torch.empty(2, device="meta"),
        "conjugate": torch.ones(2, dtype=torch.complex64).conj(),
        "packed": torch.zeros(2, dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
    }
    torch.save({"weight": MATRIX, **others}, tmp_path / "saved.pth")
    loaded = read_torch_file(tmp_path / "saved.pth")
    assert_same(loaded.pop("weight"), MATRIX)
    assert {key: type(value) for key, value in loaded.items()} == dict.fromkeys(others, Placeholder)


def test_a_storage_is_read_as_such(tmp_path):
    torch.save(torch.ones(24).untyped_storage(), tmp_path / "saved.pth")
    storage = read_torch_file(tmp_path / "saved.pth")
    assert (storage.size, storage.dtype) == (96, np.uint8)


def test_tensors_are_read_when_asked_and_only_their_part(tmp_path):
    path = tmp_path / "saved.pth"
    torch.save(torch.zeros(1 << 22)[5:9], path)
    tracemalloc.start()
    tensor = read_torch_file(path)
    tensor.read()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20


def test_a_file_without_checksums_is_read(tmp_path):
    path = tmp_path / "saved.pth"
    recorded = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(SAVED["training"], path)
    finally:
        torch.serialization.set_crc32_options(recorded)
    assert not any(entry.CRC for entry in zipfile.ZipFile(path).infolist())
    saved = read_torch_file(path)
    assert_same(saved, SAVED["training"])
    for tensor in saved["model"].values():
        pieces = b"".join(piece.tobytes() for piece in tensor.pieces(3))
        assert pieces == tensor.read().tobytes()


def test_a_file_cut_after_it_was_opened_is_refused(tmp_path):
    path = tmp_path / "saved.pth"
    torch.save(MATRIX, path)
    tensor = read_torch_file(path)
    os.truncate(path, 100)
    with pytest.raises(CheckpointError, match="was truncated while it was being read"):
        tensor.read()


# Writer.


def test_torch_loads_what_is_written_to_the_bit(tmp_path):
    generator = np.random.default_rng(0)
    numbers = generator.normal(size=(4, 6)) * 50
    arrays = {str(dtype): numbers.astype(numpy_of(torch.zeros(1, dtype=dtype)).dtype)
              for dtype in DTYPES}  # fmt: skip
    arrays |= {
        "transposed": numbers.T,
        "strided": numbers[::2, 1:4],
        "broadcast": np.broadcast_to(np.float32(2), (3, 2)),
        "0-d": np.array(3.0),
        "empty": np.zeros((0, 3), np.float32),
        "é": ONES,
    }
    path = tmp_path / "written.pth"
    write_torch_file(path, arrays.items(), key="ema")
    for mmap in (False, True):
        loaded = torch.load(path, weights_only=True, mmap=mmap)["ema"]
        assert list(loaded) == list(arrays)
        for key, array in arrays.items():
            theirs = numpy_of(loaded[key])
            assert loaded[key].is_contiguous()
            assert (theirs.dtype, theirs.shape) == (array.dtype, array.shape)
            assert theirs.tobytes() == array.tobytes()
    assert zipfile.ZipFile(path).testzip() is None
    ours = read_torch_file(path)["ema"]
    assert all(ours[key].read().tobytes() == array.tobytes() for key, array in arrays.items())


def test_another_byte_order_is_written_as_ours(tmp_path):
    write_torch_file(tmp_path / "written.pth", [("x", ONES.astype(">f4"))], key=None)
    assert torch.load(tmp_path / "written.pth")["x"].tolist() == ONES.tolist()


@pytest.mark.parametrize("dtype", ["clongdouble", "float8_e4m3fn", "uint32", "O", "U3"])
def test_a_dtype_without_a_place_in_the_file_is_told(dtype, tmp_path):
    array = ONES.astype(getattr(ml_dtypes, dtype, dtype))
    with pytest.raises(
        ValueError, match=r"supports the dtypes float64, .* bool\. Received: x of dtype \w"
    ):
        write_torch_file(tmp_path / "written.pth", [("first", ONES), ("x", array)])
    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    def tensors():
        yield "first", ONES
        raise RuntimeError("no more")

    path = tmp_path / "written.pth"
    with pytest.raises(RuntimeError, match="no more"):
        write_torch_file(path, tensors())
    assert not list(tmp_path.iterdir())
    path.write_text("older")
    with pytest.raises(RuntimeError, match="no more"):
        write_torch_file(path, tensors())
    assert path.read_text() == "older"
    assert list(tmp_path.iterdir()) == [path]
