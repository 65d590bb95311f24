"""Measures memory and time of a training step with and without `remat=True`, on each backend.

Command: `python benchmarks/remat.py [--model convnext_tiny] [--size 224] [--batches 1 2 4 8 16]`.
Takes about 20 minutes. Each figure is measured in a separate process: the peak memory above the
imports over two steps of `train_on_batch` with Keras' AdamW, and the time of the second step.
Writes `benchmarks/results/remat.json`, or the file of `--results`, and prints the table.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from machine import Load, description

RESULTS = Path(__file__).parent / "results" / "remat.json"
BACKENDS = ("tensorflow", "jax", "torch")
LIBRARIES = ("keras-convnext", "keras", "tensorflow", "jax", "torch", "numpy")
STEP = """
import json, re, sys, time
from pathlib import Path
import keras, numpy as np
import keras_convnext
name, size, batch, remat = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "True"

def status(field):
    return int(re.search(field + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

imported = status("VmRSS")
build = keras_convnext.builders.BUILDERS[name]
model = build(
    weights=None, input_shape=(size, size, 3), drop_path_rate=0.1, remat=remat
)
model.compile("adamw", "sparse_categorical_crossentropy")
pixels = np.random.default_rng(0).uniform(0, 255, (batch, size, size, 3)).astype("float32")
for _ in range(2):
    began = time.perf_counter()
    loss = model.train_on_batch(pixels, np.arange(batch))
    seconds = time.perf_counter() - began
assert np.isfinite(loss)
print(json.dumps({"peak_mb": status("VmHWM") - imported, "seconds": seconds}))
"""  # fmt: skip


def measured(backend: str, *arguments: object) -> dict[str, float]:
    result = subprocess.run(
        [sys.executable, "-c", STEP, *map(str, arguments)], capture_output=True, text=True,
        env={**os.environ, "KERAS_BACKEND": backend},
    )  # fmt: skip
    if result.returncode:
        sys.exit(result.stderr)
    return json.loads(result.stdout.splitlines()[-1])


def table(rows: list[dict]) -> str:
    lines = ["| backend | batch | MB without | MB with | memory | time |"]
    lines.append("|---|---:|---:|---:|---:|---:|")
    for row in rows:
        off, on = row["without"], row["with"]
        lines.append(
            f"| {row['backend']} | {row['batch']} | {off['peak_mb']:,.0f} | {on['peak_mb']:,.0f} | "
            f"{on['peak_mb'] / off['peak_mb']:.2f} | {on['seconds'] / off['seconds']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="convnext_tiny")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--backends", nargs="+", default=BACKENDS)
    parser.add_argument("--results", type=Path, default=RESULTS)
    chosen = parser.parse_args()
    machine, load, rows = description(LIBRARIES), Load(), []
    for backend in chosen.backends:
        for batch in chosen.batches:
            figures = {
                name: measured(backend, chosen.model, chosen.size, batch, remat)
                for name, remat in (("without", False), ("with", True))
            }
            rows.append({"backend": backend, "batch": batch, **figures})
            print(table(rows[-1:]).splitlines()[-1], flush=True)
    chosen.results.write_text(
        json.dumps(
            {"model": chosen.model, "size": chosen.size, "machine": machine, "load": load.so_far(),
             "rows": rows},
            indent=1,
        ) + "\n"
    )  # fmt: skip
    print(table(rows))


if __name__ == "__main__":
    main()
