import keras
import numpy as np
import pytest
import torch
import torch_reference

import keras_convnext
from keras_convnext import CheckpointError, convert, load_model

SHAPES = {"hierarchical": ((2, 1), (8, 16)), "isotropic": (2, 8)}


@pytest.fixture(params=SHAPES)
def checkpoint(request, tmp_path):
    kinds = {
        "hierarchical": torch_reference.Hierarchical,
        "isotropic": torch_reference.Isotropic,
    }
    network = torch_reference.randomize(
        kinds[request.param](*SHAPES[request.param], classes=5, kernel_size=5)
    )
    return torch_reference.save(network, tmp_path / "official.pth")


def outputs(model):
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    return model.predict(pixels, verbose=0)


def assert_same_weights(ours, theirs):
    assert [w.path for w in ours.weights] == [w.path for w in theirs.weights]
    for one, other in zip(ours.get_weights(), theirs.get_weights()):
        np.testing.assert_array_equal(one, other)


def test_the_network_is_told_by_the_file(checkpoint):
    model = load_model(checkpoint, input_shape=(64, 64, 3))
    assert model.output_shape == (None, 5)
    assert model.get_layer("norm")
    direct = {
        "stages_0_blocks_0": lambda: keras_convnext.ConvNeXt(
            (2, 1), (8, 16), kernel_size=5, classes=5, weights=checkpoint, input_shape=(64, 64, 3)
        ),
        "blocks_0": lambda: keras_convnext.ConvNeXtIsotropic(
            2, 8, kernel_size=5, classes=5, weights=checkpoint, input_shape=(64, 64, 3)
        ),
    }
    built = next(build for name, build in direct.items() if name in {x.name for x in model.layers})
    assert_same_weights(model, built())


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5", ".h5", ".safetensors", ".pth"])
def test_any_kind_becomes_any_other_and_comes_back(checkpoint, suffix, tmp_path):
    there, back = tmp_path / f"there{suffix}", tmp_path / "back.pth"
    convert(checkpoint, there)
    convert(there, back)
    ours = torch.load(back, weights_only=True)["model"]
    theirs = torch.load(checkpoint, weights_only=True)["model"]
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        {"official.pth", there.name, "back.pth"}
    )


@pytest.mark.parametrize("suffix", [".weights.h5", ".pth"])
def test_the_network_of_a_file_is_compared_with_the_one_asked_for(suffix, tmp_path):
    model = keras_convnext.ConvNeXtAtto(weights=None)
    path = tmp_path / f"atto{suffix}"
    keras_convnext.save_checkpoint(model, path)
    assert_same_weights(load_model(path, model="convnext_atto"), model)
    with pytest.raises(CheckpointError, match="checkpoint of convnext_atto, not of convnext_tiny"):
        load_model(path, model="convnext_tiny")


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5", ".safetensors", ".pth"])
def test_the_head_may_be_left_out(checkpoint, suffix, tmp_path):
    with_head = load_model(checkpoint, input_shape=(64, 64, 3))
    expected = outputs(keras.Model(with_head.input, with_head.get_layer("norm").output))
    convert(checkpoint, tmp_path / f"trunk{suffix}", include_top=False)
    options = {} if suffix == ".keras" else {"input_shape": (64, 64, 3)}
    trunk = load_model(tmp_path / f"trunk{suffix}", **options)
    np.testing.assert_allclose(outputs(trunk), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5", ".safetensors", ".pth"])
def test_weights_may_be_halved(checkpoint, suffix, tmp_path):
    before = keras.config.dtype_policy()
    whole, half = tmp_path / f"whole{suffix}", tmp_path / f"half{suffix}"
    convert(checkpoint, whole)
    convert(checkpoint, half, dtype="float16")
    assert half.stat().st_size < 0.95 * whole.stat().st_size
    assert keras.config.dtype_policy() == before


@pytest.mark.parametrize("target", ["x.onnx", "x.hdf", "x"])
def test_other_suffixes_are_refused(checkpoint, target, tmp_path):
    with pytest.raises(ValueError, match="target must end in"):
        convert(checkpoint, tmp_path / target)


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5", ".safetensors", ".pth"])
def test_a_target_that_cannot_be_written_leaves_nothing(checkpoint, suffix, tmp_path):
    folder = tmp_path / "locked"
    (folder / f"x{suffix}" / "in the way").mkdir(parents=True)
    with pytest.raises(OSError):  # noqa: PT011  (the system's own message)
        convert(checkpoint, folder / f"x{suffix}")
    assert [path.name for path in folder.iterdir()] == [f"x{suffix}"]


def test_progress_is_shown_of_what_is_read_and_of_what_is_written(checkpoint, tmp_path):
    shown = []

    def progress(tensors):
        shown.append(len(tensors))
        return tensors

    model = convert(checkpoint, tmp_path / "x.safetensors", progress=progress)
    assert shown == [len(model.weights)] * 2
