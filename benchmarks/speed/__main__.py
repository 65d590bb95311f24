"""Measures speed and memory of ConvNeXt in this package and in other libraries, in one run.

Command: `pip install -e ".[bench]"`, then `python benchmarks/speed [--cases tiny-224-8]`. All cases
take hours, one takes about half an hour on two cores. Each contestant of a case runs in a separate
process, which builds the network, warms up and waits for its turn; each has one turn per round.
Contestants that are not installed or fail are reported in one line. Writes speed.json, speed.md and
speed.png to `benchmarks/results/`. `--device gpu` measures JAX and PyTorch, and writes speed_gpu.*.
`--dtypes bfloat16 int8` measures the contestants that support them (also pass `--output`).
`--quick` is a smoke test, and writes files only with `--output`. `--report FILE` measures nothing:
it writes the tables and the plot of a JSON file again, next to it.

    contestants.py  the contestants, one row each
    networks.py     builds the network in each library
    ways.py         runs it
    worker.py       the process of one contestant
    rounds.py       the order of the turns
    report.py       figures and tables; plot.py draws the plot
    ../machine.py   the conditions of the measurement
"""

import argparse
import importlib.util
import itertools
import json
import shlex
import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
sys.path += [str(REPOSITORY), str(REPOSITORY / "benchmarks")]

import machine  # noqa: E402
import report  # noqa: E402
from contestants import CONTESTANTS, MATRIX, OURS, Case, Contestant  # noqa: E402
from networks import name_of  # noqa: E402
from rounds import Race  # noqa: E402

BATCHES = {"cpu": (8, 1, 32), "gpu": (128,)}
SIZES = {"cpu": ("tiny-224", "base-224", "tiny-384"), "gpu": ("tiny-224", "base-224")}
LIBRARIES = (
    "keras-convnext", "keras", "tensorflow", "jax", "torch", "timm", "kimm", "tf_keras",
    "keras-cv-attention-models", "onnx", "onnxruntime", "openvino", "ai-edge-litert", "numpy",
)  # fmt: skip
QUICK = {
    "cpu": (f"{OURS} predict", f"{OURS} train_on_batch",
            *(f"{OURS} {way}" for way in ("SavedModel", "ONNX Runtime", "OpenVINO", "LiteRT")),
            "kimm tf.function", "timm eager", "ONNX Runtime", f"{MATRIX} NumPy"),
    "gpu": (OURS, "timm eager", MATRIX),
}  # fmt: skip


def macs(case: Case) -> int:
    # The package is not executed: importing Keras could allocate the memory of a GPU.
    package = importlib.util.module_from_spec(importlib.util.find_spec(OURS))
    sys.modules.setdefault(OURS, package)
    from keras_convnext.complexity import parts
    from keras_convnext.variants import VARIANTS

    variant = VARIANTS[name_of(case)]
    return sum(part.macs for part in parts(variant, (case.size, case.size)))


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--cases", nargs="+", metavar="NETWORK-SIZE-BATCH", help="tiny-224-8 ...")
    parser.add_argument("--modes", nargs="+", default=list(report.PASSES), choices=report.PASSES)
    parser.add_argument("--dtypes", nargs="+", choices=("float32", "bfloat16", "int8"))
    parser.add_argument("--contestants", nargs="+", metavar="LIBRARY or NAME")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="length of a turn, at least one call")
    parser.add_argument("--note", action="append", default=[], help="printed with the results")
    parser.add_argument("--quick", action="store_true", help="smoke test of about a minute")
    parser.add_argument("--output", type=Path, metavar="FOLDER")
    parser.add_argument("--report", type=Path, nargs="+", metavar="FILE", help="earlier results")
    chosen = parser.parse_args()
    gpu = chosen.device == "gpu"
    if chosen.cases is None:
        chosen.cases = ["atto-64-2"] if chosen.quick else [
            f"{size}-{batch}" for batch in BATCHES[chosen.device] for size in SIZES[chosen.device]
        ]  # fmt: skip
    chosen.dtypes = chosen.dtypes or (["bfloat16", "float32"] if gpu else ["float32"])
    if chosen.quick:
        chosen.contestants = chosen.contestants or QUICK[chosen.device]
    chosen.rounds = chosen.rounds or (1 if chosen.quick else 7)
    if chosen.seconds is None:
        chosen.seconds = 0.0 if chosen.quick else 1.0
    if chosen.output is None and not chosen.quick:
        chosen.output = REPOSITORY / "benchmarks" / "results"
    return chosen


def taking_part(chosen: argparse.Namespace, case: Case) -> list[Contestant]:
    return [
        row
        for row in CONTESTANTS[chosen.device, case.mode]
        if case.dtype in row.dtypes
        and (
            not chosen.contestants
            or (row.library == MATRIX and not chosen.quick)
            or {row.library, row.name} & set(chosen.contestants)
        )
    ]


def measure(chosen: argparse.Namespace, case: Case) -> dict:
    print(case, flush=True)
    rows = taking_part(chosen, case)
    load = machine.Load()
    with tempfile.TemporaryDirectory() as folder:
        figures = Race(chosen.device, case, rows, folder).run(chosen.rounds, chosen.seconds)
    return {**report.derived(case, figures, macs(case)), **load.so_far()}


def write(results: dict, folder: Path) -> None:
    stem = {"cpu": "speed", "gpu": "speed_gpu"}[results["device"]]
    folder.mkdir(exist_ok=True, parents=True)
    (folder / f"{stem}.json").write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    (folder / f"{stem}.md").write_text(report.markdown(results), "utf-8")
    try:
        import plot

        plot.draw(results, folder / f"{stem}.png")
    except ImportError as error:
        print(f"No plot: {error}")


def main() -> None:
    chosen = options()
    if chosen.report:
        for path in chosen.report:
            write(json.loads(path.read_text("utf-8")), path.parent)
        return
    results = {
        "started": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
        "command": f"`{shlex.join(['python', 'benchmarks/speed', *sys.argv[1:]])}`.",
        "device": chosen.device,
        "notes": chosen.note,
        "machine": machine.description(LIBRARIES),
        "cases": [],
    }
    for dtype, name, mode in itertools.product(chosen.dtypes, chosen.cases, chosen.modes):
        network, size, batch = name.split("-")
        case = Case(network, int(size), int(batch), mode, dtype)
        if not taking_part(chosen, case):
            continue  # no contestant trains in int8
        results["cases"].append(measure(chosen, case))
        if chosen.output:
            write(results, chosen.output)
    print("\n" + report.markdown(results))


if __name__ == "__main__":
    main()
