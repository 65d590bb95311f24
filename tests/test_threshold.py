"""The script that measured the least probability of the shipped weights."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_convnext.pretrained.catalog import list_weights

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "weights" / "cifar10" / "measure_threshold.py"
PHOTOS = ROOT / "examples" / "photos"


@pytest.fixture(scope="module")
def script():
    return runpy.run_path(str(SCRIPT))


def test_auroc_is_how_often_an_image_inside_scores_higher(script):
    auroc = script["auroc"]
    inside, outside = np.array([0.9, 0.5, 0.5]), np.array([0.1, 0.5, 0.95])
    wins = (inside[:, None] > outside).mean() + (inside[:, None] == outside).mean() / 2
    assert auroc(inside, outside) == pytest.approx(wins)
    assert auroc(np.ones(3), np.zeros(2)) == 1


def test_scores_are_higher_for_what_is_surer(script):
    rng = np.random.default_rng(0)
    known = rng.normal(size=(10, 1, 16)) * 4 + rng.normal(size=(10, 40, 16))
    known = known.reshape(-1, 16)
    logits = np.repeat(np.eye(10), 40, axis=0) * 5
    outputs = script["Outputs"]
    training = outputs(logits, known, np.ones(400, bool))
    sure = outputs(np.eye(10)[:1] * 5, known[:1], np.ones(1, bool))
    unsure = outputs(np.eye(10)[:1], known[:1] + 9 * rng.normal(size=16), np.ones(1, bool))
    for name, score in script["scores"](training).items():
        if name != "norm of features":
            assert score(sure) > score(unsure), name


def test_it_prints_what_is_flagged(script, tmp_path, monkeypatch, capsys):
    for name, place in {
        "espresso": "outside", "rocket": "outside", "cat": "inside/cat", "dog": "inside/dog",
        "kingfisher": "inside/bird",
    }.items():  # fmt: skip
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        Image.open(PHOTOS / f"{name}.jpg").save(tmp_path / place / f"{name}.png")
    given = ["--choose", tmp_path / "outside", "--inside", tmp_path / "inside"]
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), *map(str, given)])
    script["main"]()
    printed = capsys.readouterr().out
    assert f"{tmp_path / 'inside'}: 3 inside, 100.0% right" in printed
    assert "| largest probability | 1.000 |" in printed
    least = list_weights("convnext_cifar")[0].least_probability
    assert f"| largest probability | {least:.3f} | 100.0% | 0.0% |  |" in printed
