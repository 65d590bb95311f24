"""Trains every step of the road from ResNet-50 to ConvNeXt on CIFAR-10, with an equal budget.

Command: `python benchmarks/roadmap.py FOLDER --runs RUNS`. FOLDER holds CIFAR-10's images, with the
splits "train" and "test"; RUNS receives a folder per run, and may be deleted when all is done. The
networks are those of the regime "cifar", and each run is one of `keras-convnext train --recipe
roadmap` with the settings in `SETTINGS`. One run per core at a time, and all steps with one seed
before the next seed. About 6 hours on two cores. An interrupted study continues where it was, in
the middle of a run. Accuracies are those of the last weights, not of the best.

Writes results.json, roadmap.md and roadmap.png to `benchmarks/results/roadmap/`, or the folder of
`--output`, after every run; `--report` only writes them.
"""

import argparse
import csv
import json
import math
import os
import statistics
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from machine import description

RESULTS = Path(__file__).parent / "results" / "roadmap"
LIBRARIES = ("keras-convnext", "keras", "tensorflow", "numpy")
REGIME = "cifar"
# The released code of the last-but-one step does not train, and the norm before the head has no row
# in the paper's table.
LEFT_OUT = ("bare_downsampling", "final_norm")
CHANGES = {"downsampling": "2x2 downsampling, with norms"}  # both changes at once
BRANCHES = ("kernel_5", "kernel_9", "kernel_11")  # the road goes on from kernel_7
SEEDS = 3
# The recipe of the road, but for what 300 epochs of ImageNet need and 4 of CIFAR-10 do not.
SETTINGS = {
    "epochs": 4, "warmup_epochs": 1, "batch_size": 128, "device_batch": 128, "learning_rate": 2e-3,
    "ema_decay": "none", "rand_augment": "none", "random_erasing": 0, "mixup": 0, "cutmix": 0,
    "size": 32, "crop_scale": "0.6,1.0",
}  # fmt: skip


def steps() -> list[str]:
    from keras_convnext.roadmap import STEPS

    return [name for name in STEPS if name not in LEFT_OUT]


class Study:
    """The runs of a study, and their accuracies.

    Args:
        data: str. Folder of the images.
        runs: path. Folder of the runs.
        output: path. Folder of the results.
        settings: dict. Settings of every run.
    """

    def __init__(self, data: str, runs: Path, output: Path, settings: dict[str, object]) -> None:
        self.data, self.runs, self.output, self.settings = data, runs, output, settings
        self.lock = threading.Lock()
        self.figures = read(output) or {"accuracies": {}, "settings": settings}
        if self.figures["settings"] != settings:
            raise SystemExit(f"{output} has results of other settings: set another --output")
        self.figures["command"] = "python benchmarks/roadmap.py FOLDER --runs RUNS"
        self.figures["machine"] = description(LIBRARIES)

    def run(self, step: str, seed: int) -> None:
        """Trains a step with a seed, unless that is done, and notes its accuracy."""
        known = self.figures["accuracies"].setdefault(step, {})
        if str(seed) in known:
            return
        folder = self.runs / f"{step}-{seed}"
        settings = [f"{name}={value}" for name, value in {**self.settings, "seed": seed}.items()]
        threads = dict.fromkeys(
            ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"), "1"
        )
        with (self.runs / f"{step}-{seed}.log").open("a") as log:
            subprocess.run(
                [sys.executable, "-m", "keras_convnext", "train", "--recipe", "roadmap",
                 "--model", f"roadmap:{REGIME}/{step}", "--data", self.data, "--output", folder,
                 *(part for setting in settings for part in ("--set", setting))],
                env={**os.environ, **threads}, stdout=log, stderr=log, check=True,
            )  # fmt: skip
        with (folder / "log.csv").open(encoding="utf-8", newline="") as file:
            *_, last = csv.DictReader(file)
        with self.lock:
            known[str(seed)] = round(float(last["val_accuracy"]), 4)
            print(f"{step}, seed {seed}: {known[str(seed)]:.2%}", flush=True)
            write(self.figures, self.output)


def read(output: Path) -> dict | None:
    path = output / "results.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else None


def write(figures: dict, output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    partial = output / "results.json.part"
    partial.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    partial.replace(output / "results.json")
    (output / "roadmap.md").write_text(markdown(figures), "utf-8")
    draw(figures, output / "roadmap.png")


def rows(figures: dict) -> list[dict]:
    """Returns what was measured and what the paper reports, by step."""
    from keras_convnext.roadmap import REGIMES, STEPS, parts

    paper, found, before = REGIMES["resnet50"], [], None
    for name in steps():
        own = [100 * value for value in figures["accuracies"].get(name, {}).values()]
        reported = paper.figures_of(STEPS[name])
        row = {
            "step": name,
            "change": CHANGES.get(name) or REGIMES[REGIME].change_of(STEPS[name]),
            "mmacs": sum(part.macs for part in parts(name, REGIME)) / 1e6,
            "mean": statistics.mean(own) if own else None,
            "deviation": statistics.stdev(own) if len(own) > 1 else None,
            "runs": len(own),
            "paper": reported.top1,
            "paper_deviation": reported.deviation,
            "gain": None,
            "paper_gain": None,
        }  # fmt: skip
        if before:
            row["paper_gain"] = row["paper"] - before["paper"]
            if row["mean"] is not None and before["mean"] is not None:
                row["gain"] = row["mean"] - before["mean"]
        found.append(row)
        if name not in BRANCHES:
            before = row
    return found


def error_of(found: list[dict], column: str) -> float | None:
    """Returns the standard error of a gain between two means of three runs, for all steps alike."""
    deviations = [row[column] for row in found if row[column] is not None]
    if not deviations:
        return None
    pooled = math.sqrt(statistics.mean(deviation**2 for deviation in deviations))
    return pooled * math.sqrt(2 / SEEDS)


def finding(
    gain: float | None, error: float | None, paper_gain: float | None, paper_error: float
) -> str:
    """Compares two gains. One below two standard errors counts as no change."""
    if gain is None or error is None or paper_gain is None:
        return ""
    here, there = direction(gain, error), direction(paper_gain, paper_error)
    if here == there:
        return "as in the paper"
    if here == 0:
        return "not here"
    return "only here" if there == 0 else "the opposite"


def direction(gain: float, error: float) -> int:
    return 0 if abs(gain) < 2 * error else int(math.copysign(1, gain))


def markdown(figures: dict) -> str:
    settings = ", ".join(f"{name} {value}" for name, value in figures["settings"].items())
    found = rows(figures)
    here, there = error_of(found, "deviation"), error_of(found, "paper_deviation")
    lines = [
        "# The road from ResNet-50 to ConvNeXt on CIFAR-10",
        "",
        f"Top-1 accuracy in percent on the 10,000 test images, with the last weights of each run: "
        f"mean and standard deviation over the seeds. Networks of the regime `{REGIME}`. "
        f"Settings: {settings}. The paper's figures are those of ImageNet-1K: table 10, and "
        "table 1 for the last step.",
        "",
        "The finding compares the gain with the paper's. A gain below two standard errors counts "
        f"as no change: {_points(here)} here, {_points(there)} in the paper, from the "
        f"deviations of all steps together, for means of {SEEDS} runs.",
        "",
        f"Command: `{figures['command']}`.",
        "",
        "| step | change | MMACs | CIFAR-10 | runs | gain | paper | paper's gain | finding |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for row in found:
        mean, paper = row["mean"], row["paper"]
        spread = "" if row["deviation"] is None else f" ± {row['deviation']:.2f}"
        compared = finding(row["gain"], here, row["paper_gain"], there)
        lines.append(
            f"| {row['step']} | {row['change']} | {row['mmacs']:.1f} | "
            f"{'' if mean is None else f'{mean:.2f}{spread}'} | {row['runs']} | "
            f"{_gain(row['gain'])} | {paper} | {_gain(row['paper_gain'])} | {compared} |"
        )
    return "\n".join(lines) + "\n"


def _gain(gain: float | None) -> str:
    return "" if gain is None else f"{gain:+.2f}"


def _points(error: float | None) -> str:
    return "not yet known" if error is None else f"{2 * error:.2f} points"


def draw(figures: dict, path: Path) -> None:
    """Draws accuracies as bars and operations as diamonds, as in figure 2 of the paper."""
    import matplotlib.pyplot as plt

    shown = rows(figures)
    names = [row["change"] for row in shown]
    figure, axes = plt.subplots(1, 2, figsize=(10, 6), sharey=True, layout="constrained")
    columns = {"CIFAR-10, this study": "mean", "ImageNet-1K, the paper": "paper"}
    for axis, (title, column) in zip(axes, columns.items()):
        values = [row[column] for row in shown]
        present = [value for value in values if value is not None]
        spread = [row["deviation"] or 0 for row in shown] if column == "mean" else None
        axis.barh(names, [value or 0 for value in values], xerr=spread, color="#9ab8d9", height=0.7)
        if present:
            axis.set_xlim(min(present) - 2, max(present) + 1)
        axis.set_xlabel("top-1 accuracy, %")
        axis.set_title(title)
    axes[0].invert_yaxis()
    operations = axes[0].twiny()
    operations.plot([row["mmacs"] for row in shown], names, "D", color="#b5403c", markersize=4)
    operations.set_xlim(0)
    operations.set_xlabel("multiply-accumulates, millions (diamonds)", color="#b5403c")
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", help="CIFAR-10's images")
    parser.add_argument("--runs", type=Path, help="folder of the runs")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--set", action="append", default=[], help="NAME=VALUE, for a trial")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="runs at a time")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--report", action="store_true", help="write table and plot again")
    options = parser.parse_args()
    if options.report:
        write(read(options.output), options.output)
        return
    if options.folder is None or options.runs is None:
        parser.error("FOLDER and --runs are required")
    options.runs.mkdir(parents=True, exist_ok=True)
    settings = {**SETTINGS, **dict(setting.split("=", 1) for setting in options.set)}
    study = Study(options.folder, options.runs, options.output, settings)
    with ThreadPoolExecutor(options.workers) as workers:
        pending = [
            workers.submit(study.run, step, seed)
            for seed in range(options.seeds)
            for step in steps()
        ]
        try:
            for each in pending:
                each.result()
        except BaseException:
            workers.shutdown(cancel_futures=True)
            raise


if __name__ == "__main__":
    main()
