from dataclasses import replace

import keras
import numpy as np
import pytest

from keras_convnext.training.assembly import schedule_of
from keras_convnext.training.length import length_of
from keras_convnext.training.recipe import Batch, Optimizer, Recipe, Schedule
from keras_convnext.training.schedule import WarmupCosine, WarmupPolynomial, WarmupSteps


def official(base, end, steps, warmup, start=0.0):
    """`cosine_scheduler` of the official code, as recipes tell it."""
    rest = np.arange(steps - warmup)
    cosine = end + 0.5 * (base - end) * (1 + np.cos(np.pi * rest / len(rest)))
    return np.concatenate([np.linspace(start * base, base, warmup), cosine])


@pytest.mark.parametrize(
    ("steps", "warmup", "start"), [(300, 20, 0), (90, 0, 0), (1000, 1, 0), (50, 49, 0.3)]
)
def test_each_step_is_that_of_the_official_schedule(steps, warmup, start):
    schedule = WarmupCosine(4e-3, steps, warmup, 1e-6, start)
    rates = [float(schedule(step)) for step in range(steps)]
    np.testing.assert_allclose(rates, official(4e-3, 1e-6, steps, warmup, start), rtol=2e-6)


def in_mmcv(regular, warmup, start):
    """Linear warmup of mmcv's `LrUpdaterHook`, on the regular rate of each update."""
    return [
        rate * (1 - (1 - step / warmup) * (1 - start)) if step < warmup else rate
        for step, rate in enumerate(regular)
    ]


@pytest.mark.parametrize("power", [1.0, 0.9])
def test_the_polynomial_is_that_of_mmcv(power):
    """As for ADE20K: 160,000 updates, 1,500 of warmup from 1e-6; here a hundredth of them."""
    steps, warmup, start, end = 1600, 15, 1e-6, 1e-7
    regular = [(1e-4 - end) * (1 - step / steps) ** power + end for step in range(steps)]
    schedule = WarmupPolynomial(1e-4, steps, warmup, end, power, start)
    rates = [float(schedule(step)) for step in range(steps)]
    np.testing.assert_allclose(rates, in_mmcv(regular, warmup, start), rtol=1e-4)
    assert float(schedule(steps + 5)) == pytest.approx(end)


def test_the_steps_are_those_of_mmcv():
    """As for COCO: 36 epochs, the rate falls after 27 and 33."""
    epoch, warmup, start = 20, 10, 0.001
    regular = [2e-4 * 0.1 ** sum(step >= epoch * each for each in (27, 33)) for step in range(720)]
    schedule = WarmupSteps(2e-4, (27 * epoch, 33 * epoch), warmup, 0.1, start)
    rates = [float(schedule(step)) for step in range(720)]
    np.testing.assert_allclose(rates, in_mmcv(regular, warmup, start), rtol=1e-5)
    constant = WarmupSteps(0.5)
    assert float(constant(0)) == float(constant(10**6)) == 0.5


RECIPE = Recipe(
    name="toy",
    source="ours",
    optimizer=Optimizer(learning_rate=1.0, weight_decay=0.1),
    schedule=Schedule(epochs=4, warmup_epochs=1, warmup_start=0.5, milestones=(2, 3)),
    batch=Batch(batch_size=8),
)


@pytest.mark.parametrize(
    ("decay", "kind", "halfway", "end"),
    [
        ("cosine", WarmupCosine, 0.75, 1e-6),
        ("polynomial", WarmupPolynomial, 0.5, 1e-6),
        ("steps", WarmupSteps, 0.1, 0.01),
        ("constant", WarmupSteps, 1, 1),
    ],
)
def test_a_recipe_has_any_of_them(decay, kind, halfway, end):
    recipe = replace(RECIPE, schedule=replace(RECIPE.schedule, decay=decay))
    schedule = schedule_of(recipe, length_of(recipe, 80))
    assert type(schedule) is kind
    assert float(schedule(20)) == pytest.approx(halfway)
    assert float(schedule(40)) == pytest.approx(end)


def test_it_stays_at_its_end():
    schedule = WarmupCosine(1.0, 10, 2, 0.25)
    assert float(schedule(10)) == float(schedule(1000)) == 0.25


@pytest.mark.parametrize(
    "schedule",
    [
        WarmupCosine(1.0, 10, 2, 0.25),
        WarmupPolynomial(1.0, 10, 2, 0.25, 0.9, 0.1),
        WarmupSteps(1.0, (3, 6), 2, 0.5, 0.1),
    ],
)
def test_it_comes_back_from_its_config(schedule):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert again.get_config() == schedule.get_config()


def test_a_warmup_longer_than_the_run_is_refused():
    with pytest.raises(ValueError, match="warmup_steps=11"):
        WarmupCosine(1.0, 10, 11)
