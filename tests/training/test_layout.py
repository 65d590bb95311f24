import json

import pytest
import tensorflow as tf

from keras_convnext.classification.settings import recipe_for
from keras_convnext.training.layout import Layout, find_strategy, layout_of


@pytest.fixture
def made(monkeypatch):
    """What a strategy for several machines is made with, without its waiting for the others."""
    calls = []
    monkeypatch.setattr(
        tf.distribute, "MultiWorkerMirroredStrategy", lambda *given: calls.append(given) or "many"
    )
    for name in ("TF_CONFIG", "SLURM_NTASKS", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    return calls


def test_one_device_needs_no_strategy(made):
    assert find_strategy() is tf.distribute.get_strategy()


@pytest.mark.parametrize("workers", [1, 2])
def test_several_machines_are_told_by_tf_config(made, monkeypatch, workers):
    cluster = {"worker": [f"machine{index}:2222" for index in range(workers)]}
    config = {"cluster": cluster, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))
    strategy = find_strategy()
    assert (strategy == "many") == bool(made) == (workers == 2)


def test_several_machines_are_told_by_slurm(made, monkeypatch):
    for name, value in {
        "SLURM_NTASKS": "2", "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NODELIST": "node[1-2]", "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
        "SLURM_NTASKS_PER_NODE": "1", "CUDA_VISIBLE_DEVICES": "",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    assert find_strategy() == "many"
    ((resolver,),) = made
    assert resolver.cluster_spec().as_dict() == {"worker": ["node1:8888", "node2:8888"]}
    assert (resolver.task_type, resolver.task_id) == ("worker", 1)


@pytest.mark.parametrize(
    ("batch_size", "device_batch", "expected"),
    [(64, 128, (64, 1)), (4096, 128, (128, 32)), (96, 64, (48, 2)), (7, 2, (1, 7))],
)
def test_what_does_not_fit_is_accumulated(batch_size, device_batch, expected):
    settings = {"batch_size": batch_size, "device_batch": device_batch}
    row = recipe_for("finetune_small", "convnext_tiny", settings)
    assert layout_of(tf.distribute.get_strategy(), row) == Layout(0, 1, 1, *expected)
