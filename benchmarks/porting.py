"""Time and memory of porting an official checkpoint, beside PyTorch reading the same file.

Command: `python benchmarks/porting.py [--model convnext_xlarge] [--repeats 5]`. About three minutes
for XLarge, 1.4 GB of disk in the folder for temporary files; PyTorch is needed for its side alone.
Each figure comes from a process of its own, the two sides taking turns. Writes
`benchmarks/results/porting.json`.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "porting.json"
SLACK_MB = 300

# Each prints a JSON line: the seconds of the port alone and with the building of the network, and
# the size of the process with its libraries loaded and at its peak, in MB.
MEASURED = """
import json, re, sys, time
from pathlib import Path
model_name, path = sys.argv[1:]

def status(field):
    return int(re.search(field + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

def measure(build_and_port, port):
    start = status("VmRSS")
    began = time.perf_counter()
    model = build_and_port()
    in_all, peak = time.perf_counter() - began, status("VmHWM")
    began = time.perf_counter()
    port(model)
    seconds = time.perf_counter() - began
    print(json.dumps(
        {"seconds": seconds, "seconds_with_build": in_all, "start_mb": start, "peak_mb": peak}
    ))
"""
OURS = (
    MEASURED
    + """
import keras
from keras_convnext import load_checkpoint
from keras_convnext.builders import BUILDERS
measure(lambda: BUILDERS[model_name](weights=path), lambda model: load_checkpoint(model, path))
"""
)
PYTORCH = (
    MEASURED
    + """
import torch
sys.path.insert(0, "tests")
from torch_reference import network

def port(model):
    model.load_state_dict(torch.load(path, weights_only=True)["model"])
    return model

measure(lambda: port(network(model_name)), port)
"""
)
WRITE = """
import sys
import keras_convnext
from keras_convnext.builders import BUILDERS
keras_convnext.save_checkpoint(BUILDERS[sys.argv[1]](weights=None), sys.argv[2])
"""


def run(script: str, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}, check=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ).stdout  # fmt: skip


def measure(model: str, repeats: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / f"{model}.pth")
        run(WRITE, model, path)
        size_mb = Path(path).stat().st_size / 2**20
        sides: dict[str, list] = {"keras_convnext": [], "pytorch": []}
        for _ in range(repeats):
            sides["keras_convnext"].append(json.loads(run(OURS, model, path)))
            sides["pytorch"].append(json.loads(run(PYTORCH, model, path)))
    figures = {
        side: {key: round(statistics.median(run[key] for run in runs), 2) for key in runs[0]}
        for side, runs in sides.items()
    }
    ours, theirs = figures["keras_convnext"], figures["pytorch"]
    return {
        "model": model,
        "repeats": repeats,
        "machine": {"processor": platform.machine(), "cores": os.cpu_count()},
        "file_mb": round(size_mb, 1),
        **figures,
        "time_ratio": round(ours["seconds"] / theirs["seconds"], 2),
        "memory_above_model_mb": round(ours["peak_mb"] - ours["start_mb"] - size_mb, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="convnext_xlarge")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    figures = measure(options.model, options.repeats)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
