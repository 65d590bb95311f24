"""Published sizes on real photographs, of which the repository has too few."""

import tarfile
from pathlib import Path

import keras
import numpy as np
import pytest
from test_fusing import randomize

import keras_convnext
from keras_convnext.export import Artifact, export
from keras_convnext.export.formats import FORMATS

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    archive = SHARED / "imagenet_samples.tar"
    if not archive.is_file():
        pytest.skip("needs the sample photographs")
    folder = tmp_path_factory.mktemp("photographs")
    with tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(FORMATS))
@pytest.mark.parametrize("name", ["ConvNeXtTiny", "ConvNeXtIsotropicSmall"])
def test_photographs_get_the_same_five_classes(photographs, name, kind, tmp_path):
    keras.utils.set_random_seed(0)
    model = randomize(getattr(keras_convnext, name)(weights=None))
    difference = export(model, tmp_path / "out", kind, images=photographs)
    print(name, kind, difference)
    assert difference.error < (1e-5 if kind == "saved_model" else 1e-4)
    assert (difference.same_top5, difference.images) == (1.0, 96)


@pytest.fixture(scope="module")
def cifar10(tmp_path_factory):
    archive = SHARED / "cifar10_jpeg.tar.gz"
    if not archive.is_file():
        pytest.skip("needs the images of CIFAR-10")
    folder = tmp_path_factory.mktemp("cifar10")
    with tarfile.open(archive) as file:
        members = [member for member in file if "/test/" in f"/{member.name}"]
        file.extractall(folder, members, filter="data")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "dtype", "least"),
    [
        ("litert", "int8", 0.97),
        ("onnx", "int8", 0.97),
        ("openvino", "int8", 0.97),
        ("openvino", "bfloat16", 0.99),  # which it calculates in, where the processor can
    ],
)
def test_fewer_bits_agree_on_the_test_images_of_cifar10(cifar10, kind, dtype, least, tmp_path):
    model = keras_convnext.ConvNeXtCifar(weights="cifar10")
    export(model, tmp_path / "float32", kind)
    export(model, tmp_path / dtype, kind, dtype=dtype, images=cifar10)
    paths = sorted(cifar10.rglob("*.jpg")) or sorted(cifar10.rglob("*.jpeg"))
    pixels = keras_convnext.preprocessing.load_images(paths, 32)
    assert len(pixels) == 10_000
    names = [path.parent.name for path in paths]
    labels = np.unique(names, return_inverse=True)[1]
    best = {}
    for kept in ("float32", dtype):
        artifact = Artifact(tmp_path / kept)
        batches = [artifact(pixels[i : i + 50])["logits"] for i in range(0, len(pixels), 50)]
        best[kept] = np.concatenate(batches).argmax(axis=1)
    weights = {"openvino": "model.bin"}.get(kind, FORMATS[kind].file)
    sizes = [(tmp_path / kept / weights).stat().st_size for kept in (dtype, "float32")]
    agreement = (best[dtype] == best["float32"]).mean()
    accuracies = [f"{100 * (answers == labels).mean():.2f} %" for answers in best.values()]
    print(kind, dtype, f"agreement {agreement:.4f}, bytes {sizes[0] / sizes[1]:.3f}", *accuracies)
    assert agreement >= least
    assert sizes[0] < {"int8": 0.3, "bfloat16": 0.52}[dtype] * sizes[1]
