"""The scripts of `examples/`, in a small form."""

import re
import runpy
from pathlib import Path
from zipfile import ZipFile

import pytest
import typer
from typer.testing import CliRunner

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


def test_weights_are_measured_beside_what_is_published(sample):
    told = run("evaluate_checkpoint.py", "convnext_cifar", "cifar10", "--data", sample,
               "--split", "test", "--limit", 30)  # fmt: skip
    measured, chance = map(float, re.findall(r"([\d.]+)%", told.splitlines()[0]))
    assert 60 < measured < 100
    assert 0 < chance < 18
    assert re.search(r"published: \d\d\.\d+ %", told)


def test_a_saved_model_names_a_picture(tmp_path):
    told = run("export_saved_model.py", "convnext_cifar", "cifar10", tmp_path / "served")
    assert re.search(r"Wrote .*: [\d.]+e-0[5-9] of the largest logit", told)
    assert re.search(r"\d+\.\d%  cat", told)
    assert (tmp_path / "served" / "1" / "saved_model.pb").exists()
