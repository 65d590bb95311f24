"""What the engine does around a run: validation, precision, folders, disks and curves."""

import csv
import errno
import io
import json
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import filelock
import keras
import numpy as np
import pytest
import tensorflow as tf
import toy_runs
from rich.console import Console

from keras_convnext.builders import BUILDERS
from keras_convnext.classification import evaluate
from keras_convnext.training import state
from keras_convnext.training.fitted import FittedModel
from keras_convnext.training.journal import EMA, RAW, Journal
from keras_convnext.training.layout import Layout
from keras_convnext.training.length import Length, length_of
from keras_convnext.training.recipe import Batch, Optimizer, Recipe, Schedule
from keras_convnext.training.state import Progress
from keras_convnext.training.task import Metric


def rows_of(output):
    with (Path(output) / "log.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.usefixtures("toy")
def test_without_validation_images_the_last_weights_are_kept_in_half_precision(pictures, tmp_path):
    model = toy_runs.toy_train(
        pictures / "train", tmp_path / "run", epochs=1, precision="mixed_float16"
    )
    files = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"final.keras", "final_ema.keras", "classes.txt", "log.csv"} <= files
    assert not {"best.keras", "best_ema.keras"} & files
    assert list(rows_of(tmp_path / "run")[0]) == [
        "epoch", "update", "learning_rate", "loss", "accuracy",
    ]  # fmt: skip
    # The softmax is computed in float32: in float16, sums are up to 2e-4 away from 1.
    saved = keras.models.load_model(tmp_path / "run" / "final.keras")
    images = np.random.default_rng(1).uniform(0, 255, (64, 16, 16, 3))
    for classifier in (model, saved):
        assert classifier.layers[-1].compute_dtype == "float32"
        np.testing.assert_allclose(classifier.predict(images, verbose=0).sum(1), 1, rtol=1e-6)


@pytest.mark.usefixtures("toy")
def test_other_data_validates_the_classes_that_it_shares(pictures, tmp_path):
    """As ImageNet-1K validates ImageNet-22K, which lacks one of its classes."""
    other = tmp_path / "other" / "validation"
    for name, source in (("red", "red"), ("blue", "blue"), ("teddy", "white")):
        shutil.copytree(pictures / "test" / source, other / name)
    output = io.StringIO()
    model = toy_runs.toy_train(
        pictures / "train", tmp_path / "run", epochs=2, learning_rate=1e-2, mixup=0.0, cutmix=0.0,
        ema_decay=None, validation_data=tmp_path / "other", console=Console(file=output),
    )  # fmt: skip
    found = evaluate(
        model, tmp_path / "other", classes=(tmp_path / "run" / "classes.txt").read_text().split()
    )
    assert (found.images, found.excluded, found.missing) == (12, 6, ("teddy",))
    last = rows_of(tmp_path / "run")[-1]
    assert float(last["val_accuracy"]) == pytest.approx(found.top1)
    assert float(last["val_loss"]) == pytest.approx(found.loss, rel=1e-4)
    assert "Images of 1 validation classes are not evaluated" in output.getvalue()
    with pytest.raises(ValueError, match="None of the classes, such as 'blues'"):
        toy_runs.toy_train(
            toy_runs.make_pictures(tmp_path / "n", 2, 1) / "train", tmp_path / "new",
            validation_data=renamed(other, tmp_path / "none" / "validation"),
        )  # fmt: skip


def renamed(folder, target):
    for path in folder.iterdir():
        shutil.copytree(path, target / f"{path.name}s")
    return target.parent


def points(folder):
    """The (tag, step) of each point in the curves for TensorBoard."""
    return [
        (value.tag, event.step)
        for path in folder.glob("events.*")
        for event in tf.compat.v1.train.summary_iterator(str(path))
        for value in event.summary.value
    ]


@pytest.mark.usefixtures("toy")
def test_a_full_disk_another_run_and_other_data_leave_a_run_that_resumes(
    pictures, tmp_path, monkeypatch
):
    output = tmp_path / "run"
    data = toy_runs.make_pictures(tmp_path / "data", 12, 2)
    own = {"epochs": 3, "ema_decay": None}
    write = state.save_file

    def fill(values, path, metadata):
        if path.name.endswith("000000006.safetensors"):
            path.write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, "No space left on device")
        write(values, path, metadata)

    with monkeypatch.context() as patch:
        patch.setattr(state, "save_file", fill)
        with pytest.raises(OSError, match=r"No space left on device\. Free disk space.*to resume"):
            toy_runs.toy_train(data, output, **own)
    assert [path.stem for path in (output / "checkpoints").iterdir()] == ["update-000000003"]

    with filelock.FileLock(output / ".lock"), pytest.raises(ValueError, match="Another run is"):
        toy_runs.toy_train(data, output, **own)

    picture = data / "train" / "red" / "000.jpg"
    picture.rename(picture.with_name("renamed.jpg"))
    with pytest.raises(ValueError, match=r"other settings or data.*data_digest="):
        toy_runs.toy_train(data, output, **own)
    picture.with_name("renamed.jpg").rename(picture)

    described = json.loads((output / "run.json").read_text())
    flat = {**described, "recipe": {"name": "cifar10", "epochs": 3, "learning_rate": 3e-3}}
    (output / "run.json").write_text(json.dumps(flat))
    with pytest.raises(ValueError, match=r"earlier version.*start=.*best.keras"):
        toy_runs.toy_train(data, output, **own)
    (output / "run.json").write_text(json.dumps(described))

    toy_runs.toy_train(data, output, **own)
    assert [row["update"] for row in rows_of(output)] == ["3", "6", "9"]
    drawn = points(output / "tensorboard")
    assert len(set(drawn)) == len(drawn)
    assert sorted(step for tag, step in drawn if tag == "val_loss") == [3, 6, 9]


@pytest.mark.usefixtures("toy")
def test_a_run_learns_from_the_file_of_a_teacher(pictures, tmp_path):
    teacher = BUILDERS["toy"](
        weights=None, classes=4, input_shape=(16, 16, 3), layer_scale_init_value=0.3
    )
    teacher.save(tmp_path / "teacher.keras")
    toy_runs.toy_train(
        pictures, tmp_path / "student", epochs=1, teacher=str(tmp_path / "teacher.keras"),
        teacher_weight=1.0, temperature=2.0, mixup=0.0, cutmix=0.0,
    )  # fmt: skip
    student = keras.models.load_model(tmp_path / "student" / "final.keras")
    assert student.count_params() == teacher.count_params()
    with pytest.raises(ValueError, match="other settings or data"):
        toy_runs.toy_train(pictures, tmp_path / "student", epochs=1)


@pytest.mark.usefixtures("toy")
def test_images_grow_during_a_run_that_resumes(pictures, tmp_path, monkeypatch):
    shapes, seen = [], []
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    step, original = FittedModel.train_step, Journal.on_train_batch_end

    def traced(self, data):
        shapes.append(data[0].shape)
        return step(self, data)

    def end(self, batch, logs=None):
        original(self, batch, logs)
        seen.append((self.progress.updates, int(np.prod(shapes[-1][1:3]))))
        if self.progress.updates == 5 and not killed.exists():
            shutil.copytree(whole, killed)  # as a run leaves it that is killed here

    monkeypatch.setattr(FittedModel, "train_step", traced)
    monkeypatch.setattr(Journal, "on_train_batch_end", end)
    own = {"epochs": 2, "early_sizes": (8,), "early_epochs": (0.7,), "save_updates": 5}
    expected = toy_runs.toy_train(pictures, whole, **own)
    sides = [shape[1] for shape in shapes]
    assert list(dict.fromkeys(sides)) == [8, 16]
    assert all(shape[0] == 16 for shape in shapes)
    assert [row["update"] for row in rows_of(whole)] == ["10", "20"]
    changes = {after: size for (_, before), (after, size) in pairwise(seen) if before != size}
    assert changes == {8: 256}

    seen.clear()
    resumed = toy_runs.toy_train(pictures, killed, **own)
    assert seen[0] == (6, 64)
    for found, weight in zip(resumed.get_weights(), expected.get_weights()):
        np.testing.assert_array_equal(found, weight)
    saved = keras.models.load_model(whole / "best.keras")
    assert saved.input_shape == (None, 16, 16, 3)
    with pytest.raises(ValueError, match="same length"):
        toy_runs.toy_train(pictures, tmp_path / "new", early_sizes=(8,))


RECIPE = Recipe(
    name="toy",
    source="ours",
    optimizer=Optimizer(learning_rate=1e-3, weight_decay=0.1),
    schedule=Schedule(epochs=4, warmup_epochs=0.5, milestones=(2, 3.5)),
    batch=Batch(batch_size=8),
)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ({}, Length(40, 10, 10, 5, 0, (20, 35))),
        ({"frozen_epochs": 1, "evaluation_updates": 15}, Length(40, 10, 15, 5, 10, (20, 35))),
        (
            {"epochs": None, "updates": 33, "warmup_epochs": 0, "warmup_updates": 7},
            Length(33, 10, 10, 7, 0, (2, 4)),
        ),
    ],
)
def test_a_length_is_in_updates(schedule, expected):
    recipe = replace(RECIPE, schedule=replace(RECIPE.schedule, **schedule))
    assert length_of(recipe, 83) == expected


def test_fewer_examples_than_a_batch_have_no_length():
    with pytest.raises(ValueError, match="Set batch_size to 7 or less"):
        length_of(RECIPE, 7)


@pytest.mark.parametrize("higher", [True, False])
def test_the_best_weights_have_the_best_finite_metric(tmp_path, higher):
    nan, measured, kept = float("nan"), [], []
    journal = Journal(
        tmp_path, RECIPE, Layout(0, 1, 1, 8, 1), length_of(RECIPE, 80), Progress(),
        Metric("error", higher), lambda: {"error": measured[-1]},
        lambda path: kept.append(path.name),
    )  # fmt: skip
    better, worse = (3.0, 1.0) if higher else (1.0, 3.0)
    for value, files in ((nan, []), (2.0, ["best.keras"]), (worse, []), (nan, []),
                         (better, ["best.keras"]), (better, [])):  # fmt: skip
        measured.append(value)
        kept.clear()
        journal._validated(RAW)
        assert kept == files
    journal._validated(EMA)
    assert kept == ["best_ema.keras"]
    assert journal.progress.best == {RAW: better, EMA: better}
