"""Trains a toy segmenter on drawn pictures, in this process or in one that is killed.

As a script: `toy_segmentation.py '{"data": ..., "runs": [...], ...}'`, as in `toy_runs.py`.
"""

import json
import signal
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from PIL import Image

from keras_convnext import builders
from keras_convnext.segmentation import network, recipe_for, train
from keras_convnext.variants import VARIANTS, Variant

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))
import toy_runs

TOY = Variant("toy_dense", (1, 1, 1, 1), (8, 8, 16, 16), stddev=None)
SETTINGS = {
    "epochs": 2,
    "warmup_epochs": 0,
    "batch_size": 8,
    "device_batch": 8,
    "learning_rate": 1e-2,
    "ema_decay": 0.8,
    "layer_scale": None,
    "start": None,
    "channels": 8,
    "size": 32,
    "drop_path_rate": 0.1,
}


def make_pictures(folder, count=24, seed=0):
    """Draws bright and red boxes on a dark background, 40 x 56 px, with masks of three classes."""
    generator = np.random.default_rng(seed)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        labels = np.zeros((40, 56), "uint8")
        for label in (1, 2, 1, 2):
            top, left = generator.integers(0, 28), generator.integers(0, 42)
            labels[top : top + 14, left : left + 18] = label
        colors = np.array([(40, 50, 60), (210, 200, 190), (200, 40, 50)])
        pixels = generator.normal(colors[labels], 20).clip(0, 255).astype("uint8")
        labels[:2] = 255
        Image.fromarray(pixels).save(folder / "images" / f"{number:02d}.jpg", quality=95)
        Image.fromarray(labels).save(folder / "masks" / f"{number:02d}.png")
    (folder / "classes.txt").write_text("ground\nroof\nroad\n")
    return folder


def register(monkeypatch=None):
    """Registers the toy like the published networks, permanently or for one test."""
    builder = builders._builder(TOY)
    for table, row in ((VARIANTS, TOY), (builders.BUILDERS, builder)):
        if monkeypatch:
            monkeypatch.setitem(table, TOY.name, row)
        else:
            table[TOY.name] = row


def toy_recipe(**own):
    return recipe_for("segment_small", TOY.name, {**SETTINGS, **own})


def toy_train(data, output, *, strategy=None, console=None, **own):
    return train(toy_recipe(**own), TOY.name, data, output, strategy=strategy, console=console)


def main(task):
    """Executes one run after another; the keys of the task are those of `toy_runs.main`,
    and `without_dropout`."""
    register()
    cpu = tf.config.list_physical_devices("CPU")[0]
    devices = [tf.config.LogicalDeviceConfiguration()] * task.get("devices", 1)
    tf.config.set_logical_device_configuration(cpu, devices)
    if "stop" in task:
        update, name = task["stop"]
        toy_runs.raise_at(update, signal.Signals[name])
    if task.get("without_dropout"):  # each device would draw its own
        network.DROPOUT = 0.0
    strategy = None
    if len(devices) > 1:
        strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(len(devices))])
    for output, own, on_one in task["runs"]:
        chosen = tf.distribute.get_strategy() if on_one else strategy
        toy_train(Path(task["data"]), output, strategy=chosen, **own)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
