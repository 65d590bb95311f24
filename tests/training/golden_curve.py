"""Compares sixty updates of a toy run with the stored results.

`golden_curve.py` runs the training and prints the difference from `golden_curve.json`;
`golden_curve.py --write` replaces that file. A commit that changes the file explains why, for
example a different initialization or augmentation.

Rounding differs between processors and numbers of threads. The run is chosen so that rounding
errors do not grow: float32, a small network, and a low learning rate.
"""

import argparse
import csv
import json
import tempfile
from pathlib import Path

import toy_runs

from keras_convnext.classification import train
from keras_convnext.variants import Variant

CURVE = Path(__file__).with_suffix(".json")
NETWORK = Variant("golden", (1, 1, 2), (8, 16, 16), 0.3, 2, stddev=None)
UPDATES = 60
SETTINGS = {
    "epochs": UPDATES,  # of one update each
    "evaluation_updates": 5,  # every update is in a mean; evaluations take most of the time
    "warmup_epochs": 10,
    "frozen_epochs": 2,
    "batch_size": 24,
    "device_batch": 12,  # two batches are accumulated
    "mixing_batch": 4,
    "learning_rate": 4e-3,
    "weight_decay": 0.5,  # with so low a learning rate, 0.05 would hardly show
    "layer_decay": 0.8,
    "clip_norm": 1.0,
    "ema_decay": 0.9,
    "drop_path_rate": 0.3,
    "layer_scale": 0.3,
    "size": 16,
}
LOSSES = ("loss", "val_loss", "val_ema_loss")
ACCURACIES = ("val_accuracy", "val_ema_accuracy")


def measure(folder):
    """Runs the training, and returns the rows of its log and the final accuracies."""
    pictures = toy_runs.make_pictures(folder / "pictures", 8, 3, extension="png")
    train("imagenet1k", NETWORK.name, pictures, folder / "run", SETTINGS)
    with (folder / "run" / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {
        "updates": {row["update"]: {name: float(row[name]) for name in LOSSES} for row in rows},
        "end": {name: float(rows[-1][name]) for name in ACCURACIES},
    }


def numbers(curve):
    """Returns all numbers of a run by name, such as "loss of update 10"."""
    return {
        f"{name} of update {update}": value
        for update, row in curve["updates"].items()
        for name, value in row.items()
    } | curve["end"]


def write(curve):
    rows = ",\n".join(f'    "{n}": {json.dumps(row)}' for n, row in curve["updates"].items())
    text = f'{{\n  "updates": {{\n{rows}\n  }},\n  "end": {json.dumps(curve["end"])}\n}}\n'
    CURVE.write_text(text, "utf-8")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help=f"replace {CURVE.name}")
    writes = parser.parse_args().write
    toy_runs.register(variant=NETWORK)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder))
    if writes:
        write(found)
        return
    theirs = numbers(json.loads(CURVE.read_text("utf-8")))
    apart = {name: abs(ours / theirs[name] - 1) for name, ours in numbers(found).items()}
    farthest = max(apart, key=apart.get)
    print(f"At most {apart[farthest]:.1e} away, relatively: {farthest}")


if __name__ == "__main__":
    main()
