"""Measures time and memory of reading and writing checkpoints, compared with PyTorch.

Command: `python benchmarks/porting.py [--models convnext_tiny convnext_xlarge] [--repeats 7]`.
Takes about 15 minutes, and 3 GB in the folder for temporary files. PyTorch is only needed for its
own figures. Each figure is measured in a separate process; the two libraries alternate, and medians
are reported. Writes `benchmarks/results/porting.json`, or the file of `--results`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from machine import Load, description

RESULTS = Path(__file__).parent / "results" / "porting.json"
LIBRARIES = ("keras-convnext", "keras", "tensorflow", "torch", "numpy")

# Each prints a JSON line: the seconds of a warm run, those of the first run including the building
# of the network, and the memory of the process before it and at its peak, in MB.
MEASURED = """
import json, os, re, sys, time
from pathlib import Path
model_name, path = sys.argv[1:]

def status(field):
    return int(re.search(field + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

def measure(first, again):
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    os.sync()
    start, began = status("VmRSS"), time.perf_counter()
    model = first()
    first_seconds, peak = time.perf_counter() - began, status("VmHWM")
    os.sync()
    began = time.perf_counter()
    again(model)
    seconds = time.perf_counter() - began
    print(json.dumps(
        {"seconds": seconds, "first_seconds": first_seconds, "start_mb": start, "peak_mb": peak}
    ))
"""
OURS = MEASURED + """
import keras
from keras_convnext import load_checkpoint, save_checkpoint
from keras_convnext.builders import BUILDERS
"""  # fmt: skip
PYTORCH = MEASURED + """
import torch
sys.path.insert(0, "tests")
from torch_reference import network

def load(model):
    model.load_state_dict(torch.load(path, weights_only=True)["model"])
    return model
"""  # fmt: skip
SCRIPTS = {
    ("write", "keras_convnext"): OURS + """
model = BUILDERS[model_name](weights=None)
measure(lambda: save_checkpoint(model, path), lambda _: save_checkpoint(model, path))
""",
    ("write", "pytorch"): PYTORCH + """
state = {"model": network(model_name).state_dict()}
measure(lambda: torch.save(state, path), lambda _: torch.save(state, path))
""",
    ("read", "keras_convnext"): OURS + """
measure(lambda: BUILDERS[model_name](weights=path), lambda model: load_checkpoint(model, path))
""",
    ("read", "pytorch"): PYTORCH + """
measure(lambda: load(network(model_name)), load)
""",
}  # fmt: skip


def run(script: str, *arguments: str) -> dict:
    return json.loads(subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}, check=True, text=True,
        cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ).stdout)  # fmt: skip


def measure(model: str, repeats: int) -> dict:
    runs: dict[tuple, list] = {case: [] for case in SCRIPTS}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(repeats):
            for (direction, side), script in SCRIPTS.items():
                # Both read the file that our package wrote.
                writer = side if direction == "write" else "keras_convnext"
                path = Path(folder, f"{writer}.pth")
                runs[direction, side].append(run(script, model, str(path)))
        size_mb = path.stat().st_size / 2**20
    figures: dict = {"file_mb": round(size_mb, 1)}
    for direction in ("read", "write"):
        ours, theirs = (
            {key: round(statistics.median(run[key] for run in runs[direction, side]), 3)
             for key in ("seconds", "first_seconds", "start_mb", "peak_mb")}
            for side in ("keras_convnext", "pytorch")
        )  # fmt: skip
        model_mb = size_mb if direction == "read" else 0  # when writing, it is included in start_mb
        figures[direction] = {
            "keras_convnext": ours,
            "pytorch": theirs,
            "time_ratio": round(ours["seconds"] / theirs["seconds"], 2),
            "memory_above_model_mb": round(ours["peak_mb"] - ours["start_mb"] - model_mb, 1),
        }
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["convnext_tiny", "convnext_xlarge"])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    load = Load()
    models = {model: measure(model, options.repeats) for model in options.models}
    figures = {
        "machine": {**description(LIBRARIES), **load.so_far()},
        "repeats": options.repeats,
        "models": models,
    }
    options.results.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
