"""The study of rotated regression: its kept figures are those of its logs, and the page's those."""

import importlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "rotated"
LOG = "epoch,update,no_gradient,size_spread,val_ap50,val_ap75,val_ap\n{}"


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module("rotated_convergence")


def test_a_report_is_of_the_last_row_of_each_log(study, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    study.log_path(tmp_path, "expectation").write_text(
        LOG.format("1,10,0.5,0.9,0.75,0.1,0.2\n2,20,0.25,0.5,0.5,0.05,0.125\n")
    )
    study.log_path(tmp_path, "direct, L1 first").write_text(
        LOG.format("1,10,0,0.3,,,\n2,20,0,0.2,0.25,0.0,0.0625\n")
    )
    study.report(tmp_path)
    runs = json.loads((tmp_path / "report.json").read_text())["runs"]
    assert list(runs) == ["expectation", "direct, L1 first"]
    assert runs["expectation"] == {
        "updates": 20, "val_ap50": 0.5, "val_ap75": 0.05, "val_ap": 0.125, "no_gradient": 0.25,
        "size_spread": 0.5, "best_ap50": 0.75,
    }  # fmt: skip
    assert "| direct, L1 first | 25.0 | 0.0 | 6.2 |" in capsys.readouterr().out
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_a_finished_run_is_not_repeated(study, tmp_path, monkeypatch):
    rotated = importlib.import_module("keras_convnext.detection.rotated")
    started = []

    def train(recipe, model, data, folder, settings):
        started.append((folder.name, settings["start"]))
        folder.mkdir(parents=True)
        (folder / "log.csv").write_text(LOG.format("1,20,0,0,0.5,0.5,0.5\n"))

    monkeypatch.setattr(rotated, "train", train)
    names = ["direct", "direct, L1 first"]
    for _ in range(2):
        study.run(tmp_path / "runs", tmp_path / "kept", "data", names, 20, {})
    first = tmp_path / "runs" / "direct_L1_of_deltas" / "final.keras"
    assert started == [("direct", None), ("direct_L1_first", str(first))]
    study.run(tmp_path / "more", tmp_path / "kept", "data", ["direct"], 40, {"start": "my.keras"})
    assert started[2:] == [("direct", "my.keras")]


@pytest.mark.parametrize(
    ("regression", "group_norm", "one_anchor", "norms", "anchors"),
    [
        ("direct", None, False, 0, 9),
        ("direct", True, False, 8, 9),
        ("direct", None, True, 0, 1),
        ("expectation", False, False, 0, 1),
        ("expectation", None, False, 8, 1),
    ],
)
def test_a_run_changes_the_head(study, regression, group_norm, one_anchor, norms, anchors):
    from keras import ops

    from keras_convnext.detection.rotated import network

    own = network.RotatedHead
    with study.head(group_norm, one_anchor):
        head = network.RotatedHead(2, regression, channels=32)
        _, deltas = head([ops.ones((1, 8, 8, 32))])
    assert deltas[0].shape == (1, 8, 8, anchors * 5)
    assert [norm.built for norm in (*head.class_norms, *head.box_norms)] == [True] * norms
    assert network.RotatedHead is own
    assert own(2, "direct").anchors == 9


def test_the_kept_figures_are_those_of_the_kept_logs(study):
    page = (ROOT / "docs" / "rotated.md").read_text("utf-8")
    for folder in (RESULTS, RESULTS / "ucas50"):
        kept = json.loads((folder / "report.json").read_text())["runs"]
        assert kept == study.figures_of({name: study.log_of(folder, name) for name in kept})
        rows = study.table(kept).splitlines()
        assert [row for row in rows if row not in page] == []
    assert (
        f"AP50 of {100 * study.log_of(RESULTS / 'long', 'expectation')[-1]['val_ap50']:.1f}" in page
    )
    for name in ("training_images", "training_images_direct"):
        scores = json.loads((RESULTS / "ucas50" / f"{name}.json").read_text())
        assert f"{100 * scores['eleven_points']['AP50']:.1f} with " in page
