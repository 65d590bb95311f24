"""`cache`, `doctor` and `--version`: what is on this machine."""

import json
import shutil
from pathlib import Path

import pytest
from file_server import serving
from test_cli import run

from keras_convnext.cli import environment
from keras_convnext.pretrained import catalog, folder
from keras_convnext.pretrained.catalog import find
from keras_convnext.pretrained.digests import file_digest
from keras_convnext.pretrained.servers import described

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


def test_weights_are_downloaded_without_a_backend_and_the_files_printed(tmp_path, monkeypatch):
    row = catalog.Checkpoint("convnext_cifar", "toy", "official", "toy.safetensors", 10, 32)
    for module in (catalog, folder):
        monkeypatch.setattr(module, "CATALOG", (row, *catalog.CATALOG))
    monkeypatch.setenv("KERAS_CONVNEXT_CACHE", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving() as server:
        server.files["toy.safetensors"] = WEIGHTS.read_bytes()
        monkeypatch.setenv("KERAS_CONVNEXT_MIRROR", server.url)
        result = run("download", "convnext_cifar", "toy", "cifar10", "--json")
    assert result.exit_code == 0, result.stderr
    toy, shipped = json.loads(result.stdout)
    assert toy == {
        "model": "convnext_cifar",
        "weights": "toy",
        "license": "MIT",
        "terms": "https://opensource.org/license/mit",
        "bytes": (tmp_path / "toy.weights.h5").stat().st_size,
        "file": str(tmp_path / "toy.weights.h5"),
    }
    assert shipped["file"] == str(WEIGHTS)
    assert result.stderr.startswith("Downloading the toy weights of convnext_cifar: 4.0 MB, MIT")
    warned = result.stderr
    result = run("download", "convnext_cifar")  # what the builder loads by default
    assert (result.stdout, result.stderr) == (f"{tmp_path / 'toy.weights.h5'}\n", "")
    assert "toy.safetensors has the right network and valid numbers, but" in warned
    result = run("download", "convnext_cifar", "toy", "--sha256", "0" * 64)
    assert result.exit_code == 2
    assert "were not converted from the file with this SHA-256" in result.stderr
    result = run("download", "convnext_cifar", "toy", "--sha256", file_digest(WEIGHTS))
    assert result.stdout == f"{tmp_path / 'toy.weights.h5'}\n"
    result = run("download", "convnext_cifar", "toy", "cifar10", "--sha256", "0" * 64)
    assert result.exit_code == 2
    assert "is the digest of one file" in result.stderr
    assert run("cache", "remove", "toy.safetensors").stdout == "toy.safetensors\n"
    monkeypatch.setenv("KERAS_CONVNEXT_OFFLINE", "1")
    assert run("download", "convnext_cifar", "toy").exit_code == 0  # the port is enough


def test_what_cannot_be_downloaded_is_a_line_for_each_address(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_CONVNEXT_CACHE", str(tmp_path))
    monkeypatch.setenv("KERAS_CONVNEXT_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    result = run("download", "convnext_tiny")
    assert result.exit_code == 2
    assert result.stdout == ""
    first, *others = result.stderr.splitlines()
    assert first.startswith("Error: The imagenet weights of convnext_tiny are not in the cache, ")
    for row in find("convnext_tiny", "imagenet"):
        assert any(line.startswith(f"  {row.url} (114 MB") for line in others)
        assert f"    as {tmp_path / row.file}" in others
    assert run("download", "convnext_tiny", "imagenet21k").exit_code == 2


def test_doctor_tells_where_downloads_come_from(monkeypatch):
    for name, value in {
        "KERAS_CONVNEXT_MIRROR": "https://me:secret@a.example/w direct",
        "HTTPS_PROXY": "http://me:secret@proxy.example:3128",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("HTTP_PROXY", "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert described() == (
        "from https://a.example/w, then the publishers, by the proxy http://proxy.example:3128"
    )
    monkeypatch.setenv("KERAS_CONVNEXT_OFFLINE", "1")
    assert described() == "none, by KERAS_CONVNEXT_OFFLINE"


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
    assert found["downloads"] == described()
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
