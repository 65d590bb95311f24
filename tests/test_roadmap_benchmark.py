"""The study of the road: its table and plot, and that it goes on where it was interrupted."""

import importlib
from pathlib import Path

import pytest

from keras_convnext.roadmap import STEPS

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def roadmap(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("roadmap")


def test_the_table_compares_gains_with_those_of_the_paper(roadmap, tmp_path):
    accuracies = {
        "move_up": {"0": 0.80, "1": 0.82},
        "kernel_5": {"0": 0.85},
        "kernel_7": {"0": 0.83, "1": 0.83},
        "kernel_9": {"0": 0.70},
        "gelu": {"0": 0.84, "1": 0.84, "2": 0.87},
    }
    figures = {"accuracies": accuracies, "settings": {"epochs": 4}, "command": "python"}
    roadmap.write(figures, tmp_path)
    lines = (tmp_path / "roadmap.md").read_text().splitlines()
    table = {line.split(" | ")[0].strip("| "): line for line in lines if line.startswith("|")}
    # Two standard errors: 2 * sqrt((1.41² + 0² + 1.73²) / 3) * sqrt(2 / 3) = 2.11 points.
    assert "no change: 2.11 points here, 0.15 points in the paper" in lines[4]
    assert "| 81.00 ± 1.41 | 2 |  | 79.92 | -0.72 |  |" in table["move_up"]
    assert "| 85.00 | 1 | +4.00 | 80.35 | +0.43 | as in the paper |" in table["kernel_5"]
    assert "| 83.00 ± 0.00 | 2 | +2.00 | 80.57 | +0.65 | not here |" in table["kernel_7"]
    assert "| 70.00 | 1 | -13.00 | 80.57 | +0.00 | only here |" in table["kernel_9"]
    assert "| 85.00 ± 1.73 | 3 | +2.00 | 80.62 | +0.05 | as in the paper |" in table["gelu"]
    assert set(table) - {"step", "---"} == set(STEPS) - {"bare_downsampling", "final_norm"}
    assert (tmp_path / "roadmap.png").stat().st_size > 10_000


def test_findings_compare_gains_beyond_two_standard_errors(roadmap):
    assert roadmap.finding(0.5, 0.2, 0.5, 0.1) == "as in the paper"
    assert roadmap.finding(0.3, 0.2, 0.1, 0.1) == "as in the paper"  # neither changes anything
    assert roadmap.finding(-0.5, 0.2, 0.5, 0.1) == "the opposite"
    assert roadmap.finding(-0.5, 0.2, 0.1, 0.1) == "only here"
    assert roadmap.finding(0.3, 0.2, 0.5, 0.1) == "not here"
    assert roadmap.finding(0.3, None, 0.5, 0.1) == ""  # a single run


def test_a_run_that_is_done_is_not_repeated(roadmap, tmp_path, monkeypatch):
    started = []

    def run(command, **_):
        started.append(command[command.index("--model") + 1])
        folder = command[command.index("--output") + 1]
        folder.mkdir()
        (folder / "log.csv").write_text("epoch,val_accuracy\n1,0.2\n2,0.5\n")

    study = roadmap.Study("data", tmp_path, tmp_path / "results", {"epochs": 2})
    monkeypatch.setattr(roadmap.subprocess, "run", run)
    monkeypatch.setattr(roadmap, "write", lambda *_: None)
    study.figures["accuracies"]["width"] = {"0": 0.6}
    for seed in (0, 1):
        study.run("width", seed)
    assert started == ["roadmap:cifar/width"]
    assert study.figures["accuracies"]["width"] == {"0": 0.6, "1": 0.5}


def test_results_of_other_settings_are_not_mixed(roadmap, tmp_path):
    study = roadmap.Study("data", tmp_path, tmp_path, {"epochs": 2})
    roadmap.write(study.figures, tmp_path)
    with pytest.raises(SystemExit, match="has results of other settings: set another --output"):
        roadmap.Study("data", tmp_path, tmp_path, {"epochs": 3})
