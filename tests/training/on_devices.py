"""Programs on two simulated devices, for `test_devices.py`: `on_devices.py NAME ARGUMENTS`.

Each prints its results as JSON on the last line.
"""

import json
import os
import sys
from functools import partial
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import toy_runs

from keras_convnext.layers import BatchNormalization, DropPath
from keras_convnext.training.fitted import FittedModel
from keras_convnext.training.journal import Journal
from keras_convnext.training.loss_scale import LossScaleOptimizer
from keras_convnext.training.optimizer import AdamW
from keras_convnext.training.state import Progress, restore_state, save_state, state_of
from keras_convnext.training.statistics import AveragedStatistics


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


def moving_means():
    """Returns the moving mean of a batch normalization after two updates, and its average."""
    strategy = two_devices()
    with strategy.scope():
        inputs = keras.Input((4,))
        norm = BatchNormalization(momentum=0.9)
        model = FittedModel(inputs, keras.layers.Dense(1)(norm(inputs)))
        model.compile(AdamW(0.1), "mse")
        model.statistics = AveragedStatistics(model, 0.8, 1)
        spec = tf.TensorSpec((4, 4)), tf.TensorSpec((4, 1)), tf.TensorSpec((4,))
        model.build_for(spec)
    pixels = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
    model.fit(pixels, pixels[:, :1], batch_size=8, shuffle=False, verbose=0)
    mean, average = np.zeros(4), np.zeros(4)
    for batch in (pixels[:8], pixels[8:]):
        mean = 0.9 * mean + 0.1 * batch.mean(0)
        average = 0.8 * average + 0.2 * mean

    def on_devices(variable):
        values = strategy.experimental_local_results(variable.value)
        return [value.numpy().tolist() for value in values]

    return {
        "devices": on_devices(norm.moving_mean),
        "expected": mean.tolist(),
        "averages": on_devices(model.statistics.averages[0]),
        "expected average": average.tolist(),
    }


def scaled_updates(accumulated, overflows, in_graph):
    """Makes six updates with loss scaling, on two devices and on one.

    Args:
        accumulated: int. Batches per update.
        overflows: list of (batch, device).
        in_graph: bool. Whether the step is a `tf.function`.

    Returns:
        The weights, averages, scales and counts after each batch, and how often gradients were
        reduced over devices (in graphs, how often that was traced).
    """
    strategy = two_devices()
    batches = np.random.default_rng(0).normal(0, 0.1, (6 * accumulated, 2, 3, 2)).astype("f")
    for batch, device in overflows:
        batches[batch, device, 1, 1] = np.inf

    def make():
        held = keras.Variable(np.ones((3, 2), "f"), name="kernel")
        inner = AdamW(
            0.1, global_clipnorm=0.2, use_ema=True, ema_momentum=0.9,
            gradient_accumulation_steps=accumulated if accumulated > 1 else None,
        )  # fmt: skip
        optimizer = LossScaleOptimizer(inner, initial_scale=8.0)
        optimizer.build([held])
        return held, optimizer

    reduce, reductions = tf.distribute.ReplicaContext.all_reduce, []

    def counted(self, *args, **kwargs):
        reductions.append(1)
        return reduce(self, *args, **kwargs)

    def state_after(held, optimizer):
        inner = optimizer.inner_optimizer
        return {
            "weights": [
                value.numpy().tolist() for value in strategy.experimental_local_results(held.value)
            ],
            "average": inner.averages[0].numpy().tolist(),
            "scale": float(optimizer.dynamic_scale.numpy()),
            "counts": [int(inner._iterations.numpy()), int(inner.skipped.numpy())],
        }

    alone, on_one = make()
    with strategy.scope():
        held, on_two = make()

    def step(gradients):
        strategy.run(lambda gradient: on_two.apply([gradient], [held]), args=(gradients,))

    step = tf.function(step) if in_graph else step
    found = []
    for batch in batches:
        on_one.apply([tf.constant(batch.mean(0)) * on_one.dynamic_scale], [alone])
        # A loss is divided by the number of devices.
        halves = tf.constant(batch / 2) * on_two.dynamic_scale
        shares = strategy.experimental_distribute_values_from_function(
            partial(lambda halves, context: halves[context.replica_id_in_sync_group], halves)
        )
        tf.distribute.ReplicaContext.all_reduce = counted
        step(shares)
        tf.distribute.ReplicaContext.all_reduce = reduce
        found.append({"one": state_after(alone, on_one), "two": state_after(held, on_two)})
    return found, len(reductions)


def float16_run(data, output, stop=None):
    """Trains in float16 with a loss scale that overflows, and returns the counts of each update."""
    create, end, found = LossScaleOptimizer.__init__, Journal.on_train_batch_end, []

    def scaled(self, inner_optimizer):
        create(self, inner_optimizer, initial_scale=2.0**20)

    def recorded(self, batch, logs):
        end(self, batch, logs)
        optimizer = self.model.optimizer.inner_optimizer
        counts = optimizer._iterations.numpy(), self.progress.updates, optimizer.skipped.numpy()
        found.append([*map(int, counts), float(self.model.optimizer.dynamic_scale.numpy())])

    LossScaleOptimizer.__init__, Journal.on_train_batch_end = scaled, recorded
    if stop:
        toy_runs.raise_at(*stop)
    toy_runs.register()
    toy_runs.toy_train(
        data, output, strategy=two_devices(), precision="mixed_float16", device_batch=4,
        mixing_batch=2, save_updates=2, epochs=1, drop_path_rate=0.5,
    )  # fmt: skip
    return found


if __name__ == "__main__":
    name, *arguments = sys.argv[1:]
    print(json.dumps(globals()[name](*map(json.loads, arguments))))
