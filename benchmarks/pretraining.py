"""Measures what masked pre-training gains on CIFAR-10 if only 1,000 images have labels.

Command: `python benchmarks/pretraining.py FOLDER --runs RUNS`. FOLDER holds CIFAR-10's images in
class folders, with the splits "train" and "test"; RUNS receives a folder per run, and may be
deleted when all is done. convnextv2_cifar is pre-trained once on the training images, whose class
folders are not used. For each seed, 100 images per class are drawn, and the network is trained on
them twice for equally many updates: from the pre-trained encoder, and from scratch. Accuracies are
those of the last weights on all test images. An interrupted study continues where it was, in the
middle of a run.

Writes results.json, pretraining.md, log.csv (of the pre-training) and reconstructions.png to
`benchmarks/results/pretraining/`, or the folder of `--output`, after every run.
"""

import argparse
import csv
import json
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
from machine import description

RESULTS = Path(__file__).parent / "results" / "pretraining"
LIBRARIES = ("keras-convnext", "keras", "tensorflow", "numpy")
MODEL, LABELS_PER_CLASS, SEEDS = "convnextv2_cifar", 100, 3
ARMS = ("pre-trained", "from scratch")
# Of the recipe pretrain_small, for few epochs on small images.
PRETRAINING: dict[str, object] = {
    "epochs": 8, "warmup_epochs": 1, "batch_size": 128, "device_batch": 128,
    "algorithm": "muon", "learning_rate": 6e-3, "decoder_width": 128, "validation_share": 0.01,
}  # fmt: skip
# Of the recipe cifar10, with its rate, for 20 updates per epoch. In a trial of 200 updates, a rate
# of 3e-3 was worse for the pre-trained encoder.
COMMON: dict[str, object] = {
    "epochs": 20, "warmup_epochs": 2, "batch_size": 50, "device_batch": 50, "ema_decay": "none",
    "evaluation_updates": 400,
}  # fmt: skip
OF_ARM: dict[str, dict[str, object]] = {
    "pre-trained": {"learning_rate": 8e-3, "layer_decay": 0.8, "layer_groups": "single"},
    "from scratch": {"learning_rate": 8e-3},
}


class Study:
    """The runs of the study, and their figures.

    Args:
        data: path. Folder of the images.
        runs: path. Folder of the runs.
        output: path. Folder of the results.
        settings: dict. Settings of the pre-training ("pretraining"), and of each arm.
    """

    def __init__(
        self, data: Path, runs: Path, output: Path, settings: dict[str, dict[str, object]]
    ) -> None:
        self.data, self.runs, self.output, self.settings = data, runs, output, settings
        self.figures = read(output) or {"settings": settings, "arms": {arm: {} for arm in ARMS}}
        if self.figures["settings"] != settings:
            raise SystemExit(f"{output} has results of other settings: set another --output")
        self.figures["command"] = "python benchmarks/pretraining.py FOLDER --runs RUNS"
        self.figures["machine"] = description(LIBRARIES)

    def pretrain(self) -> None:
        """Pre-trains, unless that is done, and copies its log and reconstructions."""
        if "pretraining" in self.figures:
            return
        last = self._train(
            "pretraining", "pretrain_small", self.data / "train", self.settings["pretraining"]
        )
        self.figures["pretraining"] = {"val_loss": float(last["val_loss"])}
        self.output.mkdir(parents=True, exist_ok=True)
        for name in ("log.csv", "reconstructions.png"):
            shutil.copy(self.runs / "pretraining" / name, self.output / name)
        write(self.figures, self.output)

    def train(self, arm: str, seed: int) -> None:
        """Trains on labels, unless that is done, and notes the accuracy."""
        known = self.figures["arms"][arm]
        if str(seed) in known:
            return
        encoder = self.runs / "pretraining" / "final.keras"
        settings = {**self.settings[arm], "seed": seed}
        settings["start"] = encoder if arm == "pre-trained" else "none"
        labels = draw_labels(self.data, self.runs / f"labels-{seed}", seed)
        last = self._train(f"{arm.replace(' ', '_')}-{seed}", "cifar10", labels, settings)
        known[str(seed)] = {"accuracy": round(float(last["val_accuracy"]), 4)}
        print(f"{arm}, seed {seed}: {known[str(seed)]['accuracy']:.2%}", flush=True)
        write(self.figures, self.output)

    def _train(
        self, name: str, recipe: str, data: Path, settings: dict[str, object]
    ) -> dict[str, str]:
        """Trains, or continues a run; returns the last row of its log."""
        folder = self.runs / name
        parts = (f"{key}={value}" for key, value in settings.items())
        with (self.runs / f"{name}.log").open("a") as log:
            subprocess.run(
                [sys.executable, "-m", "keras_convnext", "train", "--recipe", recipe,
                 "--model", MODEL, "--data", data, "--output", folder,
                 *(part for setting in parts for part in ("--set", setting))],
                stdout=log, stderr=log, check=True,
            )  # fmt: skip
        with (folder / "log.csv").open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))[-1]


def draw_labels(data: Path, folder: Path, seed: int) -> Path:
    """Links to as many training images of each class as have labels, and to all test images."""
    generator = np.random.default_rng(seed)
    for source in sorted((data / "train").iterdir()):
        target = folder / "train" / source.name
        target.mkdir(parents=True, exist_ok=True)
        images = sorted(source.iterdir())
        for index in generator.choice(len(images), LABELS_PER_CLASS, replace=False):
            link(images[index], target / images[index].name)
    link(data / "test", folder / "test")
    return folder


def link(source: Path, target: Path) -> None:
    if not target.exists():
        target.symlink_to(source.resolve())


def read(output: Path) -> dict | None:
    path = output / "results.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else None


def write(figures: dict, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    partial = output / "results.json.part"
    partial.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    partial.replace(output / "results.json")
    (output / "pretraining.md").write_text(markdown(figures), "utf-8")


def markdown(figures: dict) -> str:
    settings = figures["settings"]
    pretrained, scratch = (figures["arms"][arm] for arm in ARMS)
    lines = [
        "# Masked pre-training on CIFAR-10",
        "",
        f"Top-1 accuracy in percent of {MODEL} on the 10,000 test images, after training on "
        f"{LABELS_PER_CLASS} labeled images per class, with the last weights. Each seed draws the "
        "labeled images, the head (all weights from scratch), the order and the augmentation. The "
        "encoder was pre-trained once, without labels, on all training images.",
        "",
        f"Command: `{figures['command']}`.",
        "",
        "| seed | from scratch | pre-trained | gain |",
        "| --- | ---: | ---: | ---: |",
    ]
    seeds = [seed for seed in pretrained if seed in scratch]
    found = [[100 * arm[seed]["accuracy"] for arm in (scratch, pretrained)] for seed in seeds]
    for seed, (before, after) in zip(seeds, found, strict=True):
        lines.append(f"| {seed} | {before:.2f} | {after:.2f} | {after - before:+.2f} |")
    if found:
        before, after = (statistics.mean(column) for column in zip(*found, strict=True))
        lines.append(f"| mean | {before:.2f} | {after:.2f} | {after - before:+.2f} |")
    lines += ["", "Settings:", ""]
    for name, recipe in (("pretraining", "pretrain_small"), *((arm, "cifar10") for arm in ARMS)):
        values = ", ".join(f"{key} {value}" for key, value in settings[name].items())
        lines.append(f"- {name} (recipe `{recipe}`): {values}")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="CIFAR-10's images")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    options.runs.mkdir(parents=True, exist_ok=True)
    settings = {"pretraining": PRETRAINING, **{arm: {**COMMON, **OF_ARM[arm]} for arm in ARMS}}
    study = Study(options.folder, options.runs, options.output, settings)
    study.pretrain()
    for seed in range(options.seeds):
        for arm in ARMS:
            study.train(arm, seed)


if __name__ == "__main__":
    main()
