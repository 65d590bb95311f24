"""Why regressing five numbers with an IoU loss falls behind: one run per difference and remedy.

Each run trains the same backbone from the same seed, on the same data, for the same number of
updates. Four commands:

    python benchmarks/rotated_convergence.py run RUNS
    python benchmarks/rotated_convergence.py report
    python benchmarks/rotated_convergence.py positives RUNS
    python benchmarks/rotated_convergence.py show RUNS WEIGHTS PICTURE

The first one trains all runs of the table `RUNS`, or those of --only, in turn, in subfolders of the
folder RUNS; the same command continues after an interruption. Without --data, it draws shapes into
RUNS/shapes. The log of a finished run is copied to `results/rotated`, or the folder of --results,
and a run whose log is there is not repeated: the study can be spread over days and machines, but
for a run that starts from another one, which has to be in RUNS. With --data, --set start=FILE lets
all runs start from a trained detector. The second command writes report.json and curves.png beside
the logs: AP50 by update, the share of positive anchors whose box does not overlap its object, and
hence has no gradient, and the spread of the decoded sizes. The third one counts how many anchors an
object of the drawn shapes is learned from, and the last one draws what a detector finds in them.
"""

import argparse
import csv
import json
import math
import shutil
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
from machine import description
from PIL import Image, ImageDraw

CLASSES = ("bar", "ellipse", "wedge")
_SUPERSAMPLED = 4

# The settings by which a run differs from the first, which is that of the published row that works.
_DIRECT = {"regression": "direct", "assigner": "iou"}
_ATSS = {**_DIRECT, "assigner": "atss"}
RUNS = {
    "expectation": {},
    "direct": _DIRECT,
    "direct, ATSS": _ATSS,
    "direct, one anchor by ATSS": {**_ATSS, "one_anchor": True},
    "direct, linear IoU": {**_DIRECT, "loss.box": "iou_linear"},
    "direct, OpenCV angles": {**_DIRECT, "convention": "oc"},
    "direct, KLD": {**_DIRECT, "loss.box": "kld", "loss.weight": 5.5},
    "direct, L1 of deltas": {**_DIRECT, "loss.box": "l1"},
    "direct, L1 first": {**_DIRECT, "start": "direct, L1 of deltas"},
    "expectation, IoU assigner": {"assigner": "iou"},
    "direct, group norm": {**_DIRECT, "group_norm": True},
    "direct, group norm and ATSS": {**_ATSS, "group_norm": True},
    "direct, group norm and one anchor by ATSS": {**_ATSS, "group_norm": True, "one_anchor": True},
    "expectation, no group norm": {"group_norm": False},
}
SHARED = {
    "start": None, "drop_path_rate": 0.0, "channels": 64, "learning_rate": 5e-4,
    "epochs": None, "warmup_epochs": 0, "batch_size": 4, "device_batch": 4,
    "size": 256, "overlap": 64, "validation_share": 0.0,
}  # fmt: skip
MODEL = "convnext_atto"
CURVES = {
    "val_ap50": "AP50",
    "no_gradient": "positives without a gradient",
    "size_spread": "spread",
}
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


def shapes(folder):
    """Draws the training and validation images, if they are not there."""
    if not (folder / "classes.txt").exists():
        draw(folder / "train", 400)
        draw(folder / "val", 60, seed=1)
        (folder / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    return folder


def run(runs, results, data, names, updates, settings):
    """Trains the runs that are not done."""
    from keras_convnext.detection.rotated import train

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
        if own["start"] in RUNS:
            own["start"] = str(runs / file_name(own["start"]) / "final.keras")
        with head(own.pop("group_norm", None), own.pop("one_anchor", False)):
            train("detect_rotated_small", MODEL, data, runs / file_name(name), own)
        shutil.copy(runs / file_name(name) / "log.csv", log_path(results, name))
        print(name, log_of(results, name)[-1], flush=True)


@contextmanager
def head(group_norm, one_anchor):
    """Within it, heads are changed in a way that no argument of the package does.

    They have group norm or none; None for what their regression has. With `one_anchor`, direct
    regression has the single anchor of the expectation at each position.
    """
    import keras

    from keras_convnext.detection.rotated import network
    from keras_convnext.detection.rotated.anchors import SHAPES
    from keras_convnext.detection.rotated.layers import DEPTH, RotatedHead

    class ChangedHead(RotatedHead):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            for name in ("class", "box"):
                norms = [
                    keras.layers.GroupNormalization(
                        32, epsilon=1e-5, dtype=self.dtype_policy, name=f"{name}_norm_{index}"
                    )
                    for index in range(DEPTH if group_norm else 0)
                ]
                setattr(self, f"{name}_norms", norms)

    own = RotatedHead if group_norm is None else ChangedHead
    anchors = {"direct": SHAPES["expectation"]} if one_anchor else {}
    with mock.patch.object(network, "RotatedHead", own), mock.patch.dict(SHAPES, anchors):
        yield


def file_name(name):
    """Returns the name of a run's folder and, with .csv, of its log."""
    return name.replace(",", "").replace(" ", "_")


def log_path(results, name):
    """Returns where the log of a finished run is kept."""
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


def positives(data):
    """Prints how many anchors each object of the validation images is learned from."""
    from keras_convnext.detection.rotated.anchors import SHAPES, rotated_anchors
    from keras_convnext.detection.rotated.assigners import assigned_adaptively, assigned_by_iou
    from keras_convnext.detection.rotated.folders import open_rotated
    from keras_convnext.detection.rotated.geometry import from_points

    pictures = open_rotated(data, "validation").pictures
    maps = [np.empty((1, side, side, 1)) for side in (32, 16, 8, 4, 2)]  # of 256 px
    for anchors in SHAPES.values():
        levels = [np.asarray(level) for level in rotated_anchors(maps, anchors)]
        used = np.ones((1, sum(map(len, levels))), bool)
        for assigner in ("iou", "atss"):
            counts = []
            for picture in pictures:
                boxes = from_points(picture.points())[None].astype(np.float32)
                of = boxes, np.ones(boxes.shape[:2], bool)
                if assigner == "iou":
                    found = assigned_by_iou(*of, np.concatenate(levels), used)
                else:
                    found = assigned_adaptively(*of, levels, used)
                found = np.asarray(found)
                counts += list(np.bincount(found[found >= 0], minlength=boxes.shape[1]))
            alone = 100 * np.mean(np.array(counts) == 1)
            print(
                f"anchors at a position: {anchors.per_position}, assigner: {assigner}, "
                f"positives of an object: {np.mean(counts):.1f}, objects with one: {alone:.0f}%"
            )


def show(data, weights, target):
    """Draws what a detector finds in the first validation images, put together as one scene."""
    from keras_convnext import load_model
    from keras_convnext.detection import detect_rotated, draw_rotated

    images = [np.asarray(Image.open(path)) for path in sorted((data / "val/images").iterdir())[:8]]
    scene = np.concatenate([np.concatenate(images[:4], 1), np.concatenate(images[4:], 1)])
    found = detect_rotated(load_model(weights), scene, tile=256, overlap=64)
    draw_rotated(scene, found, CLASSES).save(target, quality=90)


def figures_of(logs):
    """Returns the last figures of each run, and its best AP50."""
    shown = ("val_ap50", "val_ap75", "val_ap", *CURVES)
    return {
        name: {
            "updates": rows[-1]["update"],
            **{key: rows[-1].get(key) for key in shown},
            "best_ap50": max(row.get("val_ap50", 0) for row in rows),
        }
        for name, rows in logs.items()
    }


def table(figures):
    """Returns the average precisions, in percent, as a table in Markdown."""
    lines = ["| run | AP50 | AP75 | AP |", "|---|---|---|---|"]
    for name, own in figures.items():
        scores = (f"{100 * own[key]:.1f}" for key in ("val_ap50", "val_ap75", "val_ap"))
        lines.append(f"| {name} | {' | '.join(scores)} |")
    return "\n".join(lines)


def report(results):
    """Writes the figures of all finished runs, plots their curves, and prints a table."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    logs = {name: rows for name in RUNS if (rows := log_of(results, name))}
    figures = figures_of(logs)
    text = json.dumps({"machine": description(("tensorflow", "keras")), "runs": figures}, indent=1)
    (results / "report.json").write_text(text + "\n")
    figure, axes = pyplot.subplots(1, len(CURVES), figsize=(15, 4.5), layout="constrained")
    for axis, (key, title) in zip(axes, CURVES.items()):
        axis.set_prop_cycle(color=pyplot.get_cmap("tab20").colors)
        for name, rows in logs.items():
            shown = [row for row in rows if key in row]
            style = "--" if name.startswith("expectation") else "-"
            axis.plot(
                [row["update"] for row in shown], [row[key] for row in shown], style, label=name
            )
        axis.set(title=title, xlabel="updates")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.savefig(results / "curves.png", dpi=100)
    print(table(figures))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    running = commands.add_parser("run", help="train the runs that are not done")
    running.add_argument("runs", type=Path, help="folder of the runs")
    running.add_argument("--data", help="folder of DOTA; default: drawn shapes")
    running.add_argument("--only", action="append", choices=RUNS, help="repeatable")
    running.add_argument("--updates", type=int, default=800)
    running.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    counting = commands.add_parser("positives", help="count the positives of each object")
    counting.add_argument("runs", type=Path, help="folder of the runs")
    showing = commands.add_parser("show", help="draw what a detector finds")
    showing.add_argument("runs", type=Path, help="folder of the runs")
    showing.add_argument("weights", type=Path, help="file of a detector")
    showing.add_argument("picture", type=Path, help="the file to write")
    reporting = commands.add_parser("report", help="write figures and curves")
    for command in (running, reporting):
        command.add_argument("--results", type=Path, default=RESULTS, help="folder of the logs")
    given = parser.parse_args()
    if given.command == "report":
        report(given.results)
        return
    if given.command == "positives":
        positives(shapes(given.runs / "shapes"))
        return
    if given.command == "show":
        show(shapes(given.runs / "shapes"), given.weights, given.picture)
        return
    settings = dict(each.split("=", 1) for each in given.set)
    names = given.only or list(RUNS)
    data = given.data or shapes(given.runs / "shapes")
    run(given.runs, given.results, data, names, given.updates, settings)


if __name__ == "__main__":
    main()
