"""The scripts of `examples/`, in a small form."""

import csv
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import keras
import numpy as np
import pytest
import typer
from other_backends import environment
from typer.testing import CliRunner

import keras_convnext
from keras_convnext import builders
from keras_convnext.classification import recipe_for, train
from keras_convnext.classification.input import training_batches
from keras_convnext.classification.network import build_classifier
from keras_convnext.data.sources import open_source
from keras_convnext.training.journal import Journal
from keras_convnext.training.layout import Layout
from keras_convnext.variants import VARIANTS, Variant

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
pytestmark = pytest.mark.example
WEIGHTS = ROOT / "weights" / "cifar10" / "convnext_cifar_32.safetensors"
SMALL = {
    "epochs": 1, "warmup_epochs": 0.5, "batch_size": 16, "mixing_batch": 16, "size": 32,
    "drop_path_rate": 0.1, "device_batch": 16,
}  # fmt: skip


def run(script, *arguments):
    main = runpy.run_path(str(EXAMPLES / script), run_name="example")["main"]
    app = typer.Typer()
    app.command()(main)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.exception
    return result.stdout


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """Four images of each class to train on, and four to validate on."""
    folder = tmp_path_factory.mktemp("sample")
    with ZipFile(EXAMPLES / "cifar10_sample.zip") as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".jpg"))
        seen = {}
        for name in names:
            of_class = seen.setdefault(Path(name).parent, [])
            if len(of_class) < 4:
                of_class.append(name)
        archive.extractall(folder, [name for names in seen.values() for name in names])
    return folder / "cifar10_sample"


@pytest.mark.parametrize(
    ("script", "options"),
    [("pretrain_imagenet22k.py", ()), ("fine_tune_384.py", ("--start", WEIGHTS))],
)
def test_a_network_is_trained(script, options, sample, tmp_path):
    settings = [f"--setting={key}={value}" for key, value in SMALL.items()]
    output = tmp_path / "run"
    run(script, "--data", sample, "--output", output, "--model", "convnext_cifar", *options,
        *settings)  # fmt: skip
    assert len((output / "log.csv").read_text().splitlines()) == 2
    assert (output / "final.keras").exists()


def updates_on_tensorflow(data, folder, monkeypatch):
    """Makes 50 updates with `train`, and writes what the other script needs to repeat them."""
    images = folder / "images"
    images.mkdir(parents=True)
    (images / "train").symlink_to(data / "train")  # alone: nothing is validated
    run = folder / "run"
    variant = Variant("toy", (1, 1), (16, 32), None, 4)
    monkeypatch.setitem(VARIANTS, "toy", variant)
    monkeypatch.setitem(builders.BUILDERS, "toy", builders._builder(variant))
    settings = {
        "epochs": 50, "warmup_epochs": 5, "batch_size": 40, "mixing_batch": 8, "ema_decay": 0.9,
        "drop_path_rate": 0, "precision": "float32", "evaluation_updates": 50,
    }  # fmt: skip
    recipe = recipe_for("cifar10_gpu", "toy", settings)
    keras.utils.set_random_seed(recipe.seed)
    before = build_classifier(recipe, "toy", 10)
    source = open_source(images, "train")
    assert source.size == 40
    batches = training_batches(source, recipe, Layout(0, 1, 1, 40, 1)).take(50)
    end, means = Journal.on_train_batch_end, []

    def recorded(self, batch, logs):
        end(self, batch, logs)
        means.append(float(logs["loss"]))  # of all updates so far

    monkeypatch.setattr(Journal, "on_train_batch_end", recorded)
    train("cifar10_gpu", "toy", images, run, settings)
    losses = np.diff(np.arange(1, 51) * means, prepend=0)
    networks = {"before": before} | {
        name: keras_convnext.load_model(run / f"{name}.keras") for name in ("final", "final_ema")
    }
    pixels, targets = map(np.stack, zip(*batches.as_numpy_iterator()))
    np.savez(
        folder / "updates.npz", images=pixels, targets=targets, losses=losses,
        settings=json.dumps(settings),
        **{
            f"{name} {index}": weight.numpy()
            for name, network in networks.items()
            for index, weight in enumerate(network.trainable_variables)
        },
    )  # fmt: skip
    return folder / "updates.npz"


def test_the_script_for_a_gpu_trains_under_jax_as_train_does(sample, tmp_path, monkeypatch):
    updates = updates_on_tensorflow(sample, tmp_path / "on_tensorflow", monkeypatch)
    driver, output = Path(__file__).parent / "run_gpu_example.py", tmp_path / "run"
    result = subprocess.run(
        [sys.executable, str(driver), str(sample), str(output), str(updates)],
        capture_output=True, text=True, env=environment("jax"),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    with (output / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["update"] for row in rows] == ["10", "20", "30", "40", "50", "60"]
    losses = [float(row["loss"]) for row in rows]
    assert losses[-1] < losses[0] - 0.1
    described = json.loads((output / "run.json").read_text())
    assert described["recipe"]["input.crop_scale"] == [0.5, 1.0]
    for name in ("final.keras", "final_ema.keras"):
        assert keras_convnext.load_model(output / name).output_shape == (None, 10)


def test_weights_are_measured_beside_what_is_published(tmp_path):
    with ZipFile(EXAMPLES / "cifar10_sample.zip") as archive:
        archive.extractall(tmp_path)
    told = run("evaluate_checkpoint.py", "convnext_cifar", "cifar10", "--data",
               tmp_path / "cifar10_sample", "--split", "test", "--limit", 400)  # fmt: skip
    measured, chance = map(float, re.findall(r"([\d.]+)%", told.splitlines()[0]))
    assert 85 < measured < 100
    assert 0 < chance < 4
    assert re.search(r"published: \d\d\.\d+ %", told)


def test_a_saved_model_names_a_picture(tmp_path):
    told = run("export_saved_model.py", "convnext_cifar", "cifar10", tmp_path / "served")
    assert re.search(r"Wrote .*: [\d.]+e-0[5-9] of the largest logit", told)
    assert re.search(r"\d+\.\d%  cat", told)
    assert (tmp_path / "served" / "1" / "saved_model.pb").exists()
