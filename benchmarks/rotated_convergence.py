"""Why regressing five numbers with an IoU loss fails, and what helps: one run per remedy.

Each run trains the same backbone from the same seed, on the same data, for the same number of
updates. Two commands:

    python benchmarks/rotated_convergence.py run RUNS
    python benchmarks/rotated_convergence.py report

The first one trains all runs of the table `RUNS`, or those of --only, in turn, in subfolders of the
folder RUNS; the same command continues after an interruption. Without --data, it draws shapes into
RUNS/shapes. The log of a finished run is copied to `results/rotated`, or the folder of --results,
and a run whose log is there is not repeated: the study can be spread over days and machines, but
for a run that starts from another one, which has to be in RUNS. The second command writes
report.json and curves.png beside the logs: AP50 by update, the share of positive anchors whose box
does not overlap its object, and hence has no gradient, and the spread of the decoded sizes.
"""

import argparse
import csv
import json
import math
import shutil
from pathlib import Path

import numpy as np
from machine import description
from PIL import Image, ImageDraw

CLASSES = ("bar", "ellipse", "wedge")
_SUPERSAMPLED = 4

# The settings by which a run differs from the first, which is that of the published row that works.
_DIRECT = {"regression": "direct", "assigner": "iou"}
RUNS = {
    "expectation": {},
    "direct": _DIRECT,
    "direct, one anchor by ATSS": {**_DIRECT, "assigner": "atss"},
    "direct, linear IoU": {**_DIRECT, "loss.box": "iou_linear"},
    "direct, OpenCV angles": {**_DIRECT, "convention": "oc"},
    "direct, KLD": {**_DIRECT, "loss.box": "kld", "loss.weight": 5.5},
    "direct, L1 of deltas": {**_DIRECT, "loss.box": "l1"},
    "direct, L1 first": {**_DIRECT, "start": "direct, L1 of deltas"},
    "expectation, IoU assigner": {"assigner": "iou"},
}
SHARED = {
    "start": None, "drop_path_rate": 0.0, "channels": 64, "learning_rate": 5e-4,
    "epochs": None, "warmup_epochs": 0, "batch_size": 4, "device_batch": 4,
    "size": 256, "overlap": 64, "validation_share": 0.0,
}  # fmt: skip
MODEL = "convnext_atto"
RESULTS = Path(__file__).parent / "results" / "rotated"


def draw(folder, count, side=256, seed=0, most=8):
    """Draws pictures of rotated shapes as a folder of DOTA: `images` and `labelTxt`.

    Bars are rectangles, ellipses are inscribed in their boxes, and wedges are triangles, whose
    boxes are those around them; all are three to six times as long as wide, so that the angle
    matters, on noise.
    """
    random = np.random.default_rng(seed)
    for kind in ("images", "labelTxt"):
        (Path(folder) / kind).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        image, lines = _picture(random, side, most)
        image.save(Path(folder) / "images" / f"{number:04d}.png")
        (Path(folder) / "labelTxt" / f"{number:04d}.txt").write_text("".join(lines))


def _picture(random, side, most):
    big = side * _SUPERSAMPLED
    background = random.integers(40, 120, 3)
    sheet = Image.new("RGB", (big, big), tuple(map(int, background)))
    pen = ImageDraw.Draw(sheet)
    lines, taken = [], []
    for _ in range(20 * most):
        if len(taken) >= random.integers(2, most + 1):
            break
        length = side * random.uniform(0.1, 0.3)
        width = length / random.uniform(3, 6)
        center, angle = random.uniform(length / 2, side - length / 2, 2), random.uniform(0, math.pi)
        if any(np.hypot(*(center - other)) < (length + reach) / 2 for other, reach in taken):
            continue
        taken.append((center, length))
        turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        label = int(random.integers(len(CLASSES)))
        corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) / 2 * [length, width]
        if label == 0:
            outline = corners
        elif label == 1:
            turns = np.linspace(0, 2 * math.pi, 60, endpoint=False)
            outline = np.stack([np.cos(turns), np.sin(turns)], 1) / 2 * [length, width]
        else:
            outline = np.array([[-1, -1], [1, 0], [-1, 1]]) / 2 * [length, width]
        color = tuple(map(int, random.integers(140, 256, 3)))
        pen.polygon([tuple(each) for each in (outline @ turn + center) * _SUPERSAMPLED], color)
        numbers = " ".join(f"{value:.2f}" for value in (corners @ turn + center).ravel())
        lines.append(f"{numbers} {CLASSES[label]} 0\n")
    pixels = np.asarray(sheet.resize((side, side), Image.Resampling.BOX), np.float32)
    pixels = pixels + random.normal(0, 12, pixels.shape)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)), lines


def run(runs, results, data, names, updates, settings):
    """Trains the runs that are not done."""
    from keras_convnext.detection.rotated import train

    if data is None:
        data = runs / "shapes"
        if not (data / "val").is_dir():
            draw(data / "train", 400)
            draw(data / "val", 60, seed=1)
            (data / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    results.mkdir(parents=True, exist_ok=True)
    for name in names:
        rows = log_of(results, name)
        if rows and rows[-1]["update"] == updates:
            continue
        own = {
            **SHARED, "updates": updates, "warmup_updates": min(100, updates // 10),
            "evaluation_updates": max(updates // 10, 20), "save_updates": 50,
        }  # fmt: skip
        own |= RUNS[name] | settings
        if own["start"]:
            own["start"] = str(runs / file_name(own["start"]) / "final.keras")
        train("detect_rotated_small", MODEL, data, runs / file_name(name), own)
        shutil.copy(runs / file_name(name) / "log.csv", log_path(results, name))
        print(name, log_of(results, name)[-1], flush=True)


def file_name(name):
    return name.replace(",", "").replace(" ", "_")


def log_path(results, name):
    return results / f"{file_name(name)}.csv"


def log_of(results, name):
    """Returns the rows of the log of a finished run, as numbers; none if it is not finished."""
    if not log_path(results, name).exists():
        return []
    with log_path(results, name).open(newline="") as file:
        return [
            {key: float(value) for key, value in row.items() if value}
            for row in csv.DictReader(file)
        ]


def report(results):
    """Writes the figures of all finished runs, and plots their curves."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    logs = {name: rows for name in RUNS if (rows := log_of(results, name))}
    columns = {"val_ap50": "AP50", "no_gradient": "positives without IoU", "size_spread": "spread"}
    figures = {
        name: {
            "updates": rows[-1]["update"],
            **{key: rows[-1].get(key) for key in ("val_ap50", "val_ap75", "val_ap", *columns)},
            "best_ap50": max(row.get("val_ap50", 0) for row in rows),
        }
        for name, rows in logs.items()
    }
    text = json.dumps({"machine": description(("tensorflow", "keras")), "runs": figures}, indent=1)
    (results / "report.json").write_text(text + "\n")
    figure, axes = pyplot.subplots(1, len(columns), figsize=(15, 4.5), layout="constrained")
    for axis, (key, title) in zip(axes, columns.items()):
        for name, rows in logs.items():
            shown = [row for row in rows if key in row]
            axis.plot([row["update"] for row in shown], [row[key] for row in shown], label=name)
        axis.set(title=title, xlabel="updates")
    axes[0].legend(fontsize="small")
    figure.savefig(results / "curves.png", dpi=100)
    for name, own in figures.items():
        known = {key: round(value, 4) for key, value in own.items() if value is not None}
        print(f"{name:32}", known)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="train the runs that are not done")
    running.add_argument("runs", type=Path, help="folder of the runs")
    running.add_argument("--data", help="folder of DOTA; default: drawn shapes")
    running.add_argument("--only", action="append", choices=RUNS, help="repeatable")
    running.add_argument("--updates", type=int, default=2000)
    running.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    reporting = commands.add_parser("report", help="write figures and curves")
    for command in (running, reporting):
        command.add_argument("--results", type=Path, default=RESULTS, help="folder of the logs")
    given = parser.parse_args()
    if given.command == "report":
        report(given.results)
        return
    settings = dict(each.split("=", 1) for each in given.set)
    names = given.only or list(RUNS)
    run(given.runs, given.results, given.data, names, given.updates, settings)


if __name__ == "__main__":
    main()
