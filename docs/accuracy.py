"""Draws `weights/accuracy.png`: the accuracy of published weights over the cost per image.

python docs/accuracy.py
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from keras_convnext import list_weights
from keras_convnext.complexity import parts
from keras_convnext.variants import VARIANTS

PICTURE = Path(__file__).parent.parent / "weights" / "accuracy.png"
SERIES = {
    "imagenet22k_ft_384": "#7a0c1a",
    "imagenet22k_ft": "#c8102e",
    "imagenet_384": "#31506e",
    "imagenet": "#6f8fae",
}


def series(tag, isotropic):
    """Returns the short name, GMACs and accuracy in percent of each network with these weights."""
    rows = {row.model: row for row in list_weights() if row.tag == tag and row.top1}
    points = [
        (
            name.removeprefix("convnext_").removeprefix("isotropic_"),
            sum(part.macs for part in parts(VARIANTS[name], (row.size, row.size))) / 1e9,
            row.top1,
        )
        for name, row in rows.items()
        # The same weights as "imagenet22k_ft".
        if VARIANTS[name].isotropic == isotropic and (name, tag) != ("convnext_xlarge", "imagenet")
    ]
    return sorted(points, key=lambda point: point[1])


def main():
    figure, axis = pyplot.subplots(figsize=(8, 5), layout="constrained")
    for tag, color in SERIES.items():
        for isotropic, line in ((False, "-o"), (True, ":s")):
            if not (points := series(tag, isotropic)):
                continue
            _, macs, accuracies = zip(*points)
            label = tag + ", isotropic" * isotropic
            axis.plot(macs, accuracies, line, color=color, label=label, markersize=5)
            for index, (name, x, y) in enumerate(points):
                # Away from its own line and those of other series.
                place = (-8, -3) if index == 0 else (-3, 6) if tag == "imagenet22k_ft" else (5, -11)
                axis.annotate(
                    name, (x, y), place, textcoords="offset points",
                    ha="right" if place[0] < 0 else "left", fontsize="x-small", color=color,
                )  # fmt: skip
    axis.set_xscale("log")
    axis.set_xticks(
        [0.5, 1, 2, 5, 10, 20, 50, 100], ["0.5", "1", "2", "5", "10", "20", "50", "100"]
    )
    axis.minorticks_off()
    axis.set_xlabel("GMACs per image")
    axis.set_ylabel("ImageNet top-1, % (published)")
    axis.grid(alpha=0.25)
    axis.margins(y=0.1)
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(frameon=False, fontsize="small", loc="lower right")
    figure.savefig(PICTURE, dpi=150, metadata={"Software": None})


if __name__ == "__main__":
    main()
