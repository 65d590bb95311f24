"""Programs on two simulated devices, for `test_devices.py`: `on_devices.py NAME ARGUMENTS`.

Each prints its results as JSON on the last line.
"""

import json
import os
import sys
from pathlib import Path

import keras
import tensorflow as tf
import toy_runs

from keras_convnext.layers import DropPath
from keras_convnext.training.fitted import FittedModel
from keras_convnext.training.state import Progress, restore_state, save_state, state_of


def two_devices():
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])


def masks_of_layers(folder):
    """Returns what dropout and drop path keep of ones, for each of 3 steps and 2 devices.

    The third step is made by a second model, from the state after the second step.
    """
    strategy = two_devices()

    def make():
        with strategy.scope():
            keras.utils.set_random_seed(0)
            inner = keras.Sequential([keras.Input((1, 1, 4)), keras.layers.Dropout(0.5)])
            inputs = keras.Input((1, 1, 4))
            model = FittedModel(inputs, [inner(inputs), DropPath(0.5)(inputs)])
            model.compile("sgd", "mse")
            model.optimizer.build(model.trainable_variables)
        return model

    @tf.function
    def step(model):
        kept = strategy.run(lambda: model(tf.ones((8, 1, 1, 4)), training=True))
        return [strategy.experimental_local_results(each) for each in kept]

    def masks(model):
        return [[(device.numpy() > 0).tolist() for device in layer] for layer in step(model)]

    first, second = make(), make()
    first.separate_devices()
    found = [masks(first), masks(first)]
    path = save_state(Path(folder), state_of(first), Progress(2))
    found.append(masks(first))
    restore_state(path, second)
    second.separate_devices()
    assert masks(second) == found[-1], "a restored model draws other masks"
    return found


def masks_of_run(data, output):
    """Returns the masks of drop path in a run, by device."""
    is_worker = "TF_CONFIG" in os.environ
    strategy = tf.distribute.MultiWorkerMirroredStrategy() if is_worker else two_devices()
    draw, masks = DropPath.draw, {}

    def recorded(self, inputs):
        keep = draw(self, inputs)
        device = tf.distribute.get_replica_context().replica_id_in_sync_group

        def record(device, keep):
            masks.setdefault(int(device), []).append((keep.ravel() > 0).tolist())
            return keep

        observed = tf.numpy_function(record, [device, keep], keep.dtype)
        return tf.ensure_shape(observed, keep.shape)

    DropPath.draw = recorded
    toy_runs.register()
    toy_runs.toy_train(
        data, output, strategy=strategy, epochs=1, drop_path_rate=0.5, mixing_batch=2
    )
    return masks


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    print(json.dumps(globals()[name](*map(json.loads, arguments))))
