import hashlib

import numpy as np
import pytest
import torch
import torch_reference
from PIL import Image
from typer.testing import CliRunner

from keras_convnext import cli, verify
from keras_convnext.preprocessing import load_image
from keras_convnext.pretrained import catalog
from keras_convnext.pretrained.classifier_rows import COCO_LOGITS


@pytest.fixture(scope="module")
def network():
    return torch_reference.randomize(torch_reference.network("convnext_atto", classes=10))


@pytest.fixture
def path(network, tmp_path):
    return torch_reference.save(network, tmp_path / "atto.pth")


@pytest.fixture
def published(path, monkeypatch):
    """The same file, as if it were published with its digest."""
    digest = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    row = catalog.Checkpoint("convnext_atto", "toy", "official", "atto.pth", 10, 224, digest=digest)
    monkeypatch.setattr(catalog, "CATALOG", (row,))
    monkeypatch.setenv("KERAS_CONVNEXT_CACHE", str(path.parent))
    return path


def answers(findings):
    return {question: (passed, answer) for question, passed, answer in findings}


def test_a_file_that_is_not_published(path):
    found = answers(verify("convnext_atto", path))
    passed, answer = found["digest"]
    assert passed is None
    assert hashlib.sha256(path.read_bytes()).hexdigest() in answer
    assert found["network"] == (True, "convnext_atto, 10 classes, 3,377,730 parameters")
    assert found["numbers"] == (True, "all values are finite")
    assert "logits" not in found


@pytest.mark.parametrize("named", [True, False], ids=["by name", "by file"])
def test_a_published_file(published, named):
    found = answers(verify("convnext_atto", "toy" if named else published))
    assert found["digest"][0] is True
    assert all(passed for passed, _ in found.values())


def test_a_file_that_was_changed(published):
    content = bytearray(published.read_bytes())
    content[-3_000_000] ^= 1
    published.write_bytes(content)
    found = answers(verify("convnext_atto", "toy"))
    assert found["digest"][0] is False
    assert found["network"][0] is True
    assert found["numbers"][0] is False
    assert "damaged" in found["numbers"][1]


def test_a_number_that_is_not_finite(network, tmp_path):
    state = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    state["head.weight"][3, 4] = float("nan")
    torch.save({"model": state}, tmp_path / "x.pth")
    passed, answer = answers(verify("convnext_atto", tmp_path / "x.pth"))["numbers"]
    assert passed is False
    assert "head.weight" in answer


def test_another_network_and_a_missing_tensor(network, path, tmp_path):
    passed, answer = answers(verify("convnext_femto", path))["network"]
    assert passed is False
    assert "convnext_atto" in answer
    state = network.state_dict()
    del state["stages.1.0.norm.bias"]
    torch.save({"model": state}, tmp_path / "x.pth")
    passed, answer = answers(verify("convnext_atto", tmp_path / "x.pth"))["network"]
    assert passed is False
    assert "convnext_atto are missing from the checkpoint: stages_1_blocks_0/norm/beta" in answer


@pytest.mark.parametrize(
    "resized",
    [(224, 224), *(pytest.param(way, marks=pytest.mark.slow) for way in ((298, 224), (341, 256)))],
    ids=str,
)
def test_published_logits(published, network, monkeypatch, tmp_path, resized):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8))
    image.save(tmp_path / "coco.png")
    pixels = np.asarray(image.resize(resized, Image.Resampling.BICUBIC))
    normalized = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    with torch.no_grad():
        logits = network(torch.tensor(normalized[None], dtype=torch.float32).movedim(-1, 1))
    monkeypatch.setitem(COCO_LOGITS, "atto.pth", tuple(logits[0, :3].tolist()))
    assert answers(verify("convnext_atto", published, tmp_path / "coco.png"))["logits"][0] is True
    Image.fromarray(load_image(image)[::-1]).save(tmp_path / "other.png")
    passed, answer = answers(verify("convnext_atto", "toy", tmp_path / "other.png"))["logits"]
    assert passed is False
    assert "000000039769" in answer


def test_the_command(published):
    result = CliRunner().invoke(cli.app, ["verify", "toy", "--model", "convnext_atto"])
    assert result.exit_code == 0
    assert result.stdout.count("passed") == 3
    with open(published, "ab") as file:
        file.write(b"x")
    result = CliRunner().invoke(cli.app, ["verify", str(published), "--model", "convnext_atto"])
    assert result.exit_code == 1
    assert "failed" in result.stdout
