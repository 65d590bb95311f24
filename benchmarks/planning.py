"""Compares the memory of training steps as estimated by `keras-convnext plan` and as measured.

Command: `python benchmarks/planning.py [--cases 0 3] [--kinds tensors]`. Takes about a minute per
figure. Each is measured in a separate process, which makes three updates on random images on a CPU.
`tensors` is the peak of TensorFlow's own allocator, which it also uses on a GPU. `process` is the
peak of the process above the imports, with the allocator of the C library, whose fragmentation
varies. Steps with TensorFlow's operations for all devices represent a GPU; for these, `process` is
not measured. Writes `benchmarks/results/planning.json`, or the file of `--results`, and keeps the
figures that were not measured again.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from machine import Load, description

BENCHMARKS = Path(__file__).parent
RESULTS = BENCHMARKS / "results" / "planning.json"
RECIPE, CLASSES = "finetune_small", 1000
KINDS = ("tensors", "process")
LIBRARIES = ("keras-convnext", "keras", "tensorflow", "numpy")


class Case(NamedTuple):
    """A training step: network, batch size and settings.

    `fused` selects this package's CPU operations instead of TensorFlow's for all devices.
    """

    model: str
    batch: int
    settings: dict
    accumulated: int = 1
    fused: bool = True


CASES = (
    Case("convnext_atto", 8, {}),
    Case("convnext_atto", 16, {}),
    Case("convnext_atto", 16, {"remat": True}),
    Case("convnext_tiny", 8, {}),
    Case("convnext_tiny", 16, {}),
    Case("convnext_tiny", 8, {"remat": True}),
    Case("convnext_tiny", 8, {"ema_decay": 0.999}, accumulated=2),
    Case("convnext_cifar", 128, {"ema_decay": 0.999}),
    Case("convnext_atto", 8, {}, fused=False),
    Case("convnext_atto", 8, {"remat": True}, fused=False),
    Case("convnext_atto", 8, {"precision": "mixed_bfloat16"}, fused=False),
    Case("convnext_large", 2, {"size": 384}),
    Case("convnext_large", 2, {"size": 384, "remat": True}),
    Case("convnext_xlarge", 1, {"size": 384}),
    Case("convnext_xlarge", 1, {"size": 384, "remat": True}),
    Case("convnextv2_cifar", 128, {"size": 32}),
)


def peak_of(number, allocator):
    """Returns the peak memory of a case in bytes. Runs in a separate process."""
    import keras
    import numpy as np
    import tensorflow as tf

    from keras_convnext import arithmetic
    from keras_convnext.builders import BUILDERS
    from keras_convnext.training.fitted import FittedModel
    from keras_convnext.training.optimizer import AdamW

    before = status("VmRSS")
    case = CASES[number]
    recipe = recipe_of(case)
    side = recipe.input.size
    if not case.fused:
        arithmetic.tensorflow_on_cpu = lambda: False
    keras.config.set_dtype_policy(recipe.batch.precision)
    network = BUILDERS[case.model](
        weights=None, input_shape=(side, side, 3), classes=CLASSES, classifier_activation=None,
        drop_path_rate=recipe.network.drop_path_rate, remat=recipe.batch.remat,
    )  # fmt: skip
    model = FittedModel(network.inputs, network.outputs)
    model.compile(
        AdamW(
            use_ema=recipe.optimizer.ema_decay is not None,
            gradient_accumulation_steps=case.accumulated if case.accumulated > 1 else None,
        ),
        keras.losses.CategoricalCrossentropy(from_logits=True),
        auto_scale_loss=False,
        jit_compile="auto" if case.fused else False,
    )
    shape = (case.batch, side, side, 3)
    model.build_for(
        (
            tf.TensorSpec(shape),
            tf.TensorSpec((case.batch, CLASSES)),
            tf.TensorSpec((case.batch,)),
        )
    )
    images = np.random.default_rng(0).uniform(0, 255, shape).astype("float32")
    targets = np.eye(CLASSES, dtype="float32")[np.arange(case.batch)]
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    for _ in range(3 * case.accumulated):
        model.train_on_batch(images, targets)
    if allocator == "tensors":
        return tf.config.experimental.get_memory_info("CPU:0")["peak"]
    return status("VmHWM") - before


def status(field):
    found = re.search(field + r":\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024


def recipe_of(case):
    from keras_convnext.classification.settings import recipe_for

    return recipe_for(RECIPE, case.model, case.settings)


def modeled(case):
    from keras_convnext.classification.memory import memory_of
    from keras_convnext.training.devices import DEVICES

    device = DEVICES["cpu-core"]._replace(is_gpu=not case.fused)
    return memory_of(recipe_of(case), case.model, CLASSES, case.batch, case.accumulated, device)


def measure(number, kinds, before):
    """Measures the peaks of a case. Kinds that are not selected keep their earlier values."""
    case = CASES[number]
    memory = modeled(case)
    planned = {"tensors": memory.total - memory.workspace}
    if case.fused:
        planned["process"] = memory.total
    figures = {}
    for kind in planned:
        peak = run(number, kind) if kind in kinds else before.get(kind, {}).get("measured")
        if peak:
            error = round(planned[kind] / peak - 1, 3)
            figures[kind] = {"planned": planned[kind], "measured": peak, "error": error}
    return {**case._asdict(), "size": recipe_of(case).input.size, **figures}


def run(number, kind):
    own = {"TF_CPU_ALLOCATOR_USE_BFC": "1"} if kind == "tensors" else {}
    return json.loads(
        subprocess.run(
            [sys.executable, __file__, "--peak", str(number), kind],
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", **own},
            check=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        ).stdout.splitlines()[-1]
    )  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", type=int, default=range(len(CASES)))
    parser.add_argument(
        "--kinds", nargs="*", default=KINDS, choices=KINDS, help="figures to measure"
    )
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--peak", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print(json.dumps(peak_of(int(options.peak[0]), options.peak[1])))
        return
    cases, load = {}, Load()
    if options.results.exists():
        kept = json.loads(options.results.read_text())["cases"]
        cases = {int(number): case for number, case in kept.items()}
    for number in options.cases:
        cases[number] = measure(number, options.kinds, cases.get(number, {}))
        print(json.dumps(cases[number]), flush=True)
        figures = {
            "unit": "bytes",
            "machine": {**description(LIBRARIES), **load.so_far()},
            "cases": dict(sorted(cases.items())),
        }
        options.results.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
