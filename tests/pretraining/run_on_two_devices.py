"""Pre-trains a toy on two devices: python run_on_two_devices.py DATA OUTPUT SETTINGS."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from keras_convnext import builders, pretraining
from keras_convnext.pretraining import settings
from keras_convnext.variants import VARIANTS, Variant

TOY = Variant("toyv2", (1, 1), (8, 16), None, 2, 3, stddev=None, size=16, grn=True)


def register(patch):
    """Registers the toy like a published network."""
    patch.setitem(VARIANTS, TOY.name, TOY)
    patch.setitem(builders.BUILDERS, TOY.name, builders._builder(TOY))
    patch.setattr(settings, "NETWORKS", (*settings.NETWORKS, TOY.name))


if __name__ == "__main__":
    data, output, own = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
    (cpu,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    register(pytest.MonkeyPatch())
    recipe = pretraining.recipe_for("pretrain_small", TOY.name, own)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    trunk = pretraining.train(recipe, TOY.name, data, output / "run", strategy=strategy)
    np.savez(output / "weights.npz", *trunk.get_weights())
