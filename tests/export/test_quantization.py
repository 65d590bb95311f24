"""What Keras' quantization keeps of the accuracy and the size of a network."""

import warnings

import keras
import numpy as np
import pytest
from battery import QUANTIZED
from test_photographs import cifar10  # noqa: F401  (a fixture)

import keras_convnext

LOST = {"int8": 0.003, "int4": 0.01}  # share of CIFAR-10's test images, at most


def quantized(model, mode):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one for each layer that has no quantized form
        model.quantize(mode)
    return model


@pytest.mark.slow
def test_a_quantized_network_is_no_larger_than_that_of_keras_applications(tmp_path):
    sizes = []
    for builder in (keras_convnext.ConvNeXtTiny, keras.applications.ConvNeXtTiny):
        quantized(builder(weights=None), "int8").save(tmp_path / "int8.keras")
        sizes.append((tmp_path / "int8.keras").stat().st_size)
    print("bytes of ours, and of keras.applications':", *sizes)
    assert sizes[0] <= sizes[1]


@pytest.mark.parametrize("make", [keras_convnext.export.fuse, None], ids=["fuse", "export"])
def test_fusing_and_exporting_come_before_quantizing(make, tmp_path):
    model = quantized(
        keras_convnext.ConvNeXt((1,), (8,), classes=3, input_shape=(32, 32, 3)), "int8"
    )
    with pytest.raises(ValueError, match="quantize"):
        make(model) if make else keras_convnext.export.export(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("mode", QUANTIZED)
def test_accuracy_on_the_test_images_of_cifar10(cifar10, mode):  # noqa: F811
    paths = sorted(cifar10.rglob("*.jpg")) or sorted(cifar10.rglob("*.jpeg"))
    pixels = keras_convnext.preprocessing.load_images(paths, 32)
    labels = np.unique([path.parent.name for path in paths], return_inverse=True)[1]
    model = keras_convnext.ConvNeXtCifar(weights="cifar10")

    def accuracy():
        return (model.predict(pixels, 100, verbose=0).argmax(axis=1) == labels).mean()

    before = accuracy()
    quantized(model, mode)
    after = accuracy()
    print(f"{mode}: {before:.2%} before, {after:.2%} after, of {len(pixels)} images")
    assert len(pixels) == 10_000
    assert before - after <= LOST[mode]
