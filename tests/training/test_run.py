import csv
import json
import socket
from pathlib import Path

import keras
import numpy as np
import pytest
import toy_runs
from forked import Forked
from safetensors.numpy import load_file

from keras_convnext.training.journal import NonFiniteLossError
from keras_convnext.training.state import saved_states

pytestmark = pytest.mark.usefixtures("toy")


def start(data, runs, cluster=None, **task):
    task = {"data": str(data), "runs": [(str(o), own, one) for o, own, one in runs], **task}
    environment = {"TF_CONFIG": json.dumps(cluster)} if cluster else {}
    return Forked(Path(toy_runs.__file__).read_text(), json.dumps(task), **environment)


def finish(*processes, code=0):
    done = [process.wait() for process in processes]
    told = done[0].stdout + done[0].stderr
    assert [process.returncode for process in done] == [code] * len(done), told[-3000:]
    return told


def last_state(output):
    return load_file(saved_states(Path(output) / "checkpoints")[0])


def rows_of(output):
    with (Path(output) / "log.csv").open() as file:
        return list(csv.DictReader(file))


def assert_same_run(found, expected):
    """The same bits of all that a state holds, the same log, and the same files."""
    ours, theirs = last_state(found), last_state(expected)
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)
    for name in ("log.csv", "run.json", "classes.txt"):
        assert (found / name).read_bytes() == (expected / name).read_bytes()
    gray = np.full((1, 16, 16, 3), 99)
    for name in ("best.keras", "best_ema.keras", "final.keras", "final_ema.keras"):
        kept = [keras.models.load_model(run / name) for run in (found, expected)]
        np.testing.assert_array_equal(*[network.predict(gray, verbose=0) for network in kept])


# By default, test_own_task.py kills a run and test_batch_statistics.py stops one.
@pytest.mark.slow
@pytest.mark.parametrize("is_killed", [False, True])
def test_a_run_that_is_killed_or_stopped_ends_as_one_that_is_not(pictures, tmp_path, is_killed):
    own = {"drop_path_rate": 0.2, "save_updates": 4}
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    finish(start(pictures, [(whole, own, False)]))
    runs = [(stopped, own, False)]
    if is_killed:
        finish(start(pictures, runs, stop=(7, "SIGKILL")), code=-9)
        assert [path.stem for path in saved_states(stopped / "checkpoints")] == ["update-000000004"]
    told = finish(start(pictures, runs, stop=(12, "SIGTERM")), code=1)
    assert "Stopped by SIGTERM after update 13" in told, told
    finish(start(pictures, runs))
    assert_same_run(stopped, whole)
    states = [path.stem for path in saved_states(whole / "checkpoints")]
    assert states == ["update-000000020", "update-000000018", "update-000000014"]


@pytest.mark.slow
def test_it_may_be_killed_at_any_update(pictures, tmp_path):
    own = {"drop_path_rate": 0.2, "rand_augment": "rand-m9-mstd0.5-inc1", "save_updates": 3}
    whole = tmp_path / "whole"
    finish(start(pictures, [(whole, own, False)]))
    for update in (1, 3, 9, 10, 14, 20):
        killed = tmp_path / f"killed_{update}"
        finish(start(pictures, [(killed, own, False)], stop=(update, "SIGKILL")), code=-9)
        finish(start(pictures, [(killed, own, False)]))
        assert_same_run(killed, whole)


def assert_alike(output, reference):
    """Losses and weights to a relative 1e-5."""
    for row, other in zip(rows_of(output), rows_of(reference), strict=True):
        for name in ("loss", "val_loss", "val_ema_loss"):
            assert float(row[name]) == pytest.approx(float(other[name]), rel=1e-5)
    expected, found = last_state(reference), last_state(output)
    weights = [name for name in expected if name.startswith("model/")]
    assert len(weights) > 20
    difference, size = (
        np.sqrt(sum(np.sum(np.square(tensors[name])) for name in weights))
        for tensors in ({n: found[n] - expected[n] for n in weights}, expected)
    )
    assert difference <= 1e-5 * size


def free_ports(count):
    sockets = [socket.create_server(("localhost", 0)) for _ in range(count)]
    ports = [taken.getsockname()[1] for taken in sockets]
    for taken in sockets:
        taken.close()
    return ports


OPTIMIZERS = [("adamw", 4), ("adamw", 1), ("muon", 4)]  # with the number of batches per update


@pytest.fixture
def several(request):
    """Settings of a run, and of the same run with as many images on one device."""
    optimizer, accumulated = request.param
    own = {"algorithm": optimizer, "mixing_batch": 2, "epochs": 1}
    return {**own, "device_batch": 8 // accumulated}, {**own, "device_batch": 16}


@pytest.mark.parametrize(
    "several",
    [OPTIMIZERS[0], *(pytest.param(each, marks=pytest.mark.slow) for each in OPTIMIZERS[1:])],
    ids=str,
    indirect=True,
)
def test_two_devices_learn_as_one_device_does(pictures, tmp_path, several):
    on_two, on_one = several
    runs = [(tmp_path / "one", on_one, True), (tmp_path / "two", on_two, False)]
    finish(start(pictures, runs, devices=2))
    assert_alike(tmp_path / "two", tmp_path / "one")


@pytest.mark.slow
@pytest.mark.parametrize("several", OPTIMIZERS, ids=str, indirect=True)
def test_two_machines_learn_as_one_device_does(pictures, tmp_path, several):
    on_two, on_one = several
    finish(start(pictures, [(tmp_path / "one", on_one, True)]))
    workers = [f"localhost:{port}" for port in free_ports(2)]
    tasks = [{"type": "worker", "index": index} for index in (0, 1)]
    clusters = [{"cluster": {"worker": workers}, "task": task} for task in tasks]
    runs = [(tmp_path / "two", on_two, False)]
    finish(*(start(pictures, runs, cluster) for cluster in clusters))
    assert_alike(tmp_path / "two", tmp_path / "one")


def start_machines(data, runs, tasks=({}, {})):
    """Starts a process for each machine, with its run and task."""
    workers = [f"localhost:{port}" for port in free_ports(len(runs))]
    clusters = [
        {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
        for index in range(len(runs))
    ]
    return [
        start(data, [run], cluster, **task) for run, cluster, task in zip(runs, clusters, tasks)
    ]


@pytest.mark.slow
def test_two_machines_resume_exactly_when_one_is_lost_or_stopped(pictures, tmp_path):
    own = {"device_batch": 4, "mixing_batch": 2, "save_updates": 3, "drop_path_rate": 0.2}
    whole, broken = ([(tmp_path / name, own, False)] * 2 for name in ("whole", "broken"))
    finish(*start_machines(pictures, whole))
    for lost, update in ((1, 5), (0, 8)):  # the first machine coordinates the others
        tasks = [{}, {}]
        tasks[lost] = {"stop": (update, "SIGKILL")}
        machines = start_machines(pictures, broken, tasks)
        assert machines[lost].wait().returncode == -9
        other = machines[1 - lost].wait(timeout=120)
        assert other.returncode == 1
        assert "LostMachineError: Another machine of this run has stopped" in other.stderr
        assert f"broken, machine {2 - lost} of 2" in other.stderr
    told = finish(*start_machines(pictures, broken, [{}, {"stop": (12, "SIGTERM")}]), code=1)
    assert "Stopped by SIGTERM after update 1" in told
    finish(*start_machines(pictures, broken))
    assert_same_run(tmp_path / "broken", tmp_path / "whole")


@pytest.mark.slow
def test_machines_that_do_not_share_a_run_are_refused(pictures, tmp_path):
    own = {"device_batch": 4, "mixing_batch": 2, "save_updates": 3}
    run = (tmp_path / "run", own, False)
    finish(*start_machines(pictures, [run, run], [{"stop": (5, "SIGTERM")}, {}]), code=1)
    for other, message in (
        ((tmp_path / "run", {**own, "seed": 1}, False), "has other settings or data"),
        ((tmp_path / "elsewhere", own, False), "must share the folder of the run"),
    ):
        first, second = start_machines(pictures, [run, other])
        assert message in finish(second, code=1)
        assert "LostMachineError" in finish(first, code=1)


def test_what_is_easy_is_learned(pictures, tmp_path):
    model = toy_runs.toy_train(
        pictures, tmp_path / "run", epochs=4, learning_rate=1e-2, mixup=0.0, cutmix=0.0,
        random_erasing=0.0, ema_decay=None, layer_decay=1.0,
    )  # fmt: skip
    rows = rows_of(tmp_path / "run")
    assert float(rows[-1]["loss"]) < 0.7 * float(rows[0]["loss"])
    assert float(rows[-1]["val_accuracy"]) > 0.8
    white = model.predict(np.full((1, 16, 16, 3), 225.0), verbose=0)
    assert list(toy_runs.COLORS)[white[0].argmax()] == "white"
    np.testing.assert_allclose(white.sum(), 1, rtol=1e-5)


def test_where_there_is_nothing_else_a_share_is_held_back_to_validate_on(pictures, tmp_path):
    photos, output = pictures / "train", tmp_path / "run"
    toy_runs.toy_train(photos, output, epochs=1, validation_share=0.1)
    described = json.loads((output / "run.json").read_text())
    assert described["images"] == 4 * 36
    assert len(rows_of(output)) == 1
    # As a version would have written it that did not know of the field.
    del described["recipe"]["optimizer.algorithm"]
    (output / "run.json").write_text(json.dumps(described))
    toy_runs.toy_train(photos, output, epochs=1, validation_share=0.1)


def test_a_folder_of_another_run_is_left_alone(pictures, tmp_path):
    (tmp_path / "run.json").write_text(
        json.dumps({"model": "toy", "recipe": {"schedule.epochs": 2}})
    )
    with pytest.raises(
        ValueError, match=r"run with other settings.*schedule.epochs=2 in the folder, 3 in this"
    ):
        toy_runs.toy_train(pictures, tmp_path, epochs=3)
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


def test_a_folder_of_something_else_is_left_alone(pictures, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(ValueError, match="contains no run"):
        toy_runs.toy_train(pictures, tmp_path)


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_last_state(pictures, tmp_path):
    with pytest.raises(NonFiniteLossError, match="a lower learning_rate"):
        toy_runs.toy_train(
            pictures, tmp_path / "run", learning_rate=1e20, warmup_epochs=1.5, save_updates=2
        )
    for state in saved_states(tmp_path / "run" / "checkpoints"):
        assert all(np.isfinite(value).all() for value in load_file(state).values())


def test_fewer_images_than_a_batch_are_refused(pictures, tmp_path):
    with pytest.raises(ValueError, match=r"160 examples.*batch_size=256"):
        toy_runs.toy_train(pictures, tmp_path / "run", batch_size=256)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow  # by default, test_hostile_names.py resumes from the state before
def test_a_state_that_is_damaged_gives_way_to_the_one_before(pictures, tmp_path):
    output = tmp_path / "run"
    toy_runs.toy_train(pictures, output, epochs=1, save_updates=5)
    newest, older = saved_states(output / "checkpoints")[:2]
    (output / "final.keras").unlink()
    expected = load_file(newest)
    newest.write_bytes(newest.read_bytes()[:1000])
    toy_runs.toy_train(pictures, output, epochs=1, save_updates=5)
    for name, value in load_file(newest).items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)
    assert older.exists()
    assert (output / "final.keras").exists()
