"""Stems whose patches overlap, as timm's `*_ols` networks have them, against timm."""

import keras
import numpy as np
import pytest
import torch
import torch_reference
from test_layouts import DEPTHS, DIMS, output_of, read, timm, write

from keras_convnext import identify, load_checkpoint, save_checkpoint
from keras_convnext.builders import _builder
from keras_convnext.export import Artifact, export, fuse
from keras_convnext.variants import Variant

VARIANT = Variant("convnext", DEPTHS, DIMS, overlap=DIMS[0])


def toy(**options):
    options = {"include_preprocessing": False, "input_shape": (None, None, 3), **options}
    return _builder(VARIANT)(weights=None, classes=5, classifier_activation=None, **options)


@pytest.fixture(scope="module")
def network():
    return torch_reference.randomize(timm(conv_mlp=True, stem_type="overlap"))


@pytest.fixture
def path(network, tmp_path):
    return write(network.state_dict(), tmp_path / "theirs.safetensors")


def assert_close(ours, theirs):
    assert np.abs(ours - theirs).max() < 1e-5 * np.abs(theirs).max()


def test_numbers_are_timms_and_come_back_to_the_bit(network, path, tmp_path):
    model = toy()
    load_checkpoint(model, path)
    for sides in ((64, 64), (45, 67)):  # odd sides, too
        images = np.random.default_rng(0).normal(size=(2, *sides, 3)).astype("float32")
        assert_close(model.predict(images, verbose=0), output_of(network, images))
    assert model.get_layer("stem_conv").compute_output_shape((2, 45, 67, 3)) == (2, 12, 17, 8)
    save_checkpoint(model, tmp_path / "ours.pth", layout="timm")
    back = read(tmp_path / "ours.pth")
    assert back.keys() == network.state_dict().keys()
    for key, tensor in network.state_dict().items():
        assert torch.equal(back[key], tensor), key
    found = identify(path)
    assert (found.layout, found.variant.overlap, found.classes) == ("timm_overlap", 8, 5)
    assert found.parameters == model.count_params()


@pytest.mark.parametrize("name", ["x.weights.h5", "x.h5"])
def test_files_of_keras_are_read(name, path, tmp_path):
    model, again = toy(), toy()
    load_checkpoint(model, path)
    save_checkpoint(model, tmp_path / name)
    load_checkpoint(again, tmp_path / name)
    for ours, theirs in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    model.save(tmp_path / "x.keras")
    images = np.random.default_rng(0).normal(size=(1, 40, 40, 3)).astype("float32")
    loaded = keras.models.load_model(tmp_path / "x.keras")
    np.testing.assert_array_equal(loaded(images), model(images))


def test_gradients_are_timms(network, path):
    model = toy(input_shape=(32, 32, 3))
    load_checkpoint(model, path)
    images = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype("float32")
    import tensorflow as tf

    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(images, training=True) ** 2)
    stem = model.get_layer("stem_conv")
    found = tape.gradient(loss, [stem.kernel.value, stem.kernel_2.value, stem.bias_2.value])
    network.zero_grad()
    (network(torch.tensor(images).movedim(-1, 1)) ** 2).sum().backward()
    first, second = network.stem[0], network.stem[1]
    theirs = [w.grad.permute(2, 3, 1, 0).numpy() for w in (first.weight, second.weight)]
    for ours, expected in zip(found, [*theirs, second.bias.grad.numpy()], strict=True):
        assert np.abs(ours - expected).max() < 1e-4 * np.abs(expected).max()


def test_it_is_fused_and_exported(path, tmp_path):
    model = toy(include_preprocessing=True, input_shape=(64, 64, 3))
    load_checkpoint(model, path)
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 64, 64, 3)).astype("float32")
    expected = model.predict(pixels, verbose=0)
    assert_close(fuse(model).predict(pixels, verbose=0), expected)
    for format in ("onnx", "litert"):
        export(model, tmp_path / format, format, size=64)
        found = Artifact(tmp_path / format)(pixels)
        assert_close(found["logits"], expected)
