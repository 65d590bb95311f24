"""The benchmark of the input runs: on a few photographs, once, so that it does not rot."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
SCRIPT = REPOSITORY / "benchmarks" / "input.py"


@pytest.mark.slow
def test_input(tmp_path):
    shutil.copytree(REPOSITORY / "examples" / "photos", tmp_path / "photos")
    results = tmp_path / "input.json"
    printed = subprocess.run(
        [sys.executable, SCRIPT, tmp_path / "photos", "--rounds", "1", "--images", "24",
         "--batch", "4", "--workers", "1", "--json", "--results", results],
        check=True, text=True, stdout=subprocess.PIPE,
    ).stdout  # fmt: skip
    figures = json.loads(results.read_text())
    assert figures == json.loads(printed)
    kept = json.loads((SCRIPT.parent / "results" / "input.json").read_text())
    assert figures.keys() == kept.keys()
    stated = {"cpu", "cores", "flags", "versions", "load_average"}
    assert stated <= figures["machine"].keys()
    assert figures["files"] == 6
    for one in (figures, kept):
        assert one["times_timm"].keys() == {"training", "evaluation"}
        for side in ("keras_convnext", "timm"):
            assert min(one["images_per_second"][side].values()) > 0


def test_says_what_to_give(tmp_path):
    for arguments, message in (
        ([], "pass a folder with JPEGs"),
        ([tmp_path], "the folder contains no .jpg or .jpeg"),
        ([tmp_path, "--images", "3"], "at least 6 batches. Received: 3"),
    ):
        run = subprocess.run(
            [sys.executable, SCRIPT, *arguments], check=False, text=True, stderr=subprocess.PIPE
        )
        assert run.returncode == 2
        assert message in run.stderr
