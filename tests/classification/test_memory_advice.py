import re

import pytest
import tensorflow as tf

from keras_convnext.classification.memory import memory_of
from keras_convnext.classification.memory_advice import out_of_memory
from keras_convnext.classification.settings import recipe_for
from keras_convnext.training.devices import DEVICES
from keras_convnext.training.layout import Layout


def advised(layout, **settings):
    """Returns the current memory in GiB, and a dict from advised settings to theirs."""
    recipe = recipe_for("imagenet1k", "convnext_tiny", settings)
    message = str(out_of_memory(recipe, "convnext_tiny", 1000, layout))
    now = re.search(r"device_batch=(\d+) needs about ([\d.]+) GiB", message)
    assert int(now[1]) == layout.device_batch
    found = re.findall(r"--set (\w+=\w+(?: --set \w+=\w+)*) \(([\d.]+) GiB\)", message)
    return float(now[2]), {name: float(needed) for name, needed in found}


@pytest.mark.parametrize(("gpus", "device"), [([], "cpu-core"), (["gpu"], "a100-80gb")])
def test_the_memory_is_that_of_plan(monkeypatch, gpus, device):
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: gpus)
    now, found = advised(Layout(0, 1, 8, 128, 4))
    assert list(found) == [
        "device_batch=64", "remat=true", "device_batch=1 --set remat=true",
        *["precision=mixed_bfloat16"] * len(gpus),
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
