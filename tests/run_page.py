"""Runs the Python blocks of a page in this process, with the backend of KERAS_BACKEND.

Usage: python run_page.py PAGE. The page reads and writes files in the current folder. Blocks that
import a backend only run with that backend. ConvNeXt-T is replaced by a small network, with weights
in the cache.
"""

import gc
import os
import re
import sys
import traceback
from pathlib import Path

import keras

import keras_convnext
from keras_convnext import builders
from keras_convnext.variants import VARIANTS

BACKENDS = {"tensorflow": "import tensorflow", "jax": "import jax", "torch": "import torch"}
CHECKPOINTS = {
    "convnext_tiny_1k_224_ema": {},
    "convnext_tiny_22k_224": {"classes": 21841},
}


def with_small_network():
    tiny = VARIANTS["convnext_tiny"]._replace(
        depths=(1, 1, 1, 1), dims=(4, 8, 12, 16), kernel_size=3
    )
    VARIANTS[tiny.name] = tiny
    builders.BUILDERS[tiny.name] = keras_convnext.ConvNeXtTiny = builders._builder(tiny)


def fill_cache(folder):
    for stem, options in CHECKPOINTS.items():
        model = keras_convnext.ConvNeXtTiny(weights=None, **options)
        keras_convnext.save_checkpoint(model, folder / f"{stem}.weights.h5")


def with_two_devices(backend):
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
        )
        mirrored = tf.distribute.MirroredStrategy
        tf.distribute.MirroredStrategy = lambda: mirrored(["CPU:0", "CPU:1"])
    elif backend == "jax":
        import jax

        jax.config.update("jax_num_cpu_devices", 2)


def sections(text):
    """Yields the Python blocks, each with its heading."""
    heading = ""
    for match in re.finditer(r"^#+ ([^\n]+)$|^```python\n(.*?)^```$", text, re.M | re.S):
        if match[1] and not match[2]:
            heading = match[1]
        elif match[2]:
            yield heading, match[2]


def main(page):
    backend = keras.config.backend()
    with_two_devices(backend)
    with_small_network()
    fill_cache(Path(os.environ["KERAS_CONVNEXT_CACHE"]))
    keras.config.disable_interactive_logging()
    gc.collect = lambda generation=2: 0  # Keras collects garbage after each quantized layer
    others = tuple(line for name, line in BACKENDS.items() if name != backend)
    names, failed = {}, 0
    for heading, block in sections(Path(page).read_text("utf-8")):
        if block.startswith(others):
            continue
        try:
            exec(compile(block, f"{page}: {heading}", "exec"), names)
            print("ran", heading, flush=True)
        except Exception:
            failed += 1
            print("FAILED", heading, traceback.format_exc(), flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
