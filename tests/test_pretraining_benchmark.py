"""The study of pre-training: its labels, its table, and that no run is repeated."""

import importlib
from pathlib import Path

import pytest
from PIL import Image

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module("pretraining")
    monkeypatch.setattr(module, "LABELS_PER_CLASS", 2)
    return module


@pytest.fixture
def images(tmp_path):
    for split, count in (("train", 6), ("test", 1)):
        for name in ("cat", "dog"):
            folder = tmp_path / "images" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (4, 4)).save(folder / f"{number}.png")
    return tmp_path / "images"


def test_each_seed_draws_as_many_labels_of_each_class(study, images, tmp_path):
    drawn = []
    for seed in (0, 0, 1, 2):
        folder = study.draw_labels(images, tmp_path / f"labels-{seed}", seed)
        found = sorted(str(path.relative_to(folder)) for path in folder.glob("train/*/*.png"))
        assert [Path(path).parent.name for path in found] == ["cat", "cat", "dog", "dog"]
        assert len(list((folder / "test").glob("*/*.png"))) == 2
        drawn.append(found)
    assert drawn[0] == drawn[1]
    assert len({tuple(each) for each in drawn}) > 1


def test_runs_are_made_once_and_compared_by_seed(study, images, tmp_path, monkeypatch):
    started = []

    monkeypatch.setattr(study, "description", lambda _: {})

    def run(command, **_):
        folder = command[command.index("--output") + 1]
        started.append(folder.name)
        folder.mkdir(parents=True)
        name = "val_loss" if folder.name == "pretraining" else "val_accuracy"
        last = 0.6 if folder.name.startswith("pre-trained") else 0.5
        (folder / "log.csv").write_text(f"epoch,{name}\n1,0.1\n2,{last}\n")
        (folder / "reconstructions.png").touch()
        start = next((part for part in command if str(part).startswith("start=")), None)
        assert (start == "start=none") == folder.name.startswith("from_scratch")

    monkeypatch.setattr(study.subprocess, "run", run)
    settings = {"pretraining": {"epochs": 2}, **{arm: {"epochs": 3} for arm in study.ARMS}}
    for _ in range(2):
        own = study.Study(images, tmp_path, tmp_path / "results", settings)
        own.pretrain()
        for arm in study.ARMS:
            own.train(arm, 1)
    assert started == ["pretraining", "pre-trained-1", "from_scratch-1"]
    table = (tmp_path / "results" / "pretraining.md").read_text()
    assert "| 1 | 50.00 | 60.00 | +10.00 |" in table
    assert "| mean | 50.00 | 60.00 | +10.00 |" in table
    assert {"log.csv", "reconstructions.png", "results.json"} <= {
        path.name for path in (tmp_path / "results").iterdir()
    }
    with pytest.raises(SystemExit, match="other settings"):
        study.Study(images, tmp_path, tmp_path / "results", {})
