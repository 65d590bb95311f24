"""The scripts of `examples/`, in a small form."""

import csv
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from zipfile import ZipFile

import pytest
import typer
from other_backends import environment
from typer.testing import CliRunner

import keras_convnext

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
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


def test_a_small_network_is_trained_under_jax_by_the_script_for_a_gpu(sample, tmp_path):
    driver, output = Path(__file__).parent / "run_gpu_example.py", tmp_path / "run"
    result = subprocess.run(
        [sys.executable, str(driver), str(sample), str(output)], capture_output=True, text=True,
        env=environment("jax"),
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    with (output / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["update"] for row in rows] == ["10", "20", "30", "40", "50", "60"]
    losses = [float(row["loss"]) for row in rows]
    assert losses[-1] < losses[0] - 0.1
    assert json.loads((output / "run.json").read_text())["crop_scale"] == [0.5, 1.0]
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
