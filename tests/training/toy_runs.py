"""Trains a toy network on toy pictures, in this process or in one that is killed.

As a script: `toy_runs.py '{"data": ..., "output": ..., ...}'`, see `main`.
"""

import json
import os
import signal
import sys

import numpy as np
import tensorflow as tf
from PIL import Image

from keras_convnext import builders
from keras_convnext.classification import train
from keras_convnext.roadmap.steps import REGIMES, Regime
from keras_convnext.training import journal
from keras_convnext.variants import VARIANTS, Variant

TOY = Variant("toy", (1, 1), (8, 16), 0.3, 2)
ROAD = Regime("toy", "A to B", 16, 2, ((1,), (1,)), (4, 4, 8), {})
SETTINGS = {
    "algorithm": "adamw",
    "epochs": 2,
    "warmup_epochs": 0.5,
    "batch_size": 16,
    "mixing_batch": 4,
    "learning_rate": 3e-3,
    "layer_decay": 0.8,
    "ema_decay": 0.9,
    "layer_scale": 0.3,
    "mixup": 0.8,
    "cutmix": 1.0,
    "random_erasing": 0.25,
    "size": 16,
}
COLORS = {"blue": (40, 60, 200), "green": (50, 190, 60), "red": (200, 50, 40), "white": (225,) * 3}


def make_pictures(folder, train_images=40, test_images=6, seed=0, extension="jpg"):
    """Writes noisy pictures of four colors, as folders of JPEGs or other formats."""
    generator = np.random.default_rng(seed)
    for split, count in (("train", train_images), ("test", test_images)):
        for name, color in COLORS.items():
            place = folder / split / name
            place.mkdir(parents=True)
            for index in range(count):
                pixels = generator.normal(color, 50, (20, 24, 3)).clip(0, 255).astype("uint8")
                Image.fromarray(pixels).save(place / f"{index:03d}.{extension}", quality=95)
    return folder


def register(monkeypatch=None, variant=TOY):
    """Registers toys like the published networks, permanently or for one test."""
    builder = builders._builder(variant)
    for table, row in ((VARIANTS, variant), (builders.BUILDERS, builder), (REGIMES, ROAD)):
        if monkeypatch:
            monkeypatch.setitem(table, variant.name, row)
        else:
            table[variant.name] = row


def toy_train(data, output, *, strategy=None, validation_data=None, console=None, **own):
    model = own.pop("model", "toy")
    return train(
        "cifar10", model, data, output, {**SETTINGS, **own},
        strategy=strategy, validation_data=validation_data, console=console,
    )  # fmt: skip


def raise_at(update, number):
    """Sends a signal to this process right after an update."""
    original = journal.Journal.on_train_batch_end

    def end(self, batch, logs=None):
        before = self.progress.updates
        original(self, batch, logs)
        if before < update <= self.progress.updates:
            os.kill(os.getpid(), number)

    journal.Journal.on_train_batch_end = end


def main(task):
    """Executes one run after another.

    The keys of the task are `data`, `runs` (a list of output, settings, and whether to use a single
    device), `devices`, and `stop` (update, name of a signal).
    """
    register()
    cpu = tf.config.list_physical_devices("CPU")[0]
    devices = [tf.config.LogicalDeviceConfiguration()] * task.get("devices", 1)
    tf.config.set_logical_device_configuration(cpu, devices)
    if "stop" in task:
        update, name = task["stop"]
        raise_at(update, signal.Signals[name])
    if "TF_CONFIG" in os.environ:
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    elif len(devices) > 1:
        strategy = tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(len(devices))])
    else:
        strategy = None
    for output, own, on_one in task["runs"]:
        chosen = tf.distribute.get_strategy() if on_one else strategy
        toy_train(task["data"], output, strategy=chosen, **own)


if __name__ == "__main__":
    try:
        main(json.loads(sys.argv[1]))
    except journal.Interrupted as error:
        sys.exit(str(error))
