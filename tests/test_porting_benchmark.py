"""The benchmark of porting: what is kept of it, and a run on the smallest network."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
KEPT = json.loads((BENCHMARKS / "results" / "porting.json").read_text())


def assert_figures(model):
    for direction in ("read", "write"):
        assert model[direction]["time_ratio"] > 0
        assert model[direction]["keras_convnext"]["peak_mb"] > model["file_mb"]


def test_the_kept_measurements():
    assert KEPT["models"].keys() == {"convnext_tiny", "convnext_xlarge"}
    for model in KEPT["models"].values():
        assert_figures(model)


@pytest.mark.slow
def test_porting(tmp_path):
    results = tmp_path / "porting.json"
    subprocess.run(
        [sys.executable, BENCHMARKS / "porting.py", "--models", "convnext_atto", "--repeats", "1",
         "--results", results],
        check=True,
    )  # fmt: skip
    figures = json.loads(results.read_text())
    assert figures.keys() == KEPT.keys()
    stated = {"cpu", "cores", "flags", "versions", "load_average"}
    assert stated <= figures["machine"].keys()
    assert_figures(figures["models"]["convnext_atto"])
