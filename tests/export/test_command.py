"""The command `export`, as it is typed."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch_reference
from artifacts import error_of
from test_cli import run

import keras_convnext
from keras_convnext.cli.terminal import Bar
from keras_convnext.export import Artifact
from keras_convnext.export.formats import FORMATS
from keras_convnext.preprocessing import class_labels, load_images
from keras_convnext.pretrained.digests import file_digest

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"


def fails(*arguments):
    """The message of a command that fails as `main` would print it."""
    result = run("export", *arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    return result.stderr


def test_what_comes_with_the_package_leaves_in_one_command(tmp_path, monkeypatch):
    steps = []
    monkeypatch.setattr(Bar, "update", lambda bar, done, total: steps.append((done, total)))
    result = run(
        "export", "--model", "convnext_cifar", "--weights", "cifar10", "--format", "onnx",
        "--pixels", "uint8", tmp_path / "out",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    photographs = len(list(PHOTOS.glob("*.jpg")))
    assert steps[-1] == (photographs, photographs)
    size = sum(file.stat().st_size for file in (tmp_path / "out").iterdir()) / 1e6
    assert f"Wrote {tmp_path / 'out' / 'model.onnx'}: {size:.1f} MB in total" in result.stderr
    for part in ("images compared", "same five classes", "100.0%"):
        assert part in result.stdout
    told = json.loads((tmp_path / "out" / "export.json").read_text())
    weights = PHOTOS.parents[1] / "weights" / "cifar10" / told["source"]["file"]
    assert told["source"] == {
        "weights": "cifar10",
        "file": "convnext_cifar_32.safetensors",
        "sha256": file_digest(weights),
    }
    assert told["classes"] == (weights.with_name("classes.txt")).read_text().split()
    pixels = load_images(PHOTOS.glob("*.jpg"), 32)
    model = keras_convnext.ConvNeXtCifar()
    assert size == pytest.approx(4 * model.count_params() / 1e6, rel=0.02)
    assert error_of(Artifact(tmp_path / "out")(pixels)["logits"], model, pixels) < 1e-4


def test_random_weights_and_a_size_of_choice(tmp_path):
    for options, shape in ((["--size", "48"], (48, 48)), (["--any-size"], (40, 72))):
        out = tmp_path / options[0]
        arguments = ("--model", "convnext_cifar", "--weights", "none", "--format", "onnx")
        result = run("export", *arguments, *options, out)
        assert result.exit_code == 0, result.output
        artifact = Artifact(out)
        assert artifact(np.zeros((2, *shape, 3)))["probabilities"].shape == (2, 1000)
        assert artifact.manifest["source"] == {"weights": "random, seed 0"}
        assert artifact.names[0] == class_labels(1000)[0][1]


def test_what_does_not_fit_is_said_and_leaves_nothing(tmp_path):
    atto = torch_reference.network("convnext_atto", classes=10)
    checkpoint = torch_reference.save(torch_reference.randomize(atto), tmp_path / "atto.pth")
    out = tmp_path / "out"
    cases = {
        "is a checkpoint of convnext_atto": ("--model", "convnext_tiny", "--weights", checkpoint),
        "name it with --model": ("--weights", "none"),
        "no such file": ("--weights", tmp_path / "nowhere.pth"),
        "format must be one of saved_model": ("--weights", checkpoint, "--format", "caffe"),
        "must be one of": ("--weights", checkpoint, "--dtype", "int8"),
    }
    for said, arguments in cases.items():
        assert said in fails(*arguments, out)
    assert "has no published weights of this name" in fails(
        "--model", "convnext_tiny", "--weights", "x", out
    )
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", list(keras_convnext.variants.VARIANTS))
@pytest.mark.parametrize("kind", list(FORMATS))
def test_every_network_leaves_in_every_format(name, kind, tmp_path):
    arguments = ("--model", name, "--weights", "none", "--size", "64", "--format", kind)
    result = run("export", *arguments, tmp_path / "out")
    assert result.exit_code == 0, result.exception
