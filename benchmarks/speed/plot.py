"""Draws bar charts of images per second, one panel for inference and one for training."""

from contestants import MATRIX, OURS, Case
from report import PASSES, main_case, notes

COLORS = {True: "#c8102e", False: "#9aa5b1"}


def draw(results, path):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    panels = [result for mode in PASSES if (result := main_case(results, mode))]
    raced = [
        {name: f for name, f in panel["contestants"].items() if f["library"] != MATRIX}
        for panel in panels
    ]
    heights = [len(contestants) for contestants in raced]
    figure, axes = pyplot.subplots(
        len(panels), figsize=(8, 1.1 * len(panels) + 0.27 * sum(heights)), squeeze=False,
        height_ratios=heights, layout="constrained",
    )  # fmt: skip
    for axis, panel, contestants in zip(axes.flat, panels, raced):
        names = sorted(contestants, key=lambda name: contestants[name].get("images_per_s", 0))
        speeds = [contestants[name].get("images_per_s", 0) for name in names]
        colors = [COLORS[contestants[name]["library"] == OURS] for name in names]
        bars = axis.barh(names, speeds, color=colors)
        axis.bar_label(bars, [_label(speed) for speed in speeds], padding=4)
        if limit := panel["matrix_gflop_per_s"]:
            speed = limit / (2 * panel["gmacs_of_an_image"] * PASSES[panel["case"]["mode"]])
            axis.axvline(speed, color="black", linestyle=":", linewidth=1)
            axis.text(speed, -0.4, "matrix product ", ha="right", fontsize="small")
        axis.margins(x=0.12, y=0.02)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(left=False)
        axis.set_xlabel("images/s")
        axis.set_title(str(Case(**panel["case"])).capitalize(), loc="left", fontsize="medium")
    machine = results["machine"]
    caption = f"{machine['gpu'] or machine['cpu']}, {machine['cores']} cores, {results['started']}"
    figure.supxlabel(". ".join([caption, *notes(results)]), fontsize="small", color="#555555")
    figure.savefig(path, dpi=150, metadata={"Software": None})


def _label(speed):
    if not speed:
        return "not measured"
    return f"{speed:,.0f}" if speed >= 100 else f"{speed:.3g}"
