"""Runs of networks with batch normalization, whose statistics are weights that are not trained."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import toy_runs
from safetensors.numpy import load_file
from test_run import assert_same_run, finish, start

from keras_convnext.training.journal import Interrupted, Journal
from keras_convnext.training.state import saved_states

pytestmark = pytest.mark.usefixtures("toy")

OWN = {"model": "roadmap:toy/patchify", "layer_scale": None, "layer_decay": 1.0}
MEAN = "stages_0_blocks_0_norm1/moving_mean"


def run(data, output, **own):
    settings = {**OWN, "epochs": 1, "save_updates": 1, "drop_path_rate": 0.2, **own}
    toy_runs.toy_train(data, output, **settings)


@pytest.mark.parametrize(
    "device_batch", [4, pytest.param(16, marks=pytest.mark.slow)], ids=["accumulated", ""]
)
def test_statistics_are_averaged_saved_and_restored(device_batch, pictures, tmp_path, monkeypatch):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    run(pictures, whole, device_batch=device_batch)
    last, before, *_ = map(load_file, saved_states(whole / "checkpoints"))
    names = [name.removeprefix("average/") for name in last if name.startswith("average/")]
    assert len(names) == 2 * 4  # of three norms in the block and one in its shortcut
    for name in names:
        was, now = before[f"average/{name}"], last[f"average/{name}"]
        expected = 0.9 * was + 0.1 * last[f"model/{name}"]  # once per update
        np.testing.assert_allclose(now, expected, rtol=1e-5, atol=1e-7)
        assert (now != was).any()
    for file, kind in (("final", "model"), ("final_ema", "average")):
        network = keras.models.load_model(whole / f"{file}.keras")
        layer, variable = MEAN.split("/")
        kept = keras.ops.convert_to_numpy(getattr(network.get_layer(layer), variable))
        np.testing.assert_array_equal(kept, last[f"{kind}/{MEAN}"])

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "on_train_batch_end", Journal.on_train_batch_end)
        toy_runs.raise_at(7, signal.SIGTERM)
        with pytest.raises(Interrupted, match="Stopped by SIGTERM after update 8"):
            run(pictures, stopped, device_batch=device_batch)
    run(pictures, stopped, device_batch=device_batch)
    assert_same_run(stopped, whole)


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_a_run_that_is_killed_ends_as_one_that_is_not(devices, pictures, tmp_path):
    own = {**OWN, "drop_path_rate": 0.2, "save_updates": 4, "epochs": 1, "mixing_batch": 2}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    finish(start(pictures, [(whole, own, False)], devices=devices))
    stop = {"devices": devices, "stop": (7, "SIGKILL")}
    finish(start(pictures, [(killed, own, False)], **stop), code=-9)
    finish(start(pictures, [(killed, own, False)], devices=devices))
    assert_same_run(killed, whole)


def test_devices_share_moving_statistics():
    script = Path(__file__).parent / "on_devices.py"
    done = subprocess.run(
        [sys.executable, script, "moving_means"], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_array_equal(*found["devices"])
    np.testing.assert_allclose(found["devices"][0], found["expected"], rtol=1e-6)
    np.testing.assert_array_equal(*found["averages"])
    np.testing.assert_allclose(found["averages"][0], found["expected average"], atol=1e-8)
