"""What people give for weights: pages, pointers, archives, models of other runtimes, addresses."""

import io
import json
import shutil
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

from keras_convnext.pretrained.checkpoint import open_checkpoint
from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.pretrained.identify import identify
from keras_convnext.pretrained.keras_file import read_config
from keras_convnext.pretrained.layouts import HEAD_KERNEL

WEIGHTS = Path(__file__).parents[2] / "weights" / "cifar10" / "convnext_cifar_32.safetensors"
SUFFIXES = (".pth", ".safetensors", ".keras", ".h5", ".weights.h5", ".bin", ".json", ".ckpt", "")
CONTENTS = {
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 9\n", "git lfs pull"),
    "page": (b"<!DOCTYPE html><html><title>Sign in</title></html>", "a web page"),
    "xml": (b"\n<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "a web page"),
    "empty": (b"", "The file is empty"),
    "gzip": (b"\x1f\x8b\x08" + bytes(99), "a compressed archive. Extract it"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(99), "an image or a document"),
    "litert": (b"\x1c\0\0\0TFL3" + bytes(99), "A LiteRT model"),
}


def refusal(path, **options):
    with pytest.raises((CheckpointError, FileNotFoundError)) as caught:
        identify(path, **options)
    return str(caught.value)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("content", "told"), CONTENTS.values(), ids=CONTENTS)
def test_the_suffix_does_not_hide_what_a_file_is(content, told, suffix, tmp_path):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    assert told in refusal(path)
    if suffix == ".keras":
        with pytest.raises(CheckpointError, match=told):
            read_config(path)


@pytest.mark.parametrize(("name", "told"), {
    "m.onnx": "An ONNX model", "saved_model.pb": "A TensorFlow graph", "m.gguf": "A GGUF file",
    "m.engine": "A TensorRT engine", "m.xml": "An OpenVINO model", "flax_model.msgpack": "A Flax",
    "w.npz": "A NumPy archive", "model.ckpt.index": "A TensorFlow checkpoint",
    "model.ckpt.data-00000-of-00001": "A TensorFlow checkpoint",
}.items())  # fmt: skip
def test_models_of_other_programs_are_named(name, told, tmp_path):
    (tmp_path / name).write_bytes(
        b"<?xml version='1.0'?><net/>" if "xml" in name else b"\x08\1\x12"
    )
    found = refusal(tmp_path / name)
    assert told in found
    assert ".safetensors" in found


@pytest.mark.parametrize(("address", "told"), {
    "https://example.org/convnext_tiny.pth": "Download the file first",
    "s3://timm/convnext_tiny": "Download the file first",
    "~/convnext_tiny.pth": "only a shell expands ~",
}.items())  # fmt: skip
def test_an_address_is_not_taken_for_a_file_that_is_missing(address, told):
    import keras_convnext

    assert told in refusal(address)
    with pytest.raises(FileNotFoundError, match=told):
        keras_convnext.load_model(address)
    with pytest.raises((FileNotFoundError, ValueError), match=told):
        keras_convnext.ConvNeXtAtto(weights=f"{address}.pth")


def test_the_name_of_a_tensorflow_checkpoint_is_no_file(tmp_path):
    (tmp_path / "model.ckpt.index").write_bytes(b"\0")
    assert "A TensorFlow checkpoint" in refusal(tmp_path / "model.ckpt")


def test_a_checkpoint_in_a_zip_archive_is_to_be_unpacked(tmp_path):
    held = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, held)
    with zipfile.ZipFile(tmp_path / "model.pth", "w") as archive:
        archive.writestr("weights/model.pth", held.getvalue())
    assert "Extract it" in refusal(tmp_path / "model.pth")


def test_a_folder_names_the_folders_in_it_that_hold_weights(tmp_path):
    snapshot = tmp_path / "models--timm--convnext" / "snapshots" / "abc"
    (tmp_path / "models--timm--convnext" / "refs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    shutil.copy(WEIGHTS, snapshot / "model.safetensors")
    assert "its subfolders: snapshots/abc" in refusal(tmp_path / "models--timm--convnext")


def test_control_characters_of_a_name_are_escaped(tmp_path):
    path = tmp_path / "a\nb\x1b[31m\u202e.pth"
    path.write_bytes(b"none")
    assert "a\\nb\\x1b[31m\\u202e.pth" in refusal(path)


def test_the_format_is_told_by_the_content(tmp_path):
    tensors = safetensors.numpy.load_file(WEIGHTS)
    torch.save({k: torch.tensor(v) for k, v in tensors.items()}, tmp_path / "torch.safetensors")
    assert identify(tmp_path / "torch.safetensors").variant.name == "convnext_cifar"
    config = {"pretrained_cfg": json.dumps(None), "input_size": "96"}
    safetensors.numpy.save_file(tensors, tmp_path / "model.bin", metadata=config)
    assert identify(tmp_path / "model.bin").size == 96


def test_an_entry_of_a_file_without_entries(tmp_path):
    assert "without entries: omit entry='model'" in refusal(WEIGHTS, entry="model")


@pytest.mark.parametrize(("changed", "told"), {
    "integers": (lambda name, array: (array * 100).astype("int8"), "of dtype int8"),
    "truth": (lambda name, array: array > 0, "of dtype bool"),
    "even": (lambda name, array: np.zeros((len(array), 1, 6, 6), "f")
             if "dwconv.weight" in name else array, "kernels of 6 x 6"),
}.values())  # fmt: skip
def test_what_no_convnext_holds_is_refused(changed, told, tmp_path):
    tensors = safetensors.numpy.load_file(WEIGHTS)
    changed = {name: changed(name, array) for name, array in tensors.items()}
    safetensors.numpy.save_file(changed, tmp_path / "m.safetensors")
    assert told in refusal(tmp_path / "m.safetensors")


@pytest.mark.parametrize(("value", "told"), {
    "numpy": (np.zeros(3, "f"), "contains NumPy arrays"),
    "meta": (torch.zeros(3, device="meta"), "on the meta device"),
}.values())  # fmt: skip
def test_what_stands_where_tensors_should_is_named(value, told, tmp_path):
    torch.save({"model": {"stem.0.weight": value}, "epoch": 3}, tmp_path / "m.pth")
    assert told in refusal(tmp_path / "m.pth")


def test_tensors_that_a_file_repeats_are_not_ignored(tmp_path):
    state = {k: torch.tensor(v) for k, v in safetensors.numpy.load_file(WEIGHTS).items()}
    torch.save({"state_dict": state, "best": dict(state)}, tmp_path / "m.pth")
    assert identify(tmp_path / "m.pth").ignored == ()


def test_float8_is_read_as_float32(tmp_path):
    state = {k: torch.tensor(v) for k, v in safetensors.numpy.load_file(WEIGHTS).items()}
    rounded = {name: tensor.to(torch.float8_e4m3fn) for name, tensor in state.items()}
    torch.save(rounded, tmp_path / "m.pth")
    found = open_checkpoint(tmp_path / "m.pth").sources[HEAD_KERNEL].read()
    assert found.dtype == "float32"
    np.testing.assert_array_equal(found.T, rounded["head.weight"].float().numpy())


@pytest.mark.parametrize(("patch", "overlaps"), [(4, False), (3, True), (7, True), (1, False)])
def test_a_stem_that_may_overlap_is_noticed(patch, overlaps, tmp_path):
    import keras_convnext

    options = {"include_top": False, "input_shape": (64, 64, 3), "patch_size": patch}
    model = keras_convnext.ConvNeXt((1, 1), (8, 16), **options)
    keras_convnext.save_checkpoint(model, tmp_path / "m.pth")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        keras_convnext.load_checkpoint(model, tmp_path / "m.pth")
    assert any("overlap" in str(each.message) for each in caught) == overlaps
