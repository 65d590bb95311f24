"""Draws `docs/roadmap.png`: what the paper reports for each step, like its figure 2.

python docs/road.py
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from keras_convnext.roadmap import REGIMES, STEPS, parts

PICTURE = Path(__file__).parent / "roadmap.png"
REPORTED = ("resnet50", "resnet200")
TRIED = ("kernel_5", "kernel_9", "kernel_11")  # and not kept


def main():
    figure, axes = pyplot.subplots(1, 2, figsize=(9, 5.5), sharey=True, layout="constrained")
    names = [name for name in STEPS if STEPS[name].name in REGIMES["resnet50"].figures]
    for axis, regime in zip(axes, map(REGIMES.get, REPORTED)):
        for place, name in enumerate(reversed(names)):
            reported = regime.figures_of(STEPS[name])
            color = "#c9d4de" if name in TRIED else "#c8102e" if name == "convnext" else "#6f8fae"
            axis.barh(place, reported.top1, color=color, xerr=reported.deviation, capsize=2)
            macs = sum(part.macs for part in parts(name, regime.name)) / 1e9
            low = min(each.top1 for each in regime.figures.values()) - 1
            axis.text(low + 0.05, place, f"{macs:.1f} GMACs", va="center", fontsize="x-small",
                      color="white" if name == "convnext" else "black")  # fmt: skip
            axis.set_xlim(low, max(each.top1 for each in regime.figures.values()) + 0.4)
        axis.set_yticks(range(len(names)), list(reversed(names)), fontsize="small")
        axis.set_title(regime.title, fontsize="medium")
        axis.set_xlabel("ImageNet top-1, % (published)")
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(PICTURE, dpi=110, metadata={"Software": None})


if __name__ == "__main__":
    main()
