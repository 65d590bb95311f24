"""Random numbers on two devices, simulated on a CPU."""

import json
from pathlib import Path

import on_devices
import pytest
from forked import Forked
from test_run import free_ports


def start(name, *arguments, **environment):
    return Forked(
        Path(on_devices.__file__).read_text(), name, *map(json.dumps, arguments), **environment
    )


def result_of(process):
    done = process.wait()
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_each_device_draws_its_own_masks_anew_at_every_step(tmp_path):
    for layer in zip(*result_of(start("masks_of_layers", str(tmp_path)))):
        masks = [str(device) for step in layer for device in step]
        assert len(set(masks)) == len(masks) == 6


def assert_own_masks(masks):
    """The masks of a run of ten updates, by device."""
    assert masks.keys() == {"0", "1"}
    drawn = [str(mask) for device in masks.values() for mask in device]
    assert len(drawn) == 20
    assert len(set(drawn)) > 15  # of 256 possible ones
    assert sum(own == other for own, other in zip(*masks.values())) <= 2


def test_a_run_on_two_devices_draws_other_masks_on_each(pictures, tmp_path):
    assert_own_masks(result_of(start("masks_of_run", str(pictures), str(tmp_path / "run"))))


@pytest.mark.slow
def test_a_run_on_two_machines_draws_other_masks_on_each(pictures, tmp_path):
    workers = [f"localhost:{port}" for port in free_ports(2)]
    clusters = [
        {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        for index in (0, 1)
    ]
    arguments = str(pictures), str(tmp_path / "run")
    first, second = [
        start("masks_of_run", *arguments, TF_CONFIG=json.dumps(cluster)) for cluster in clusters
    ]
    assert_own_masks({**result_of(first), **result_of(second)})
