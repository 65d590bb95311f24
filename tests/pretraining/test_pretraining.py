"""Runs of masked pre-training: exact resuming, several devices, pictures, and fine-tuning."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from run_on_two_devices import TOY, register

from keras_convnext import classification, pretraining
from keras_convnext.data.errors import DataError
from keras_convnext.memory_errors import OutOfMemoryError
from keras_convnext.pretraining import task
from keras_convnext.pretraining.input import training_batches
from keras_convnext.pretraining.source import open_images
from keras_convnext.training.journal import Interrupted, Journal
from keras_convnext.training.layout import layout_of

SETTINGS = {
    "size": 16, "patch": 4, "decoder_width": 16, "batch_size": 8, "device_batch": 8,
    "epochs": None, "updates": 6, "warmup_epochs": 0, "warmup_updates": 2,
    "evaluation_updates": 3, "validation_share": 0.25, "learning_rate": 1e-2,
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def network():
    with pytest.MonkeyPatch.context() as patch:
        register(patch)
        yield


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Images without labels, at two depths."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "deeper").mkdir()
    generator = np.random.default_rng(0)
    for number in range(24):
        coarse = generator.integers(0, 256, (4, 4, 3), np.uint8)
        image = Image.fromarray(coarse).resize((24, 20))
        image.save(folder / ("deeper" if number % 3 else ".") / f"{number}.png")
    return folder


def recipe(**settings):
    return pretraining.recipe_for("pretrain_small", TOY.name, {**SETTINGS, **settings})


def run(photos, output, strategy=None, **settings):
    return pretraining.train(recipe(**settings), TOY.name, photos, output, strategy=strategy)


def log_of(output):
    return (output / "log.csv").read_text().splitlines()


@pytest.fixture(scope="module")
def whole(photos, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole")
    return output, run(photos, output)


def test_a_run_learns_and_leaves_its_files(whole, photos):
    output, trunk = whole
    names = {path.name for path in output.iterdir()}
    assert {"run.json", "log.csv", "final.keras", "best.keras", "reconstructions.png"} <= names
    assert json.loads((output / "run.json").read_text())
    first, last = (
        float(line.split(",")[1]) for line in log_of(output)[1:][:: len(log_of(output)) - 2]
    )
    assert np.isfinite([first, last]).all()
    with Image.open(output / "reconstructions.png") as sheet:
        assert sheet.size == (3 * 16 + 2 * 4, 6 * 16 + 5 * 4)  # six images to validate on
    loaded = keras.models.load_model(output / "final.keras")
    for ours, theirs in zip(loaded.get_weights(), trunk.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def counted(monkeypatch, stop_after=None):
    """Counts updates, and sends SIGTERM after one of them."""
    updates, original = [], Journal.on_train_batch_end

    def end(self, batch, logs=None):
        original(self, batch, logs)
        updates.append(self.progress.updates)
        if self.progress.updates == stop_after:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Journal, "on_train_batch_end", end)
    return updates


@pytest.mark.slow
def test_it_resumes_to_the_same_bits(whole, photos, tmp_path):
    _, trunk = whole
    with pytest.MonkeyPatch.context() as patch:
        counted(patch, stop_after=4)
        with pytest.raises(Interrupted):
            run(photos, tmp_path / "run")
    with pytest.MonkeyPatch.context() as patch:
        updates = counted(patch)
        again = run(photos, tmp_path / "run")
    assert updates in ([5, 6], [6])  # the signal may arrive one update later
    for ours, theirs in zip(again.get_weights(), trunk.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
def test_two_devices_learn_the_same(whole, photos, tmp_path):
    """In another process, since devices are created once."""
    _, trunk = whole
    script = Path(__file__).with_name("run_on_two_devices.py")
    settings = json.dumps({**SETTINGS, "device_batch": 4})
    done = subprocess.run(
        [sys.executable, str(script), str(photos), str(tmp_path), settings],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-5000:]
    with np.load(tmp_path / "weights.npz") as found:
        for index, theirs in enumerate(trunk.get_weights()):
            np.testing.assert_allclose(found[f"arr_{index}"], theirs, rtol=0, atol=2e-4)


def test_too_little_memory_is_told_with_what_needs_less(photos, tmp_path, monkeypatch):
    def fit(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(task, "fit", fit)
    with pytest.raises(OutOfMemoryError, match=r"toyv2 at 16 px.*--set device_batch=4 \(0"):
        run(photos, tmp_path / "run")


def test_batches_depend_on_the_seed_and_their_number_alone(photos):
    own = recipe()
    source, _ = open_images(photos, None, 0.25, own.seed)
    layout = layout_of(tf.distribute.get_strategy(), own)
    first = list(training_batches(source, own, TOY.stride, layout).take(4))
    later = next(iter(training_batches(source, own, TOY.stride, layout, 3)))
    for ours, theirs in zip(later, first[3], strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert (first[0][0].numpy() != first[2][0].numpy()).any()
    masks = first[0][0].numpy()[..., 3]
    assert len({mask.tobytes() for mask in masks}) > 1


@pytest.mark.slow
def test_fine_tuning_starts_from_the_run(whole, photos, tmp_path):
    output, trunk = whole
    for number in range(8):
        folder = tmp_path / "labeled" / f"class {number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (100 * (number % 2), 0, 9 * number)).save(
            folder / f"{number}.png"
        )
    with pytest.warns(UserWarning, match="checkpoint has no (final norm|classifier)"):
        model = classification.train(
            "finetune_small", TOY.name, tmp_path / "labeled", tmp_path / "run",
            {"start": str(output / "final.keras"), "size": 16, "epochs": 1, "frozen_epochs": 0,
             "batch_size": 4, "device_batch": 4, "warmup_epochs": 0, "learning_rate": 1e-9,
             "layer_scale": None},
        )  # fmt: skip
    assert model.output_shape == (None, 2)
    np.testing.assert_allclose(
        model.get_layer("stem_conv").kernel, trunk.get_layer("stem_conv").kernel, atol=1e-6
    )


def test_folders_at_any_depth_are_read_and_splits_are_kept_apart(photos, tmp_path):
    training, validation = open_images(photos, None, 0.25, 0)
    assert (training.size, validation.size) == (18, 6)
    assert training.classes == ("image",)
    for split, count in (("train", 3), ("test", 2)):
        (tmp_path / split / "a").mkdir(parents=True)
        for number in range(count):
            Image.new("RGB", (16, 16)).save(tmp_path / split / "a" / f"{number}.png")
    training, validation = open_images(tmp_path, None, 0.0, 0)
    assert (training.size, validation) == (3, None)
    assert "train" in training.name_of(0)
    (tmp_path / "train" / "a" / "empty.png").touch()
    with pytest.raises(DataError, match=r"is empty: delete it.*empty\.png"):
        open_images(tmp_path, None, 0.0, 0)
