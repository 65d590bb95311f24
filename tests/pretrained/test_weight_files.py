"""Files and folders of weights are opened by what is in them, whatever they are called."""

import io
import json
import os
import struct
import zipfile

import h5py
import numpy as np
import pytest
import safetensors.numpy
import torch
from torch import nn

import keras_convnext
from keras_convnext.pretrained.checkpoint import open_checkpoint
from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.placeholder import Placeholder
from keras_convnext.pretrained.safetensors_file import SafeTensor
from keras_convnext.pretrained.stored_tensor import StoredTensor
from keras_convnext.pretrained.weight_files import format_of, read

STEM = np.arange(6, dtype=np.float32).reshape(2, 3)
HEAD = np.ones(4, np.float32)
INDEX = "model.safetensors.index.json"


def torch_bytes(value, **options):
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def numbers(tree):
    """A tree with the numbers of its tensors, as lists."""
    if isinstance(tree, dict):
        return {key: numbers(value) for key, value in tree.items()}
    return tree if isinstance(tree, int | Placeholder) else tree.read().tolist()


STATE = {"stem": torch.tensor(STEM), "head": torch.tensor(HEAD)}
FORMATS = {
    "torch": torch_bytes(STATE),
    "legacy torch": torch_bytes(STATE, _use_new_zipfile_serialization=False),
    "safetensors": safetensors.numpy.save({"stem": STEM, "head": HEAD}),
}


@pytest.mark.parametrize("name", ["x.pth", "x.bin", "x.pt", "x.ckpt", "x.pth.tar", "x.h5", "x",
                                  "x.safetensors", "x.json"])  # fmt: skip
@pytest.mark.parametrize("form", FORMATS)
def test_the_format_is_told_by_the_content(form, name, tmp_path):
    path = tmp_path / name
    path.write_bytes(FORMATS[form])
    assert format_of(path) == form
    assert numbers(read(path)) == {"stem": STEM.tolist(), "head": HEAD.tolist()}


def test_an_hdf5_file_is_told_by_its_content(tmp_path):
    with h5py.File(tmp_path / "x.bin", "w") as file:
        file["layers/dense/vars/0"] = STEM
    assert format_of(tmp_path / "x.bin") == "hdf5"
    assert numbers(read(tmp_path / "x.bin")) == {"layers/dense/vars/0": STEM.tolist()}


DAMAGED = {
    "x.safetensors": "Not a valid safetensors file",
    "x.weights.h5": "Not a valid HDF5 file",
    "x.pth": "Not a PyTorch, safetensors or HDF5 file",
    "x.json": "Not a valid index of sharded weights",
}


@pytest.mark.parametrize(("name", "told"), DAMAGED.items(), ids=DAMAGED)
def test_a_damaged_file_is_what_its_name_says(name, told, tmp_path):
    (tmp_path / name).write_bytes(b"damaged" * 9)
    with pytest.raises(CheckpointError, match=told) as caught:
        read(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)


def test_an_absent_file_is_the_systems_own_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.pth"):
        read(tmp_path / "absent.pth")


# The older format of torch.


@pytest.mark.parametrize("protocol", [2, 4])
def test_an_older_file_of_torch_is_read(protocol, tmp_path):
    matrix = torch.arange(12.0).reshape(3, 4)
    network = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    saved = {
        "views": {"x": matrix, "t": matrix.t(), "part": matrix[1:, ::2]},
        "dtypes": {str(d): torch.arange(3).to(d) for d in (torch.bool, torch.bfloat16, torch.int8)},
        "empty": torch.zeros(0, 3),
        "network": network.state_dict(),
        "whole": network,
        "epoch": 3,
    }
    path = tmp_path / "x.pth"
    path.write_bytes(
        torch_bytes(saved, pickle_protocol=protocol, _use_new_zipfile_serialization=False)
    )
    loaded = read(path)
    assert list(loaded) == list(saved)
    for key, tensor in saved["views"].items():
        np.testing.assert_array_equal(loaded["views"][key].read(), tensor.numpy())
    for key, tensor in saved["dtypes"].items():
        np.testing.assert_array_equal(loaded["dtypes"][key].read(), tensor.float().numpy())
    assert loaded["empty"].read().shape == (0, 3)
    for key, tensor in network.state_dict().items():
        np.testing.assert_array_equal(loaded["network"][key].read(), tensor.numpy())
        np.testing.assert_array_equal(loaded["whole"][key].read(), tensor.numpy())


def test_an_older_file_cut_at_any_length_is_refused(tmp_path):
    content = FORMATS["legacy torch"]
    for length in range(40, len(content)):
        (tmp_path / "x.pth").write_bytes(content[:length])
        with pytest.raises(CheckpointError):
            read(tmp_path / "x.pth")


def older(old, new):
    content = FORMATS["legacy torch"]
    assert content.count(old) == 1
    return content.replace(old, new)


OLDER = {
    "unsafe": (older(b"ctorch\nFloatStorage", b"cos\nsystem"), "run code"),
    "big-endian": (older(b"little_endianq\x02\x88", b"little_endianq\x02\x89"), "big-endian"),
    "count": (older(struct.pack("<q", 6), struct.pack("<q", 2**62)), "truncated or damaged"),
    "negative count": (older(struct.pack("<q", 6), struct.pack("<q", -6)), "truncated or damaged"),
    "quantized": (older(b"FloatStorage", b"QInt8Storage"), "newer torch"),
    "version": (older(b"\x80\x02M\xe9\x03.", b"\x80\x02K\x01."), "before 0.4"),
    "tensor for a version": (
        older(b"\x80\x02M\xe9\x03.", b"\x80\x02)Q."),
        "where torch.save never",
    ),
}


@pytest.mark.parametrize(("content", "told"), OLDER.values(), ids=OLDER)
def test_a_damaged_older_file_is_refused(content, told, tmp_path):
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=told):
        read(tmp_path / "x.pth")


# Sharded weights.


def sharded(folder, suffix="safetensors", where=None):
    """Two shards with an index."""
    stem = "pytorch_model" if suffix == "bin" else "model"
    shards = {"stem": f"{stem}-00001-of-00002.{suffix}", "head": f"{stem}-00002-of-00002.{suffix}"}
    for key, shard in shards.items():
        array = {"stem": STEM, "head": HEAD}[key]
        content = torch_bytes({key: torch.tensor(array)}) if suffix == "bin" else (
            safetensors.numpy.save({key: array})
        )  # fmt: skip
        (folder / shard).write_bytes(content)
    index = folder / f"{stem}.{suffix}.index.json"
    where = shards if where is None else where
    index.write_text(json.dumps({"metadata": {"total_size": 40}, "weight_map": where}))
    return index


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_sharded_weights_are_read_from_the_index_or_the_folder(suffix, tmp_path):
    index = sharded(tmp_path, suffix)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "training_args.bin").write_bytes(torch_bytes(1))
    for path in (index, tmp_path, str(tmp_path)):
        assert numbers(read(path)) == {"stem": STEM.tolist(), "head": HEAD.tolist()}
        kind = SafeTensor if suffix == "safetensors" else StoredTensor
        assert all(type(tensor) is kind for tensor in read(path).values())


def test_one_shard_of_several_is_refused_beside_its_index(tmp_path):
    index = sharded(tmp_path)
    shard = tmp_path / "model-00001-of-00002.safetensors"
    with pytest.raises(CheckpointError, match=f"one of 2 shards .* {INDEX}"):
        read(shard)
    index.unlink()
    assert numbers(read(shard)) == {"stem": STEM.tolist()}


@pytest.mark.parametrize("kind", ["model", "optim"])
def test_a_part_of_deepspeeds_refers_to_the_folder(kind, tmp_path):
    path = tmp_path / f"zero_pp_rank_0_mp_rank_00_{kind}_states.pt"
    path.write_bytes(FORMATS["torch"])
    with pytest.raises(CheckpointError, match="Pass their folder"):
        read(path)


@pytest.mark.parametrize("shard", [
    "../model-00001-of-00002.safetensors", "/etc/passwd", "", ".", "..", "a/b", "a\\b", "C:b",
    "C:\\b", "a\0b", "\x1b[2J", "a\n", 1, None, ["x"], {}, f"./{INDEX}",
    "x" * 256, "é" * 128, "\ud800",
])  # fmt: skip
def test_an_index_names_plain_files_alone(shard, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(FORMATS["safetensors"])
    index = sharded(folder, where={"stem": shard})
    with pytest.raises(CheckpointError, match="may only name files in its own folder") as caught:
        read(index)
    assert str(caught.value).isprintable()


INDICES = {
    "no JSON": (b"{", "Not a valid index"),
    "not UTF-8": (b'{"\xff": 1}', "Not a valid index"),
    "UTF-16": ('{"weight_map": {"x": "list.pt"}}'.encode("utf-16-le"), "Not a valid index"),
    "deep": (b'{"x":' + b"[" * 200_000, "Not a valid index"),
    "list": (b"[]", "no weight_map"),
    "config": (b'{"hidden_sizes": [1, 2]}', "no weight_map"),
    "empty": (b'{"weight_map": {}}', "no weight_map"),
    "large": (b'{"weight_map": {}}' + b" " * (8 << 20), "no weight_map"),
    "long number": (b'{"x": ' + b"9" * 10_000 + b"}", "Not a valid index|no weight_map"),
    "itself": (json.dumps({"weight_map": {"x": INDEX}}).encode(), "cannot be an index itself"),
    "folder": (b'{"weight_map": {"x": "folder"}}', "shards are missing: folder"),
    "absent": (json.dumps({"weight_map": {str(i): f"{i}.bin" for i in range(9)}}).encode(),
               "9 of the 9 shards are missing: 0.bin, 1.bin, 2.bin and 6 more"),
    "tensor absent": (b'{"weight_map": {"x": "model-00001-of-00002.safetensors"}}',
                      "missing from the shards: x"),
    "tensor twice": (b'{"weight_map": {"x": "model-00001-of-00002.safetensors", "y": "copy"}}',
                     "the same tensors: stem"),
    "no dict": (b'{"weight_map": {"x": "list.pt"}}', "not a dict of tensors"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "told"), INDICES.values(), ids=INDICES)
def test_a_damaged_index_is_refused(content, told, tmp_path):
    index = sharded(tmp_path)
    (tmp_path / "copy").write_bytes((tmp_path / "model-00001-of-00002.safetensors").read_bytes())
    (tmp_path / "list.pt").write_bytes(torch_bytes([1]))
    (tmp_path / "folder").mkdir()
    index.write_bytes(content)
    with pytest.raises(CheckpointError, match=told) as caught:
        read(index)
    assert str(index) in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_shard_that_is_a_pipe_is_not_waited_for(tmp_path):
    index = sharded(tmp_path, where={"x": "pipe"})
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CheckpointError, match="shards are missing: pipe"):
        read(index)


# Folders.


def touch(folder, *names, content=FORMATS["torch"]):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


FOLDERS = {
    "hub": ("model.safetensors", "pytorch_model.bin", "tf_model.h5", "config.json", "README.md",
            "flax_model.msgpack", "preprocessor_config.json", ".gitattributes"),
    "hub before safetensors": ("pytorch_model.bin", "tf_model.h5", "config.json"),
    "trainer": ("model.safetensors", "optimizer.pt", "rng_state.pth", "training_args.bin"),
    "one file": ("epoch=3.ckpt", "config.yaml", "metrics.csv", "._x.pth", "events.tfevents"),
    "deepspeed": ("global_step5/mp_rank_00_model_states.pt",
                  "global_step5/zero_pp_rank_0_mp_rank_00_optim_states.pt", "zero_to_fp32.py"),
    "deepspeed step": ("mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_optim_states.pt"),
}  # fmt: skip


@pytest.mark.parametrize("names", FOLDERS.values(), ids=FOLDERS)
def test_the_weights_in_a_folder_are_found(names, tmp_path):
    touch(tmp_path, *names, content=b"nothing")
    touch(tmp_path, names[0])
    if names[0].startswith("global_step5"):
        (tmp_path / "latest").write_text("global_step5\n")
    assert numbers(read(tmp_path)) == {"stem": STEM.tolist(), "head": HEAD.tolist()}


REFUSED_FOLDERS = {
    "empty": ((), "contains no weight file.*Received: nothing"),
    "pictures": (("a.jpg", "\x1b[2J.txt"), r"no weight file.*Received: \\x1b\[2J.txt, a.jpg"),
    "several": (("a.pth", "b.pth", "c.ckpt"), "several weight files: a.pth, b.pth, c.ckpt"),
    "program": (("saved_model.pb",), "SavedModel"),
    "distributed": ((".metadata", "__0_0.distcp"), "dcp_to_torch"),
    "split": (("zero_pp_rank_0_mp_rank_00_model_states.pt",
               "zero_pp_rank_1_mp_rank_00_model_states.pt"), "zero_to_fp32.py"),
    "parallel": (("mp_rank_00_model_states.pt", "mp_rank_01_model_states.pt"), "zero_to_fp32.py"),
}  # fmt: skip


@pytest.mark.parametrize(("names", "told"), REFUSED_FOLDERS.values(), ids=REFUSED_FOLDERS)
def test_a_folder_of_something_else_is_explained(names, told, tmp_path):
    touch(tmp_path, *names)
    with pytest.raises(CheckpointError, match=told) as caught:
        read(tmp_path)
    assert f"folder: {tmp_path}" in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("step", ["..", "../elsewhere", "/tmp", "", "absent", "\x1b[2J", "x" * 300])
def test_the_latest_step_is_a_folder_in_the_folder(step, tmp_path):
    folder = tmp_path / "folder"
    touch(tmp_path, "mp_rank_00_model_states.pt", "elsewhere/mp_rank_00_model_states.pt")
    touch(folder, "latest", content=step.encode())
    with pytest.raises(CheckpointError, match="does not name a subfolder"):
        read(folder)


def test_a_folder_is_taken_wherever_a_file_is(tmp_path, monkeypatch):
    model = keras_convnext.ConvNeXt((1, 1), (8, 16), classes=3, input_shape=(32, 32, 3))
    folder = tmp_path / "imagenet"
    folder.mkdir()
    keras_convnext.save_checkpoint(model, folder / "model.safetensors", layout="transformers")
    assert keras_convnext.identify(folder).classes == 3
    monkeypatch.chdir(tmp_path)
    for loaded in (
        keras_convnext.load_model(folder),
        keras_convnext.load_model("imagenet"),
        keras_convnext.ConvNeXt((1, 1), (8, 16), weights=folder),
        keras_convnext.ConvNeXt((1, 1), (8, 16), weights="imagenet"),
    ):
        for ours, theirs in zip(loaded.get_weights(), model.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    keras_convnext.convert(folder, tmp_path / "x.pth")
    assert keras_convnext.identify(tmp_path / "x.pth").classes == 3


def test_a_folder_is_not_taken_for_published_weights_of_its_name(tmp_path, monkeypatch):
    """As `imagenet` is, which may be a folder of images."""
    (tmp_path / "imagenet").mkdir()
    monkeypatch.chdir(tmp_path)
    fetched = []
    monkeypatch.setattr(keras_convnext.builders, "ported_weights", fetched.append)
    monkeypatch.setattr(keras_convnext.loading, "model_file", fetched.append)
    keras_convnext.loading.checkpoint_file("imagenet", "convnext_tiny")
    keras_convnext.ConvNeXtTiny(weights="imagenet")
    assert [rows[0].tag for rows in fetched] == ["imagenet", "imagenet"]


def test_what_is_empty_is_explained(tmp_path):
    with pytest.raises(CheckpointError, match="contains no weight file"):
        open_checkpoint(tmp_path)
    torch.save({}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="contains no tensors"):
        open_checkpoint(tmp_path)


def test_another_zip_archive_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        file.writestr("arr_0.npy", b"")
    with pytest.raises(CheckpointError, match=r"not written by torch\.save"):
        read(tmp_path / "x.zip")
