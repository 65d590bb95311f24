"""Compares the speed and memory of UperNet with that of Hugging Face transformers.

Command: `python benchmarks/segmentation.py [--backbone tiny] [--size 512] [--batches 1,4] [--rounds
7]`, which takes about ten minutes on two cores and needs PyTorch and transformers. Each contestant
is a process of its own, which has random weights and stays alive; in each round, every one predicts
one batch in turn, so that all see the same machine. The logits have the size of the images. Writes
`results/segmentation/beside_transformers.json`: the median seconds of a batch, images per second,
the ratio to transformers, the peak memory, that above the imports, and the share of the speed of a
matrix product that the multiply-accumulates of the published network reach; `PyramidConv2D` needs
fewer.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from machine import Load, description

sys.path.insert(0, str(Path(__file__).parent / "speed"))  # any_torchvision

RESULTS = Path(__file__).parent / "results" / "segmentation" / "beside_transformers.json"
LIBRARIES = ("keras-convnext", "keras", "tensorflow", "torch", "transformers", "numpy")
DEPTHS = {"tiny": (3, 3, 9, 3), "small": (3, 3, 27, 3)}
DIMS = (96, 192, 384, 768)
IMPORTED: list[float] = []  # the peak memory after the imports of a contestant


def peak_mb() -> float:
    """Returns the most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def ours(backbone: str, fused: bool) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function from pixels to logits of this package."""
    import keras

    import keras_convnext  # noqa: F401  (before TensorFlow, whose kernels it selects)
    from keras_convnext.export import fuse
    from keras_convnext.segmentation import UperNet

    IMPORTED.append(peak_mb())
    keras.utils.set_random_seed(0)
    model = UperNet(f"convnext_{backbone}", classifier_activation=None)
    if not fused:
        return lambda pixels: model.predict(pixels, verbose=0)
    import tensorflow as tf

    network = fuse(model)
    call = tf.function(lambda pixels: network(pixels, training=False))
    return lambda pixels: call(tf.constant(pixels)).numpy()


def theirs(backbone: str, compiled: bool) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function from pixels to logits of transformers."""
    import any_torchvision  # noqa: F401  (transformers imports torchvision)
    import torch
    import transformers
    from transformers import UperNetForSemanticSegmentation  # transformers imports lazily

    IMPORTED.append(peak_mb())
    torch.manual_seed(0)
    trunk = transformers.ConvNextConfig(
        depths=list(DEPTHS[backbone]), hidden_sizes=list(DIMS),
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = transformers.UperNetConfig(
        backbone_config=trunk, num_labels=150, auxiliary_in_channels=DIMS[2]
    )
    model = UperNetForSemanticSegmentation(config).eval()
    if compiled:
        model = torch.compile(model)

    def predict(pixels: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
            return model(images).logits.numpy()

    return predict


CONTESTANTS = {
    "keras_convnext predict": lambda backbone: ours(backbone, fused=False),
    "keras_convnext fused, tf.function": lambda backbone: ours(backbone, fused=True),
    "transformers eager": lambda backbone: theirs(backbone, compiled=False),
    "transformers torch.compile": lambda backbone: theirs(backbone, compiled=True),
}


def product() -> float:
    """Returns the GFLOP/s of a matrix product of TensorFlow."""
    import tensorflow as tf

    a = tf.random.normal((4096, 4096))
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        tf.linalg.matmul(a, a).numpy()
        seconds.append(time.perf_counter() - began)
    return 2 * 4096**3 / min(seconds) / 1e9


def work(name: str, backbone: str, size: int, batches: list[int]) -> None:
    """Predicts a batch for each line of standard input, which holds its size."""
    predict = CONTESTANTS[name](backbone)
    pixels = np.random.default_rng(0).uniform(0, 255, (max(batches), size, size, 3))
    pixels = pixels.astype("float32")
    for batch in batches:
        for _ in range(2):  # compiles
            predict(pixels[:batch])
    print("ready", flush=True)
    for line in sys.stdin:
        began = time.perf_counter()
        found = predict(pixels[: int(line)])
        seconds = time.perf_counter() - began
        assert found.size == int(line) * 150 * size * size
        told = {"seconds": seconds, "peak_mb": peak_mb(), "imported_mb": IMPORTED[0]}
        print(json.dumps(told), flush=True)


def start(name: str, options: argparse.Namespace) -> "subprocess.Popen[str]":
    command = [sys.executable, __file__, "--work", name, "--backbone", options.backbone,
               "--size", str(options.size), "--batches", options.batches]  # fmt: skip
    worker = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )  # fmt: skip
    assert worker.stdout is not None
    for line in worker.stdout:
        if line == "ready\n":
            return worker
    raise SystemExit(f"{name} ended")


def ask(worker: "subprocess.Popen[str]", batch: int) -> dict[str, float]:
    assert worker.stdin is not None
    assert worker.stdout is not None
    print(batch, file=worker.stdin, flush=True)
    return json.loads(worker.stdout.readline())


def measured(options: argparse.Namespace) -> dict[str, Any]:
    from keras_convnext.segmentation.cost import parts
    from keras_convnext.variants import VARIANTS

    batches = [int(each) for each in options.batches.split(",")]
    load = Load()
    workers = {name: start(name, options) for name in CONTESTANTS}
    seconds: dict[tuple[int, str], list[float]] = {}
    peaks: dict[str, dict[str, float]] = {}
    for _ in range(options.rounds):
        for batch in batches:
            for name, worker in workers.items():
                told = ask(worker, batch)
                seconds.setdefault((batch, name), []).append(told["seconds"])
                peaks[name] = told
    for worker in workers.values():
        worker.communicate()
    limit = product()
    counted = parts(VARIANTS[f"convnext_{options.backbone}"], (options.size, options.size))
    gmacs = sum(part.macs for part in counted if part.name != "auxiliary head") / 1e9
    rows = []
    for batch in batches:
        medians = {name: statistics.median(seconds[batch, name]) for name in CONTESTANTS}
        for name, median in medians.items():
            rows.append({
                "contestant": name,
                "batch": batch,
                "seconds": round(median, 3),
                "range": [round(each(seconds[batch, name]), 3) for each in (min, max)],
                "images_per_second": round(batch / median, 2),
                "to_eager": round(medians["transformers eager"] / median, 2),
                "to_compiled": round(medians["transformers torch.compile"] / median, 2),
                "peak_mb": round(peaks[name]["peak_mb"]),
                "above_imports_mb": round(peaks[name]["peak_mb"] - peaks[name]["imported_mb"]),
                "share_of_product": round(2 * gmacs * batch / median / limit, 2),
            })  # fmt: skip
    return {
        "machine": description(LIBRARIES),
        "load": load.so_far(),
        "network": f"UperNet on ConvNeXt {options.backbone}, {options.size} px, 150 classes",
        "gmacs": round(gmacs, 1),
        "product_gflops": round(limit, 1),
        "rounds": options.rounds,
        "rows": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", choices=DEPTHS, default="tiny")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--batches", default="1,4")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--work", choices=CONTESTANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        batches = [int(each) for each in options.batches.split(",")]
        work(options.work, options.backbone, options.size, batches)
        return
    found = measured(options)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    for row in found["rows"]:
        print(*row.values(), sep="\t")


if __name__ == "__main__":
    main()
