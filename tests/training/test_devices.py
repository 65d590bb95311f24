"""Random numbers, accumulation and overflows on two devices, simulated on a CPU."""

import json
import signal
from pathlib import Path

import numpy as np
import on_devices
import pytest
from forked import Forked
from test_run import assert_same_run, free_ports


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


@pytest.mark.parametrize(
    ("accumulated", "in_graph"),
    [
        (1, True),
        (3, False),
        pytest.param(1, False, marks=pytest.mark.slow),
        pytest.param(3, True, marks=pytest.mark.slow),
    ],
)
def test_an_overflow_on_one_device_skips_the_whole_update_on_all(accumulated, in_graph):
    skipped = (0, 3)  # of six updates; in the last batch of one, and the first of another
    overflows = [(accumulated - 1, 1), (3 * accumulated, 0)]
    found, reductions = result_of(start("scaled_updates", accumulated, overflows, in_graph))
    assert in_graph or reductions == 6 * 2  # once per update on each of two devices
    before, scale, moved = np.ones((3, 2)), 8.0, []
    for number, (batch, update) in enumerate(
        (batch, update) for update in range(6) for batch in range(accumulated)
    ):
        one, two = found[number]["one"], found[number]["two"]
        for weights in two["weights"]:
            np.testing.assert_allclose(weights, one["weights"][0], 1e-6)
        np.testing.assert_allclose(two["average"], one["average"], 1e-6)
        is_last = batch == accumulated - 1
        if is_last and update not in skipped:
            moved.append(np.abs(before - two["weights"][0]).max())
            before = np.array(two["weights"][0])
        np.testing.assert_array_equal(two["weights"][0], before)
        scale /= 2 if is_last and update in skipped else 1
        assert one["scale"] == two["scale"] == scale
        assert one["counts"] == two["counts"]
        assert two["counts"] == [
            number + 1, sum(each + (not is_last) <= update for each in skipped),
        ]  # fmt: skip
    assert len(moved) == 4
    assert min(moved) > 0.01


@pytest.mark.slow
def test_a_float16_run_with_overflows_counts_every_update_and_resumes(pictures, tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    counts = result_of(start("float16_run", str(pictures), str(whole)))
    assert [row[0] for row in counts] == list(range(1, 21))  # two batches in each of ten updates
    assert [row[1] for row in counts] == [batch // 2 for batch in range(1, 21)]
    assert 3 <= counts[-1][2] <= 7
    assert counts[-1][3] == 2.0 ** (20 - counts[-1][2])
    arguments = str(pictures), str(killed)
    process = start("float16_run", *arguments, [3, signal.SIGKILL])
    assert process.wait().returncode == -signal.SIGKILL
    assert result_of(start("float16_run", *arguments)) == counts[4:]
    assert_same_run(killed, whole)
