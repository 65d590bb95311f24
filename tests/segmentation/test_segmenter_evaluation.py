"""Folders of images with masks, scored with `evaluate` and by the command."""

import json
import shutil

import keras
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix
from test_segmenter_files import run
from test_upernet import CHECKPOINT

from keras_convnext import load_model
from keras_convnext.data.errors import DataError
from keras_convnext.pretrained.record import Record, add_record
from keras_convnext.segmentation import (
    EvaluationError,
    evaluate,
    evaluation,
    open_pairs,
    predict_classes,
)

NAMES = ("road", "sky", "car", "tree", "wall")
WINDOWS = {"scale": None, "crop": 64, "stride": 40}


@pytest.fixture(scope="module")
def model():
    return load_model(CHECKPOINT)


@pytest.fixture(scope="module")
def compiled(model):
    """The model without its activation, which is compiled once for all evaluations."""
    return keras.Model(model.input, model.layers[-1].input)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Six images of two sizes whose masks have the classes 0 to 4, and 5, which has no class."""
    folder = tmp_path_factory.mktemp("data") / "streets"
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind / "val").mkdir(parents=True)
    for number in range(6):
        size = (40 + 25 * (number % 2), 60)
        pixels = rng.integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(pixels).save(folder / "images" / "val" / f"{number}.png")
        mask = rng.integers(0, 6, size, np.uint8)
        mask[0, :5] = range(5)
        Image.fromarray(mask).save(folder / "masks" / "val" / f"{number}.png")
    (folder / "classes.txt").write_text("\n".join((*NAMES, "void")) + "\n")
    return folder


def expected(model, source, indices):
    """The IoU of each class, by scikit-learn."""
    total = 0
    for index in indices:
        image, labels = source.arrays(index)
        found = predict_classes(model, image, crop=64, stride=40)
        scored = labels >= 0
        total = total + confusion_matrix(labels[scored], found[scored], labels=range(5))
    return np.diag(total) / (total.sum(0) + total.sum(1) - np.diag(total))


def test_a_folder_is_scored(model, compiled, folder):
    source = open_pairs(folder, "val")
    scores = evaluate(model, source, **WINDOWS)
    np.testing.assert_allclose(scores.ious, expected(compiled, source, range(6)), rtol=1e-6)
    sample = evaluate(compiled, source, **WINDOWS, limit=2)
    chosen = np.random.default_rng(0).permutation(6)[:2]
    np.testing.assert_allclose(sample.ious, expected(compiled, source, chosen), rtol=1e-6)


def test_classes_are_matched_by_name(compiled, folder):
    source = open_pairs(folder, "val")
    ordered = evaluate(compiled, source, **WINDOWS, names=NAMES)
    turned = evaluate(compiled, source, **WINDOWS, names=NAMES[::-1])
    own = evaluate(
        compiled,
        [(image, np.where(labels < 0, 255, 4 - labels)) for image, labels in
         map(source.arrays, range(6))],
        **WINDOWS,
    )  # fmt: skip
    assert turned == own != ordered
    with pytest.raises(DataError, match=r"does not have: wall\. Received"):
        evaluate(compiled, source, **WINDOWS, names=(*NAMES[:4], "house"))


def test_an_interrupted_evaluation_is_resumed(compiled, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(evaluation, "_SAVED_AFTER", 2)
    source = open_pairs(folder, "val")
    whole = evaluate(compiled, source, **WINDOWS)
    seen = []

    def stop(done, total):
        seen.append((done, total))
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(compiled, source, **WINDOWS, output=tmp_path, progress=stop)
    seen.clear()
    found = evaluate(
        compiled, source, **WINDOWS, output=tmp_path, progress=lambda *told: seen.append(told)
    )
    assert found == whole
    assert seen == [(3, 6), (4, 6), (5, 6), (6, 6)]
    seen.clear()
    again = evaluate(
        compiled, source, **WINDOWS, output=tmp_path, progress=lambda *told: seen.append(told)
    )
    assert (again, seen) == (whole, [])
    for change in ({"stride": 30}, {"limit": 3}, {"ratios": (1.0,)}):
        with pytest.raises(EvaluationError, match="an evaluation with another"):
            evaluate(compiled, source, **{**WINDOWS, **change}, output=tmp_path)
    (tmp_path / "state.json").write_text('{"counts": [[1], [1], [1]], "images": 2}')
    with pytest.raises(EvaluationError, match="damaged: it has other classes"):
        evaluate(compiled, source, **WINDOWS, output=tmp_path)


def test_the_command(model, folder, tmp_path):
    weights, output = tmp_path / "mine.keras", tmp_path / "scored"
    model.save(weights)
    add_record(
        weights,
        Record("segmentation", NAMES, {"scale": [120, 80], "window": 64, "stride": 40}),
    )
    asked = ("evaluate", folder, "--weights", weights, "--split", "val")
    ran = run(*asked, "--output", output)
    assert ran.exit_code == 0, ran.output
    scores = evaluate(model, open_pairs(folder, "val"), **{**WINDOWS, "scale": (120, 80)})
    assert f"mIoU                   {scores.mean_iou:.2%}" in ran.stdout
    assert "5 classes" in ran.stderr
    lines = (output / "classes.csv").read_text().splitlines()
    assert lines[0] == "class,iou,accuracy"
    assert float(lines[3].split(",")[1]) == scores.ious[2]
    shown = json.loads(run(*asked, "--json").stdout)
    assert shown == {
        **json.loads((output / "scores.json").read_text()),
        "images_per_second": shown["images_per_second"],
    }
    assert shown["classes"][2] == {
        "name": "car", "iou": scores.ious[2], "accuracy": scores.accuracies[2]
    }  # fmt: skip
    several = json.loads(run(*asked, "--multi-scale", "--limit", 1, "--json").stdout)
    assert several["images"] == 1
    refused = run(*asked, "--confusion", tmp_path / "c.png")
    assert refused.exit_code == 2
    assert "has no meaning with a segmenter" in refused.stderr


def test_more_classes_than_the_model_has(model, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "more")
    (tmp_path / "more" / "classes.txt").write_text("\n".join((*NAMES, "house")) + "\n")
    with pytest.raises(DataError, match="The model has 5 classes, and the data 6"):
        evaluate(model, open_pairs(tmp_path / "more", "val"), **WINDOWS)
