"""The benchmark of porting runs: on the smallest network, once, so that it does not rot."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def test_porting(tmp_path):
    results = tmp_path / "porting.json"
    subprocess.run(
        [sys.executable, BENCHMARKS / "porting.py", "--models", "convnext_atto", "--repeats", "1",
         "--results", results],
        check=True,
    )  # fmt: skip
    figures = json.loads(results.read_text())
    kept = json.loads((BENCHMARKS / "results" / "porting.json").read_text())
    assert figures.keys() == kept.keys()
    stated = {"cpu", "cores", "flags", "versions", "load_average"}
    assert stated <= figures["machine"].keys()
    assert kept["models"].keys() == {"convnext_tiny", "convnext_xlarge"}
    for model in [figures["models"]["convnext_atto"], *kept["models"].values()]:
        for direction in ("read", "write"):
            assert model[direction]["time_ratio"] > 0
            assert model[direction]["keras_convnext"]["peak_mb"] > model["file_mb"]
