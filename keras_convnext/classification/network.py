"""Builds the network, optimizer and metrics of a recipe."""

from pathlib import Path

import keras
import tensorflow as tf

from keras_convnext.builders import BUILDERS
from keras_convnext.classification.recipes import Recipe
from keras_convnext.training.fitted import FittedModel
from keras_convnext.training.layout import Layout
from keras_convnext.training.memory import network_of
from keras_convnext.training.muon import Muon
from keras_convnext.training.optimizer import AdamW, LossScaleOptimizer
from keras_convnext.training.schedule import WarmupCosine


def build_network(recipe: Recipe, model: str, classes: int) -> keras.Model:
    """Builds the network of a recipe with logits, as the loss expects."""
    return BUILDERS[model](
        weights=recipe.start,
        input_shape=(recipe.size, recipe.size, 3),
        classes=classes,
        classifier_activation=None,
        drop_path_rate=recipe.drop_path_rate,
        head_init_scale=recipe.head_init_scale,
        layer_scale_init_value=network_of(recipe, model).layer_scale,
        remat=recipe.remat,
    )


def compile_for(
    model: FittedModel, recipe: Recipe, layout: Layout, updates_per_epoch: int, classes: int
) -> None:
    """Compiles and builds a model with the loss, optimizer and metrics of a recipe.

    Args:
        model: FittedModel. The model, which returns logits.
        recipe: Recipe. The recipe.
        layout: Layout. How the batch is distributed.
        updates_per_epoch: int. Weight updates per epoch.
        classes: int. Number of classes.
    """
    schedule = WarmupCosine(
        recipe.learning_rate,
        recipe.epochs * updates_per_epoch,
        round(recipe.warmup_epochs * updates_per_epoch),
        recipe.min_learning_rate,
    )
    optimizer = {"adamw": AdamW, "muon": Muon}[recipe.optimizer](
        schedule,
        recipe.weight_decay,
        layer_decay=recipe.layer_decay,
        frozen_steps=round(recipe.frozen_epochs * updates_per_epoch),
        global_clipnorm=recipe.clip_norm,
        use_ema=recipe.ema_decay is not None,
        ema_momentum=recipe.ema_decay if recipe.ema_decay is not None else 0.99,
        gradient_accumulation_steps=layout.accumulated if layout.accumulated > 1 else None,
    )
    if recipe.precision == "mixed_float16":
        optimizer = LossScaleOptimizer(optimizer)
    model.compile(
        optimizer,
        keras.losses.CategoricalCrossentropy(from_logits=True),
        weighted_metrics=[
            keras.metrics.CategoricalAccuracy(name="accuracy"),
            keras.metrics.TopKCategoricalAccuracy(min(5, classes), name="top5_accuracy"),
            keras.metrics.CategoricalCrossentropy(from_logits=True, name="cross_entropy"),
        ],
        auto_scale_loss=False,
        # XLA with a strategy and mixed precision is broken (keras issue 20763).
        jit_compile="auto" if layout.devices * layout.processes == 1 else False,
    )
    side = recipe.size
    batch = layout.device_batch
    model.build_for(
        (
            tf.TensorSpec((batch, side, side, 3)),
            tf.TensorSpec((batch, classes)),
            tf.TensorSpec((batch,)),
        )
    )


def save_classifier(network: keras.Model, path: Path) -> None:
    """Saves a network that returns logits as one that returns probabilities."""
    head = network.get_layer("head")
    head.activation = keras.activations.softmax
    network.save(path)
    head.activation = keras.activations.linear
