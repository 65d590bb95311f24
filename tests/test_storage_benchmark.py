"""The benchmark of folders and shards runs, on a few images, so that it does not rot."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
SCRIPT = REPOSITORY / "benchmarks" / "storage.py"


@pytest.mark.slow
def test_folders_and_shards_are_read(tmp_path):
    results = tmp_path / "storage.json"
    subprocess.run(
        [sys.executable, SCRIPT, tmp_path, "--images", "200", "--kilobytes", "20", "--shards", "2",
         "--records", "2000", "--results", results],
        check=True,
    )  # fmt: skip
    found = json.loads(results.read_text())
    kept = json.loads((SCRIPT.parent / "results" / "storage.json").read_text())
    assert found.keys() == kept.keys()
    for figures in (found, kept):
        assert list(figures["kinds"]) == ["folder", "tfrecord", "array_record"]
        assert list(figures["opened_tiny_records"]) == ["tfrecord", "array_record"]
        for kind in figures["kinds"].values():
            assert kind["read_disk"]["images_per_second"] > 0
            assert kind["read_cache"]["images_per_second"] > 0
    assert [path.name for path in tmp_path.iterdir()] == ["storage.json"]
