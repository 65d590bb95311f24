"""A task of its own: find the angle of a line in a drawn image.

`python angle_task.py runs/angle` trains it, and resumes it if it was interrupted.
"""

import math
import sys

import keras
import tensorflow as tf

import keras_convnext
from keras_convnext.training import (
    Batch,
    Metric,
    Objective,
    Optimizer,
    Recipe,
    Schedule,
    fit,
)

SIDE = 16  # pixels

RECIPE = Recipe(
    name="angle",
    source="ours",
    optimizer=Optimizer(learning_rate=3e-3, weight_decay=0.05, ema_decay=0.9),
    schedule=Schedule(updates=60, warmup_updates=10, decay="polynomial", evaluation_updates=20),
    batch=Batch(batch_size=32),
)


def drawing(seed):
    """Draws a line through the center: an image (side, side, 3) and (sin 2a, cos 2a)."""
    angle = tf.random.stateless_uniform((), seed, maxval=math.pi)
    rows, columns = tf.meshgrid(*[tf.linspace(-1.0, 1.0, SIDE)] * 2, indexing="ij")
    distance = tf.abs(columns * tf.sin(angle) - rows * tf.cos(angle))
    image = 255 * tf.exp(-tf.square(distance / 0.2))
    image += tf.random.stateless_normal((SIDE, SIDE), seed + 1, stddev=20.0)
    return tf.repeat(image[..., None], 3, axis=-1), tf.stack([tf.sin(2 * angle), tf.cos(2 * angle)])


def degrees(true, predicted):
    """Mean error of the angle in degrees: an angle and its opposite are the same line."""
    apart = tf.atan2(true[:, 0], true[:, 1]) - tf.atan2(predicted[:, 0], predicted[:, 1])
    return tf.abs(tf.atan2(tf.sin(apart), tf.cos(apart))) * (90 / math.pi)


class AngleTask:
    """The task, as `fit` trains it."""

    examples = 320
    metric = Metric("degrees", higher_is_better=False)
    restarts = ()
    drop_path_rate = 0.1

    def __init__(self, recipe):
        self.recipe = recipe

    def describe(self):
        return {"task": "angle", "side": SIDE}

    def files(self):
        return {"units.txt": "degrees\n"}

    def network(self):
        trunk = keras_convnext.ConvNeXt(
            (1, 1), (8, 16), include_top=False, pooling="avg", input_shape=(SIDE, SIDE, 3),
            patch_size=2, drop_path_rate=self.drop_path_rate, layer_scale_init_value=0.3,
        )  # fmt: skip
        self.model = keras.Sequential([trunk, keras.layers.Dense(2, name="head")], name="angle")
        return self.model

    def objective(self):
        error = keras.metrics.MeanMetricWrapper(degrees, name="degrees")
        return Objective(keras.losses.MeanSquaredError(), [error], tf.TensorSpec((2,)))

    def batches(self, layout, first_update):
        share = layout.process_batch * layout.accumulated  # of this process, in each update
        first = layout.process * share

        def drawn(number):
            update, within = first_update + number // share, number % share
            position = update * self.recipe.batch.batch_size + first + within
            return drawing(tf.stack([tf.constant(self.recipe.seed, tf.int64), 2 * position]))

        numbers = tf.data.Dataset.range(2**62)
        return numbers.map(drawn).batch(layout.process_batch, drop_remainder=True)

    def evaluation(self, model, layout):
        drawn = tf.data.Dataset.range(64).map(lambda i: drawing(tf.stack([-1 - 2 * i, i])))
        batches = drawn.batch(layout.process_batch, drop_remainder=True)
        distributed = layout.distributed(model.distribute_strategy, batches.repeat())
        steps = int(batches.cardinality())
        return lambda: model.evaluate(distributed, steps=steps, verbose=0, return_dict=True)

    def save(self, path):
        self.model.save(path)

    def refuse_broken(self, update):
        """Drawn images are never broken."""


if __name__ == "__main__":
    fit(AngleTask(RECIPE), RECIPE, sys.argv[1])
