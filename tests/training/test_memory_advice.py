import re

import pytest
import tensorflow as tf

from keras_convnext.classification.memory import memory_of
from keras_convnext.classification.planning import cost_of
from keras_convnext.classification.settings import recipe_for
from keras_convnext.memory_errors import OutOfMemoryError
from keras_convnext.training.devices import DEVICES
from keras_convnext.training.layout import Layout
from keras_convnext.training.memory_advice import advice, advising

EXHAUSTED = tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")


def advised(layout, device="cpu-core", **settings):
    """Returns the current memory in GiB, and a dict from advised settings to theirs."""
    recipe = recipe_for("imagenet1k", "convnext_tiny", settings)
    cost = cost_of(recipe, "convnext_tiny", 1000)
    message = advice(recipe, "convnext_tiny", cost, layout, DEVICES[device])
    now = re.search(r"device_batch=(\d+) needs about ([\d.]+) GiB", message)
    assert int(now[1]) == layout.device_batch
    found = re.findall(r"--set (\w+=\w+(?: --set \w+=\w+)*) \(([\d.]+) GiB\)", message)
    return float(now[2]), {name: float(needed) for name, needed in found}


@pytest.mark.parametrize("device", ["cpu-core", "a100-80gb"])
def test_the_memory_is_that_of_plan(device):
    now, found = advised(Layout(0, 1, 8, 128, 4), device)
    assert list(found) == [
        "device_batch=64", "remat=true", "device_batch=1 --set remat=true",
        *["precision=mixed_bfloat16"] * DEVICES[device].is_gpu,
    ]  # fmt: skip
    settings = {"device_batch=64": {}, "remat=true": {"remat": True}}
    for name, own in settings.items():
        share = (64, 8) if "batch" in name else (128, 4)
        recipe = recipe_for("imagenet1k", "convnext_tiny", own)
        expected = memory_of(recipe, "convnext_tiny", 1000, *share, DEVICES[device]).total
        assert found[name] == pytest.approx(expected / 2**30, abs=0.05)
    assert max(found.values()) < now


def test_nothing_is_advised_that_is_set():
    assert list(advised(Layout(0, 1, 1, 1, 4096), remat=True)[1]) == []
    assert list(advised(Layout(0, 1, 1, 96, 1), batch_size=96, remat=True)[1]) == [
        "device_batch=48", "device_batch=1 --set remat=true",
    ]  # fmt: skip


@pytest.mark.parametrize("gpus", [[], ["gpu"]])
def test_the_memory_is_that_of_the_devices_in_use(monkeypatch, gpus):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)
    asked = []
    recipe = recipe_for("imagenet1k", "convnext_tiny")
    with (
        pytest.raises(OutOfMemoryError, match="device_batch=128"),
        advising(recipe, "convnext_tiny", tf.distribute.get_strategy(), asked.append),
    ):
        raise EXHAUSTED
    assert [device.is_gpu for device in asked] == [bool(gpus)]


def test_other_errors_are_raised_as_they_are():
    recipe = recipe_for("imagenet1k", "convnext_tiny")
    strategy = tf.distribute.get_strategy()
    with pytest.raises(KeyError), advising(recipe, "convnext_tiny", strategy, pytest.fail):
        raise KeyError("no memory")
