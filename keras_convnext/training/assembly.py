"""Builds the schedule and the optimizer of a recipe, on any backend."""

import keras

from keras_convnext.training.layout import Layout
from keras_convnext.training.length import Length
from keras_convnext.training.loss_scale import LossScaleOptimizer
from keras_convnext.training.muon import Muon
from keras_convnext.training.optimizer import AdamW
from keras_convnext.training.recipe import Recipe
from keras_convnext.training.schedule import WarmupCosine, WarmupPolynomial, WarmupSteps


def schedule_of(recipe: Recipe, length: Length) -> keras.optimizers.schedules.LearningRateSchedule:
    """Returns the learning rate schedule of a recipe."""
    peak, own = recipe.optimizer.learning_rate, recipe.schedule
    warmup, start = length.warmup, own.warmup_start
    if own.decay == "cosine":
        return WarmupCosine(peak, length.updates, warmup, own.min_learning_rate, start)
    if own.decay == "polynomial":
        return WarmupPolynomial(
            peak, length.updates, warmup, own.min_learning_rate, own.power, start
        )
    milestones = length.milestones if own.decay == "steps" else ()
    return WarmupSteps(peak, milestones, warmup, own.step_factor, start)


def optimizer_of(recipe: Recipe, layout: Layout, length: Length) -> keras.optimizers.Optimizer:
    """Returns the optimizer of a recipe."""
    own = recipe.optimizer
    optimizer = {"adamw": AdamW, "muon": Muon}[own.algorithm](
        schedule_of(recipe, length),
        own.weight_decay,
        beta_2=own.beta_2,
        layer_decay=own.layer_decay,
        layer_groups=own.layer_groups,
        frozen=own.frozen,
        no_decay=own.no_decay,
        frozen_steps=length.frozen,
        global_clipnorm=own.clip_norm,
        use_ema=own.ema_decay is not None,
        ema_momentum=own.ema_decay if own.ema_decay is not None else 0.99,
        gradient_accumulation_steps=layout.accumulated if layout.accumulated > 1 else None,
    )
    return LossScaleOptimizer(optimizer) if recipe.batch.precision == "mixed_float16" else optimizer
