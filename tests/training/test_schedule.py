import keras
import numpy as np
import pytest

from keras_convnext.training.schedule import WarmupCosine


def official(base, end, steps, warmup):
    """`cosine_scheduler` of the official code, as recipes tell it."""
    rest = np.arange(steps - warmup)
    cosine = end + 0.5 * (base - end) * (1 + np.cos(np.pi * rest / len(rest)))
    return np.concatenate([np.linspace(0, base, warmup), cosine])


@pytest.mark.parametrize(("steps", "warmup"), [(300, 20), (90, 0), (1000, 1), (50, 49)])
def test_each_step_is_that_of_the_official_schedule(steps, warmup):
    schedule = WarmupCosine(4e-3, steps, warmup, 1e-6)
    rates = [float(schedule(step)) for step in range(steps)]
    np.testing.assert_allclose(rates, official(4e-3, 1e-6, steps, warmup), rtol=2e-6)


def test_it_stays_at_its_end():
    schedule = WarmupCosine(1.0, 10, 2, 0.25)
    assert float(schedule(10)) == float(schedule(1000)) == 0.25


def test_it_comes_back_from_its_config():
    schedule = WarmupCosine(1.0, 10, 2, 0.25)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(schedule))
    assert again.get_config() == schedule.get_config()


def test_a_warmup_longer_than_the_run_is_refused():
    with pytest.raises(ValueError, match="warmup_steps=11"):
        WarmupCosine(1.0, 10, 11)
