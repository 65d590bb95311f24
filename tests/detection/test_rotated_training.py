"""Training of detectors of rotated boxes: augmentation, batches, recipes, and runs."""

import csv
import json
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from drawn_rotated import draw
from PIL import Image
from typer.testing import CliRunner

from keras_convnext import cli, identify
from keras_convnext.data.errors import DataError
from keras_convnext.detection import open_rotated, to_points
from keras_convnext.detection.rotated import RECIPES, plan, recipe_for, task
from keras_convnext.detection.rotated.input import (
    augmented,
    open_training_data,
    training_batches,
    training_tile,
)
from keras_convnext.detection.rotated.recipes import Input
from keras_convnext.memory_errors import OutOfMemoryError
from keras_convnext.training.layout import Layout

SMALL = {
    "start": None, "size": 64, "overlap": 16, "batch_size": 2, "device_batch": 2, "channels": 8,
    "drop_path_rate": 0.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rotated")
    draw(folder / "train", 6, side=64)
    draw(folder / "val", 3, side=64, seed=1)
    return folder


@pytest.mark.parametrize("seed", range(4))
def test_boxes_move_with_the_pixels(seed):
    random = np.random.default_rng(seed)
    pixels = np.zeros((40, 70, 3), np.uint8)
    box = np.array([[30.5, 12.5, 21, 3, 0]])  # covers whole pixels
    pixels[11:14, 20:41] = 255
    own = Input(horizontal_flip=0.5, vertical_flip=0.5, quarter_turns=0.5)
    found, (moved,) = augmented(pixels, box, random, own)
    rows, columns = np.nonzero(found[..., 0])
    corners = to_points(moved)
    np.testing.assert_allclose(corners.min(0), [columns.min(), rows.min()], atol=1e-9)
    np.testing.assert_allclose(corners.max(0), [columns.max() + 1, rows.max() + 1], atol=1e-9)


def test_batches_are_padded_and_resume(data):
    recipe = recipe_for("detect_rotated_small", "convnext_atto", SMALL)
    training, validation = open_training_data(data, None, recipe)
    assert (training.size, len(validation.pictures)) == (6, 3)
    layout = Layout(0, 1, 1, 2, 1)
    batches = list(training_batches(training, recipe, layout).take(5))
    for (boxes, images, labels, sizes), _ in batches:
        assert images.shape == (2, 64, 64, 3)
        assert boxes.shape == (2, labels.shape[1], 5)
        assert (labels.numpy().max(1) >= 0).all()
        assert sizes.numpy().tolist() == [[64, 64]] * 2
        angles = boxes.numpy()[labels.numpy() >= 0][:, 4]
        assert (angles >= -np.pi / 4 - 1e-6).all()
        assert (angles < 3 * np.pi / 4 + 1e-6).all()
    resumed = next(iter(training_batches(training, recipe, layout, first_update=4)))
    for one, other in zip(resumed[0], batches[4][0]):
        np.testing.assert_array_equal(one, other)


def test_tiles_are_cut_while_training(data, tmp_path):
    recipe = recipe_for("detect_rotated_small", "convnext_atto", SMALL | {"size": 32})
    whole, _ = open_training_data(data, None, recipe)
    assert whole.size > 6
    assert all(part.objects for part in whole.parts)
    index = next(i for i, part in enumerate(whole.parts) if part.tile.left and part.tile.top)
    tile = whole.parts[index].tile
    pixels = np.asarray(Image.open(whole.parts[index].picture.path))
    expected = pixels[tile.top : tile.top + 32, tile.left : tile.left + 32]
    np.testing.assert_array_equal(whole.pixels(index), expected)
    assert f"({tile.left}, {tile.top})" in whole.name_of(index)
    pixels, boxes, labels = training_tile(whole, recipe, index, 0, 0)
    assert pixels.shape == (32, 32, 3)
    assert len(boxes) == len(labels) == len(whole.parts[index].objects)
    most = recipe_for("detect_rotated_small", "convnext_atto", SMALL | {"most_objects": 1})
    assert all(len(training_tile(whole, most, i, 0, 0)[2]) == 1 for i in range(3))
    small = recipe_for("detect_rotated_small", "convnext_atto", SMALL | {"shortest_edge": 99.0})
    with pytest.raises(DataError, match="No image has an object"):
        open_training_data(data, None, small)
    held = recipe_for("detect_rotated_small", "convnext_atto", SMALL)
    training, validation = open_training_data(data / "train", None, held)
    assert (training.size, len(validation.pictures)) == (5, 1)


def test_recipes_are_those_of_the_sources():
    gfl, retina, kld = (
        recipe_for(name, "convnext_tiny") for name in ("dota_gfl_retina", "dota_retina", "dota_kld")
    )
    for own in (gfl, retina, kld):
        assert (own.optimizer.learning_rate, own.optimizer.weight_decay) == (1e-4, 0.05)
        assert own.optimizer.clip_norm == 35
        assert (own.schedule.epochs, own.schedule.milestones) == (12, (8, 11))
        assert (own.batch.batch_size, own.network.drop_path_rate) == (2, 0.4)
        assert own.network.start == "imagenet_no_ema"
        assert own.input.size == 1024
    assert (gfl.network.regression, gfl.loss.assigner, gfl.loss.box) == (
        "expectation", "atss", "iou_log",
    )  # fmt: skip
    assert (gfl.schedule.warmup_updates, gfl.schedule.warmup_start) == (500, 1e-3)
    assert (gfl.input.overlap, gfl.input.horizontal_flip) == (512, 0.5)
    assert (retina.network.regression, retina.loss.assigner, retina.network.convention) == (
        "direct", "iou", "le135",
    )  # fmt: skip
    assert (kld.loss.box, kld.loss.weight, kld.network.convention) == ("kld", 5.5, "le90")
    assert (kld.input.overlap, kld.schedule.warmup_updates) == (200, 1000)
    with pytest.raises(ValueError, match=r"box must be one of iou_log, .* Received: box='giou"):
        recipe_for("dota_kld", "convnext_tiny", {"box": "giou"})
    with pytest.raises(ValueError, match=r"overlap must be below input\.size"):
        recipe_for("dota_kld", "convnext_tiny", {"size": 128})
    with pytest.raises(ValueError, match="size must be a multiple of 32"):
        recipe_for("dota_kld", "convnext_tiny", {"size": 1000})
    assert len(RECIPES) == 4


def test_runs_are_planned():
    planned = [
        plan(recipe_for(name, "convnext_tiny"), "convnext_tiny", 15_000, 1, "a100-80gb")
        for name in ("dota_gfl_retina", "dota_retina")
    ]
    assert [own.updates for own in planned] == [90_000, 90_000]
    assert all(own.fits for own in planned)
    assert planned[1].flops_per_image > planned[0].flops_per_image  # nine anchors
    assert all(4e9 < own.memory.total < 40e9 for own in planned)
    with pytest.raises(ValueError, match="images"):
        plan(recipe_for("dota_kld", "convnext_tiny"), "convnext_tiny", None, 1, "a100-80gb")


def test_too_little_memory_is_told_with_what_needs_less(data, tmp_path, monkeypatch):
    def fit(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(task, "fit", fit)
    with pytest.raises(OutOfMemoryError, match=r"atto at 64 px.*--set device_batch=1 \(0"):
        task.train("detect_rotated_small", "convnext_atto", data, tmp_path / "run", SMALL)


PROGRAM = """
import os, signal
from keras_convnext.detection.rotated import train
from keras_convnext.training import journal
data, output, settings, stop = {arguments!r}
original = journal.Journal.on_train_batch_end
def end(self, batch, logs=None):
    original(self, batch, logs)
    if self.progress.updates == stop:
        os.kill(os.getpid(), signal.SIGKILL)
journal.Journal.on_train_batch_end = end
train("detect_rotated_small", "convnext_atto", data, output, settings)
"""


def run(data, output, stop=None, code=0):
    settings = SMALL | {
        "updates": 6, "epochs": None, "warmup_epochs": 0, "evaluation_updates": 3,
        "save_updates": 1, "drop_path_rate": 0.1,
    }  # fmt: skip
    program = PROGRAM.format(arguments=(str(data), str(output), settings, stop))
    # With several, a sum of gradients begins with the one whose memory is free first, which rounds
    # the gradients of the overlap differently from run to run.
    environment = {**os.environ, "TF_NUM_INTEROP_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment
    )
    assert done.returncode == code, done.stderr[-3000:]


@pytest.mark.slow
def test_a_run_resumes_and_predicts(data, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run(data, whole)
    run(data, killed, stop=4, code=-9)
    run(data, killed)
    ours, theirs = (keras.models.load_model(each / "final.keras") for each in (killed, whole))
    for one, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert (killed / "log.csv").read_text() == (whole / "log.csv").read_text()
    (first, *_) = csv.DictReader((whole / "log.csv").read_text().splitlines())
    assert {"class_loss", "box_loss", "no_gradient", "size_spread", "val_ap50"} <= first.keys()
    found = identify(whole / "final.keras")
    assert found.task == "detection.rotated"
    assert found.class_names == open_rotated(data, "train").classes
    assert found.preprocessing["tile"] == 64

    weights = ["--weights", str(whole / "final.keras"), "--json"]
    picture, folder = tmp_path / "found.png", tmp_path / "submission"
    options = ["--threshold", "0.0", "--picture", str(picture), "--submission", str(folder)]
    done = CliRunner().invoke(
        cli.app, ["predict", str(data / "val" / "images"), *weights, *options]
    )
    assert done.exit_code == 0, done.output
    results = json.loads(done.stdout)
    assert len(results) == 3
    for each in results[0]["objects"][:3]:
        np.testing.assert_allclose(to_points(each["box"]), each["points"], atol=1e-3)
    assert Image.open(picture).width == 400
    assert len(list(folder.glob("Task1_*.txt"))) == 3
    done = CliRunner().invoke(
        cli.app, ["evaluate", str(data), *weights, "--output", str(tmp_path / "scores")]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["images"] == 3
    assert (tmp_path / "scores" / "detections.jsonl").read_text().count("\n") == 3
