"""`cache`, `doctor` and `--version`: what is on this machine."""

import json
import shutil
from pathlib import Path

import pytest
from test_cli import run

from keras_convnext.cli import environment
from keras_convnext.pretrained.catalog import find

WEIGHTS = Path(__file__).parents[2] / "weights" / "cifar10" / "convnext_cifar_32.safetensors"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    (folder / "partial").mkdir(parents=True)
    monkeypatch.setenv("KERAS_CONVNEXT_CACHE", str(folder))
    published = find("convnext_tiny", "imagenet")[0]
    for name, size in {
        published.file: 2_000_000,
        f"{published.file}.sha256": 10,
        f"{published.file}.lock": 0,
        f"{published.stem}.weights.h5": 1_000_000,
        "partial/convnext_base_1k_224_ema.pth": 500_000,
        "mine.pth": 3,
    }.items():
        (folder / name).write_bytes(b"x" * size)
    return folder


def test_the_files_and_their_sizes(cache):
    rows = {row["file"]: row for row in json.loads(run("cache", "list", "--json").stdout)}
    told = {Path(name).name: (row["kind"], row["model"], row["weights"], row["bytes"])
            for name, row in rows.items()}  # fmt: skip
    assert told == {
        "convnext_tiny_1k_224_ema.pth": ("published", "convnext_tiny", "imagenet", 2_000_000),
        "convnext_tiny_1k_224_ema.weights.h5": ("port", "convnext_tiny", "imagenet", 1_000_000),
        "convnext_base_1k_224_ema.pth": ("partial", "convnext_base", "imagenet", 500_000),
        "mine.pth": ("other", None, None, 3),
    }
    assert "convnext_tiny_1k_224_ema.pth" in run("cache", "list").stdout
    assert run("cache", "size").stdout == f"{cache}: 4 files, 3.5 MB\n"
    assert json.loads(run("cache", "size", "--json").stdout)["bytes"] == 3_500_003


def test_removing_leaves_what_is_not_ours(cache):
    result = run("cache", "remove", "convnext_tiny")
    assert result.exit_code == 0
    assert "convnext_tiny_1k_224_ema.pth" in result.stdout
    assert sorted(path.name for path in cache.rglob("*") if path.is_file()) == [
        "convnext_base_1k_224_ema.pth",
        "mine.pth",
    ]
    assert run("cache", "remove").exit_code == 2
    assert run("cache", "remove", "mine.pth").exit_code == 2
    assert run("cache", "remove", "--all").exit_code == 0
    assert [path.name for path in cache.rglob("*") if path.is_file()] == ["mine.pth"]


def test_verify_reads_what_was_published(cache):
    result = run("cache", "verify")
    assert result.exit_code == 1
    assert "failed  convnext_tiny_1k_224_ema.pth" in result.stdout
    assert "not the file that was published" in result.stderr
    run("cache", "remove", "--all")
    shutil.copy(WEIGHTS, cache)
    assert run("cache", "verify").stdout == f"passed  {WEIGHTS.name}\n"


def test_doctor_tells_what_is_missing_for_what(cache, monkeypatch):
    present = environment.version_of
    monkeypatch.setattr(
        environment, "version_of", lambda name: None if name == "openvino" else present(name)
    )
    result = run("doctor", "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["missing"]["export"] == ["openvino"]
    assert found["devices"]
    assert found["problem"] is None
    assert str(cache) in found["cache"]
    printed = run("doctor").stdout
    assert 'LiteRT and OpenVINO: openvino  (pip install "keras-convnext[export]")' in printed


def test_doctor_says_that_a_backend_does_not_work(monkeypatch):
    def broken():
        raise ImportError("libcudart.so: cannot open\x1b[31m")

    monkeypatch.setattr(environment, "import_backend", broken)
    result = run("doctor")
    assert result.exit_code == 1
    assert "python" in result.stdout
    assert result.stderr.startswith("Error: The backend tensorflow does not work: ImportError: lib")
    assert "\x1b" not in result.stderr


def test_the_versions(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    lines = run("--version").stdout.splitlines()
    assert lines[0].startswith("keras-convnext ")
    assert "backend jax" in lines
    assert {line.split()[0] for line in lines} >= {"keras", "tensorflow", "python", "numpy"}
