"""Computes figures from raw times, and writes the tables."""

import statistics
from typing import Any, NamedTuple

from contestants import APPLICATIONS, MATRIX, OURS, Case
from networks import matrix_side

MAIN = ("tiny", 224, 8, "float32")  # case of README and plot; targets may use another batch size
PASSES = {"inference": 1, "training": 3}  # forward, plus the gradients of inputs and weights


MEMORY = ("peak_mb", "peak_above_imports_mb", "device_peak_mb")


class Peer(NamedTuple):
    """A library, represented by its fastest way, or one of its ways."""

    library: str
    way: str | None = None

    def __str__(self) -> str:
        return f"{self.library} {self.way}" if self.way else self.library


EAGER, COMPILED = Peer("timm", "eager"), Peer("timm", "torch.compile")
PEERS = (
    Peer(APPLICATIONS), Peer("kimm"), Peer("kecam"), EAGER, COMPILED, Peer("ONNX Runtime"),
    Peer("OpenVINO"),
)  # fmt: skip


class Aim(NamedTuple):
    mode: str
    batch: int
    way: str  # one of our ways
    peers: tuple[Peer, ...]  # compared with the best of them
    bound: float
    figure: str = "images_per_s"
    at_most: bool = False


PLAIN = ("predict", "tf.function", "model(x)")
AIMS = (
    *(Aim("inference", 8, way, (Peer(APPLICATIONS, way),), 6) for way in PLAIN),
    *(Aim("inference", 8, way, (Peer("kimm"), Peer("kecam")), 1.2) for way in PLAIN),
    Aim("inference", 8, "predict",        (COMPILED,),                     1),
    Aim("inference", 8, "tf.function",    (COMPILED,),                     1),
    Aim("inference", 1, "fused",          (COMPILED,),                     1),
    Aim("inference", 8, "fused",          (Peer("OpenVINO", "from timm"),), 1),
    Aim("inference", 8, "model(x)",       (Peer(OURS, "tf.function"),),    0.9),
    Aim("inference", 1, "model(x)",       (Peer(OURS, "tf.function"),),    0.6),
    Aim("inference", 8, "predict, array", (Peer(OURS, "predict"),),        0.95),
    Aim("inference", 8, "LiteRT",         (Peer(OURS, "ONNX Runtime"),),   0.9),
    Aim("training",  8, "train_on_batch", (Peer(APPLICATIONS),),           4),
    Aim("training",  8, "own AdamW",      (EAGER,),                        1.1),
    Aim("training",  8, "own AdamW",      (EAGER,), 1, "peak_mb", at_most=True),
)  # fmt: skip


def derived(case: Case, contestants: dict[str, Any], macs: int) -> dict[str, Any]:
    """Adds derived figures to the raw ones, such as speeds and the share of the matrix rate."""
    rates = {
        name: 2 * matrix_side(case, "") ** 3 / statistics.median(figures["turns"]) / 1e9
        for name, figures in contestants.items()
        if figures["library"] == MATRIX and "turns" in figures
    }
    limit = max(rates.values(), default=None)
    for name, figures in contestants.items():
        if "turns" not in figures or "error" in figures:
            continue
        if name in rates:
            figures["gflop_per_s"] = round(rates[name], 1)
            continue
        flop = 2 * macs * PASSES[case.mode]
        speeds = [figures["batch"] / seconds for seconds in figures["turns"]]
        figures["images_per_s"] = figures["batch"] / statistics.median(figures["turns"])
        figures["slowest_and_fastest"] = [min(speeds), max(speeds)]
        if limit:
            figures["matrix_share"] = figures["images_per_s"] * flop / 1e9 / limit
        if figures["peak_mb"]:
            figures["peak_above_imports_mb"] = figures["peak_mb"] - figures["imported_mb"]
    return {
        "case": case._asdict(),
        "gmacs_of_an_image": macs / 1e9,
        "matrix_gflop_per_s": limit and round(limit, 1),
        "contestants": contestants,
    }


def main_case(results: dict[str, Any], mode: str) -> dict[str, Any] | None:
    """Returns the case of MAIN in a mode, or else the first case."""
    of_mode = [result for result in results["cases"] if result["case"]["mode"] == mode]
    of_main = [r for r in of_mode if Case(**r["case"]) == Case(*MAIN[:3], mode, MAIN[3])]
    return next(iter(of_main or of_mode), None)


def best(result: dict[str, Any], peers: tuple[Peer, ...], figure: str) -> float | None:
    found = [
        figures[figure]
        for figures in result["contestants"].values()
        for library, way in peers
        if library == figures["library"] and way in (None, figures["way"]) and figure in figures
    ]
    return max(found, default=None)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) + ("---:",) * (len(head) - 1), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def aims(results: dict[str, Any]) -> str:
    """Returns the table of target ratios and of those measured, for the cases of this run."""
    network, size, _, dtype = MAIN
    measured = {Case(**result["case"]): result for result in results["cases"]}
    rows = []
    for aim in AIMS:
        result = measured.get(Case(network, size, aim.batch, aim.mode, dtype))
        if result is None:
            continue
        ours = best(result, (Peer(OURS, aim.way),), aim.figure)
        theirs = best(result, aim.peers, aim.figure)
        ratio = ours / theirs if ours and theirs else None
        reached = ratio and (ratio <= aim.bound if aim.at_most else ratio >= aim.bound)
        what = {"images_per_s": "speed", "peak_mb": "peak memory"}[aim.figure]
        rows.append((
            f"{aim.mode}, batch {aim.batch}: {what} of {aim.way} / "
            f"{' or '.join(map(str, aim.peers))}",
            f"{'≤' if aim.at_most else '≥'} {aim.bound:.2f}",
            "not measured" if ratio is None else f"{ratio:#.3g}",
            {None: "", True: "yes", False: "no"}[reached],
        ))  # fmt: skip
    return _table(("ratio", "target", "measured", "reached"), rows) if rows else ""


def ratios(results: dict[str, Any]) -> str:
    """Returns the table of our speed relative to each peer's best way, for the README."""
    rows = []
    for mode in PASSES:
        result = main_case(results, mode)
        for figures in result["contestants"].values() if result else ():
            if figures["library"] != OURS or "images_per_s" not in figures:
                continue
            theirs = [best(result, (peer,), "images_per_s") for peer in PEERS]
            rows.append((
                f"{mode}, {figures['way']}",
                *(f"{figures['images_per_s'] / speed:.2f}" if speed else "" for speed in theirs),
            ))  # fmt: skip
    return _table(("", *map(str, PEERS)), rows)


def case_table(result: dict[str, Any]) -> str:
    """Returns the table of all figures of a case, the fastest first, with failures at the end."""
    number = "{:,.1f}".format
    rows, failed = [], []
    for name, figures in result["contestants"].items():
        if "images_per_s" in figures:
            least, most = figures["slowest_and_fastest"]
            memory = (figures.get(k) for k in MEMORY)
            share = figures.get("matrix_share")
            rows.append((figures["images_per_s"], (
                f"**{name}**" if figures["library"] == OURS else name,
                number(figures["images_per_s"]),
                f"{number(least)} to {number(most)}",
                "" if share is None else f"{share:.0%}",
                *("" if megabytes is None else f"{megabytes:,}" for megabytes in memory),
                *(number(figures[k]) for k in ("import_s", "build_s", "first_s")),
                str(figures["batch"]),
                str(len(figures["turns"])),
            )))  # fmt: skip
        elif figures["library"] != MATRIX:
            failed.append((name, f"not measured: {figures['error']}", *[""] * 10))
    head = ("", "images/s", "range", "of matrix rate", "peak MB", "above imports MB", "GPU MB",
            "import s", "build s", "first call s", "batch", "turns")  # fmt: skip
    return _table(head, [row for _, row in sorted(rows, reverse=True)] + failed)


def notes(results: dict[str, Any]) -> list[str]:
    """Returns the notes for the figures."""
    devices = {f.get("device") for r in results["cases"] for f in r["contestants"].values()}
    if results["device"] == "gpu" and devices <= {"cpu", None}:
        return [*results["notes"], "Not a measurement: a smoke test on a CPU."]
    return results["notes"]


def load(result: dict[str, Any]) -> str:
    """Describes the load during a case. Older results only have the averages."""
    averages = " and ".join(map(str, result["load_average"]))
    sentences = f"Load average before and after: {averages}."
    if "cores_of_other_processes" in result:
        sentences += (
            f" On average, other processes used {result['cores_of_other_processes']} cores and "
            f"the host withheld {result['cores_withheld_by_host']}."
        )
    return sentences


def markdown(results: dict[str, Any]) -> str:
    machine = results["machine"]
    versions = ", ".join(f"{name} {v}" for name, v in machine["versions"].items() if v)
    parts = [
        "# Speed",
        f"Run of {results['started']}, {results['command']}"
        + "".join(f" **{note}**" for note in notes(results)),
        f"{machine['gpu'] or machine['cpu']}, {machine['cores']} cores "
        f"({' '.join(machine['flags'])}), {machine['memory_gb']} GB, {machine['system']}, "
        f"Python {machine['python']}: {versions}.",
        "Medians over the turns of each contestant, which alternate in separate processes. Random "
        "weights. The share of the matrix rate is relative to the fastest square matrix product "
        "of all libraries, measured in the same rounds; a training step counts as three forward "
        "passes. `predict` takes eight batches per call from a dataset without autotuning (which "
        "may delay the end of a call), `predict, array` takes eight batches per call from an "
        "array, with autotuning, and all others take one batch per call. The networks of this "
        "package, "
        "keras.applications and kimm include the normalization of the pixels, the others do not. "
        "kecam is keras_cv_attention_models, on Keras 2.",
    ]
    cases = [Case(**result["case"]) for result in results["cases"]]
    for case, result in zip(cases, results["cases"]):
        limit = result["matrix_gflop_per_s"]
        parts += [
            f"## {str(case).capitalize()}",
            f"Matrix product: {limit or 'not measured'} GFLOP/s. {load(result)}",
            case_table(result),
        ]
    if results["device"] == "cpu":
        parts += [
            "## Speed of keras_convnext relative to other libraries",
            "A library named without a way is represented by its fastest way.",
        ]
        main = [r for c, r in zip(cases, results["cases"]) if (*c[:3], c.dtype) == MAIN]
        others = [[result] for result in results["cases"] if result not in main]
        for group in [main, *others] if main else others:
            titles = "; ".join(str(Case(**result["case"])) for result in group)
            parts += [f"{titles}.".capitalize(), ratios({**results, "cases": group})]
        if reached := aims(results):
            parts += ["## Targets", reached]
    return "\n\n".join(parts) + "\n"
