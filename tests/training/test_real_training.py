"""A short training on real photographs, stopped in the middle and resumed."""

import csv
import signal
import tarfile
from collections import Counter
from pathlib import Path

import pytest
import toy_runs

from keras_convnext.classification import train
from keras_convnext.training import Interrupted
from keras_convnext.training.journal import Journal

ARCHIVE = Path(__file__).parents[3] / "shared" / "data" / "cifar10_jpeg.tar.gz"
TRAIN, TEST = 150, 30  # images of a class


@pytest.fixture(scope="module")
def cifar10(tmp_path_factory):
    if not ARCHIVE.is_file():
        pytest.skip(f"needs {ARCHIVE.name} in the folder beside the repository")
    folder = tmp_path_factory.mktemp("cifar10")
    found = Counter()
    with tarfile.open(ARCHIVE) as archive:
        for member in archive:
            split, name = Path(member.name).parts[-3:-1] if member.isfile() else ("", "")
            if found[split, name] < {"train": TRAIN, "test": TEST}.get(split, 0):
                found[split, name] += 1
                path = folder / split / name / Path(member.name).name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(archive.extractfile(member).read())
    assert len(found) == 20
    return folder


@pytest.mark.slow
def test_cifar10_is_learned_and_a_stop_does_not_show(cifar10, tmp_path, monkeypatch):
    settings = {"epochs": 6, "warmup_epochs": 1, "batch_size": 50, "ema_decay": 0.95,
                "mixup": 0.8, "cutmix": 1.0, "mixing_probability": 0.5}  # fmt: skip
    run = ("cifar10", "convnext_cifar", cifar10, tmp_path / "run", settings)
    monkeypatch.setattr(Journal, "on_train_batch_end", Journal.on_train_batch_end)
    toy_runs.raise_at(70, signal.SIGTERM)
    with pytest.raises(Interrupted, match="after update 71"):
        train(*run)
    train(*run)
    with (tmp_path / "run" / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["update"] for row in rows] == ["30", "60", "90", "120", "150", "180"]
    losses = [float(row["loss"]) for row in rows]
    assert losses[-1] < losses[0] - 0.2
    # One in ten is chance; labels or images out of step stay there.
    assert float(rows[-1]["val_accuracy"]) > 0.25
