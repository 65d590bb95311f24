"""The engine trains a task that it does not know."""

import csv
import json
from pathlib import Path

import angle_task
import keras
import numpy as np
import pytest
from forked import Forked
from safetensors.numpy import load_file

from keras_convnext.training.layout import Layout
from keras_convnext.training.state import saved_states

LAYOUT = Layout(process=0, processes=1, devices=1, device_batch=32, accumulated=1)

PROGRAM = """
import sys
sys.path.insert(0, {folder!r})
import os, signal
from dataclasses import replace
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
devices, stop, drop_path_rate = {settings!r}
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * devices)
import angle_task
from keras_convnext.training import fit, journal
original = journal.Journal.on_train_batch_end
def end(self, batch, logs=None):
    original(self, batch, logs)
    if self.progress.updates == stop:
        os.kill(os.getpid(), signal.SIGKILL)
journal.Journal.on_train_batch_end = end
angle_task.AngleTask.drop_path_rate = drop_path_rate
recipe = replace(angle_task.RECIPE, batch=replace(angle_task.RECIPE.batch, device_batch=16))
fit(angle_task.AngleTask(recipe), recipe, {output!r})
"""


def run(output, devices=1, stop=None, drop_path_rate=0.1, code=0):
    """Trains the task with batches of 32: on one device, two batches of 16 are accumulated."""
    program = PROGRAM.format(
        folder=str(Path(__file__).parent),
        settings=(devices, stop, drop_path_rate),
        output=str(output),
    )
    done = Forked(program).wait()
    assert done.returncode == code, done.stderr[-3000:]
    return saved_states(output / "checkpoints")


def test_it_learns_and_resumes_to_the_bit(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    expected = load_file(run(whole)[0])
    assert [state.stem for state in run(killed, stop=47, code=-9)] == [
        "update-000000040", "update-000000020",
    ]  # fmt: skip
    found = load_file(run(killed)[0])
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    assert (killed / "log.csv").read_bytes() == (whole / "log.csv").read_bytes()

    rows = list(csv.DictReader((whole / "log.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["2", "4", "6"]
    errors = [float(row["val_degrees"]) for row in rows]
    assert errors[-1] < 0.7 * 45  # of guesses
    best = keras.models.load_model(whole / "best.keras")
    images, angles = next(iter(angle_task.AngleTask(angle_task.RECIPE).batches(LAYOUT, 0)))
    assert np.mean(angle_task.degrees(angles, best(images))) < 0.7 * 45
    described = json.loads((whole / "run.json").read_text())
    assert described["task"] == "angle"
    assert (whole / "units.txt").read_text() == "degrees\n"


@pytest.mark.slow  # by default, test_run.py compares devices
def test_two_devices_learn_as_one(tmp_path):
    expected, found = (
        load_file(run(tmp_path / str(devices), devices, drop_path_rate=0.0)[0])
        for devices in (1, 2)
    )
    for name, value in expected.items():
        if name.startswith("model/"):
            np.testing.assert_allclose(found[name], value, rtol=1e-3, atol=1e-4, err_msg=name)


def test_the_engine_does_not_know_it():
    engine = Path(angle_task.__file__).parents[2] / "keras_convnext" / "training"
    text = "".join(path.read_text("utf-8").lower() for path in engine.glob("*.py"))
    for word in ("angle_task", "crop", "mixup", "keras_convnext.classification", "softmax"):
        assert word not in text
    lines = Path(angle_task.__file__).read_text("utf-8").splitlines()
    assert len(lines) < 120
