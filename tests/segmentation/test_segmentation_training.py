"""Training of segmenters: loss, batch norm, runs, and the updates of mmsegmentation."""

import csv
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
import toy_segmentation
from safetensors.numpy import load_file

from keras_convnext.layers import SyncBatchNormalization
from keras_convnext.memory_errors import OutOfMemoryError
from keras_convnext.pretrained.record import read_record
from keras_convnext.segmentation import Segmentation, plan, recipe_for, task
from keras_convnext.segmentation import network as segmentation_network
from keras_convnext.segmentation.input import training_batches
from keras_convnext.segmentation.labels import recorded_labels
from keras_convnext.segmentation.losses import PixelCrossEntropy, balancing_weights
from keras_convnext.segmentation.recipes import Labels
from keras_convnext.segmentation.settings import RULES
from keras_convnext.segmentation.source import open_pairs
from keras_convnext.segmentation.training_network import build_segmenter, trained
from keras_convnext.training import AdamW
from keras_convnext.training.layout import Layout
from keras_convnext.training.settings import RULES as COMMON
from keras_convnext.training.settings import field_types
from keras_convnext.training.state import saved_states

ORACLES = Path(os.environ.get("ORACLES", "/nowhere"))
RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def boxes(tmp_path_factory):
    return toy_segmentation.make_pictures(tmp_path_factory.mktemp("boxes") / "data")


@pytest.fixture
def toy(monkeypatch):
    toy_segmentation.register(monkeypatch)


@pytest.mark.parametrize("average", ["all", "valid"])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_loss_is_that_of_pytorch(average, weighted):
    logits, auxiliary = RANDOM.normal(size=(2, 2, 5, 7, 4)).astype("float32")
    classes = RANDOM.integers(-1, 4, (2, 5, 7)).astype("int32")
    weights = np.array([0.5, 2.0, 1.0, 0.1]) if weighted else None
    found = PixelCrossEntropy(0.4, average, weights)(classes, [logits, auxiliary])

    def of(outputs):
        losses = torch.nn.functional.cross_entropy(
            torch.from_numpy(outputs).permute(0, 3, 1, 2),
            torch.from_numpy(np.where(classes < 0, 255, classes)).long(),
            weight=None if weights is None else torch.tensor(weights, dtype=torch.float32),
            ignore_index=255, reduction="none",
        )  # fmt: skip
        return losses.sum() / (losses.numel() if average == "all" else (classes >= 0).sum())

    assert float(found) == pytest.approx(float(of(logits) + 0.4 * of(auxiliary)), rel=1e-6)
    alone = PixelCrossEntropy(0.4, average, weights)(classes, logits)
    assert float(alone) == pytest.approx(float(of(logits)), rel=1e-6)


def test_a_batch_without_a_class_has_no_loss():
    classes = -np.ones((1, 2, 2), "int32")
    for average in ("all", "valid"):
        assert float(PixelCrossEntropy(0.4, average)(classes, np.ones((1, 2, 2, 3)))) == 0


def test_rare_classes_weigh_more():
    weights = balancing_weights([900, 0, 100], 0.5)
    assert weights[2] / weights[0] == pytest.approx(3)
    assert (weights * [0.9, 0, 0.1]).sum() == pytest.approx(1)
    assert weights[1] == 1
    assert balancing_weights([900, 100], 0.0) is None


def test_batches_are_normalized_as_by_pytorch():
    ours = SyncBatchNormalization(momentum=0.9, epsilon=1e-5)
    theirs = torch.nn.BatchNorm2d(6, eps=1e-5, momentum=0.1)
    maps = RANDOM.normal(2, 3, (2, 3, 4, 6)).astype("float32")
    gradient = RANDOM.normal(size=maps.shape).astype("float32")
    x, y = tf.constant(maps), torch.from_numpy(maps).permute(0, 3, 1, 2).requires_grad_()
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = ours(x, training=True)
    expected = theirs(y)
    expected.backward(torch.from_numpy(gradient).permute(0, 3, 1, 2))
    np.testing.assert_allclose(outputs, expected.detach().permute(0, 2, 3, 1), atol=2e-6)
    found = tape.gradient(outputs, x, gradient)
    np.testing.assert_allclose(found, y.grad.permute(0, 2, 3, 1), atol=2e-6)
    np.testing.assert_allclose(ours.moving_mean, theirs.running_mean, rtol=1e-5)
    np.testing.assert_allclose(ours.moving_variance, theirs.running_var, rtol=1e-5)
    theirs.eval()
    expected = theirs(y).detach().permute(0, 2, 3, 1)
    np.testing.assert_allclose(ours(x), expected, atol=2e-6)
    ours.trainable = False
    np.testing.assert_allclose(ours(x, training=True), expected, atol=2e-6)


def test_the_published_configurations():
    """facebookresearch/ConvNeXt, semantic_segmentation/configs/convnext."""
    published = {
        ("ade20k", "convnext_tiny"): (512, 1e-4, 0.4, "mixed_float16"),
        ("ade20k", "convnext_small"): (512, 1e-4, 0.3, "mixed_float16"),
        ("ade20k", "convnext_base"): (512, 1e-4, 0.4, "mixed_float16"),
        ("ade20k_640", "convnext_base"): (640, 1e-4, 0.4, "mixed_float16"),
        ("ade20k_640", "convnext_large"): (640, 1e-4, 0.4, "float32"),
        ("ade20k_640", "convnext_xlarge"): (640, 8e-5, 0.4, "float32"),
    }
    for (name, model), (size, rate, drop_path, precision) in published.items():
        recipe = recipe_for(name, model)
        own, schedule, optimizer = recipe.input, recipe.schedule, recipe.optimizer
        assert (own.size, own.scale, own.window) == (size, (4 * size, size), size)
        assert own.stride == {512: 341, 640: 426}[size]
        assert (own.ratio, own.most_of_one_class, own.horizontal_flip) == ((0.5, 2.0), 0.75, 0.5)
        assert (optimizer.learning_rate, optimizer.weight_decay) == (rate, 0.05)
        assert (optimizer.layer_decay, optimizer.layer_groups) == (0.9, "stage_wise")
        assert (schedule.updates, schedule.warmup_updates) == (160_000, 1_500)
        assert (schedule.decay, schedule.min_learning_rate, schedule.power) == ("polynomial", 0, 1)
        assert schedule.warmup_start == 1e-6
        assert (recipe.batch.batch_size, recipe.batch.device_batch) == (16, 2)
        assert (recipe.network.drop_path_rate, recipe.batch.precision) == (drop_path, precision)
        assert (recipe.loss.auxiliary_weight, recipe.loss.average) == (0.4, "all")
        assert recipe.labels.first_label == 1
    with pytest.raises(ValueError, match="set drop_path_rate"):
        recipe_for("ade20k", "convnext_atto")


def test_every_number_has_a_rule():
    rules = {**COMMON, **RULES}
    kinds = field_types(Segmentation)
    numbers = {name for name, kind in kinds.items() if kind is not bool}
    assert numbers - set(rules) == {"name", "source", "network.start"}
    assert set(rules) <= set(kinds)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": "512"}, "scale must be the longest and the shortest side"),
        ({"size": 16}, "size must be an integer of at least 32"),
        ({"stride": 600}, "stride must not exceed window"),
        ({"average": "some"}, "average must be one of all, valid"),
        ({"channel": 3}, "did you mean channels"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        recipe_for("segment_small", "convnext_atto", settings)


def test_a_network_with_one_stage_is_refused():
    with pytest.raises(ValueError, match="model must be one of convnext_atto"):
        recipe_for("segment_small", "convnext_isotropic_small")


@pytest.mark.parametrize(
    ("name", "model", "parameters"),
    [
        ("ade20k", "convnext_tiny", 60_242_636),
        ("ade20k", "convnext_base", 122_102_956),
        ("ade20k_640", "convnext_xlarge", 391_140_396),
    ],
)
def test_a_plan_counts_the_published_parameters(name, model, parameters):
    recipe = recipe_for(name, model)
    found = plan(recipe, model, None, recipe.batch.devices, "h200")
    assert found.checkpoint == 3 * 4 * parameters  # weights and two moments
    assert (found.images, found.updates, found.size) == (20_210, 160_000, recipe.input.size)
    assert found.fits


def test_a_plan_counts_the_parameters_and_operations_of_the_network():
    recipe = recipe_for("camvid", "convnext_atto")
    found = plan(recipe, "convnext_atto", None, 2, "cpu-core")
    with keras.StatelessScope():  # nothing is allocated
        built = build_segmenter(recipe, "convnext_atto", 11)
    count = sum(int(np.prod(weight.shape)) for weight in built.trainable_weights)
    assert found.checkpoint == 4 * 4 * count  # with the moving average


@pytest.mark.usefixtures("toy")
def test_batches_depend_on_their_place_alone(boxes):
    recipe = toy_segmentation.toy_recipe(photometric=False)
    source = open_pairs(boxes)
    whole = training_batches(source, recipe, Layout(0, 1, 1, 8, 1))
    third = list(whole.take(3))[2]
    (resumed,) = training_batches(source, recipe, Layout(0, 1, 1, 8, 1), first_update=2).take(1)
    halves = [
        next(iter(training_batches(source, recipe, Layout(process, 2, 1, 4, 1), first_update=2)))
        for process in range(2)
    ]
    for column in range(2):
        np.testing.assert_array_equal(resumed[column], third[column])
        both = np.concatenate([half[column] for half in halves])
        np.testing.assert_array_equal(both, third[column])


@pytest.mark.usefixtures("toy")
def test_a_run_learns_and_saves_a_model_that_any_keras_loads(boxes, tmp_path):
    own = {"epochs": 20, "learning_rate": 2e-2, "evaluation_updates": 40, "photometric": False}
    own |= {"ignored": (9,)}
    model = toy_segmentation.toy_train(boxes, tmp_path / "run", **own, ratio=(1.0, 1.0))
    with (tmp_path / "run" / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["update"] for row in rows] == ["40"]
    assert float(rows[-1]["val_mean_iou"]) > 0.5
    assert float(rows[-1]["val_pixel_accuracy"]) > 0.7
    saved = keras.models.load_model(tmp_path / "run" / "final.keras")
    image = RANDOM.integers(0, 255, (1, 40, 57, 3))
    found = saved.predict(image, verbose=0)
    assert found.shape == (1, 40, 57, 3)
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(found, model.predict(image, verbose=0), atol=1e-6)
    record = read_record(tmp_path / "run" / "final.keras")
    assert record.task == "segmentation"
    assert record.classes == ("ground", "roof", "road")
    assert record.preprocessing["window"] == 512
    assert recorded_labels(record.preprocessing) == Labels(ignored=(9,))
    assert recorded_labels({"labels": {"ignored": "9", "first_label": "x"}}) == Labels()
    described = json.loads((tmp_path / "run" / "run.json").read_text())
    assert described["labels"].startswith("3 classes, which have labels from 0 on; ")


@pytest.mark.usefixtures("toy")
def test_too_little_memory_is_told_with_what_needs_less(boxes, tmp_path, monkeypatch):
    def fit(*_, **__):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(task, "fit", fit)
    with pytest.raises(OutOfMemoryError, match=r"toy_dense at 32 px.*--set device_batch=4 \(0"):
        toy_segmentation.toy_train(boxes, tmp_path / "run")


def start(data, runs, environment=None, **task):
    """Runs `toy_segmentation.py` in a process."""
    script = Path(toy_segmentation.__file__)
    argument = json.dumps({"data": str(data), "runs": runs, **task})
    return subprocess.Popen(
        [sys.executable, script, argument], env={**os.environ, **(environment or {})},
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def run(data, runs, code=0, **task):
    process = start(data, runs, **task)
    told = process.communicate()[1]
    assert process.returncode == code, told[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("own", [{}, {"device_batch": 4, "remat": True}], ids=["", "accumulated"])
def test_a_run_that_is_killed_ends_as_one_that_is_not(own, boxes, tmp_path):
    own = {**own, "save_updates": 1, "evaluation_updates": 2, "epochs": 3}
    whole, killed = str(tmp_path / "whole"), str(tmp_path / "killed")
    run(boxes, [(whole, own, False)])
    run(boxes, [(killed, own, False)], code=-9, stop=(3, "SIGKILL"))
    run(boxes, [(killed, own, False)])
    states = [load_file(saved_states(Path(place) / "checkpoints")[0]) for place in (whole, killed)]
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        np.testing.assert_array_equal(states[1][name], value, err_msg=name)
    logs = [(Path(place) / "log.csv").read_bytes() for place in (whole, killed)]
    assert logs[0] == logs[1]
    assert logs[0].count(b"\n") == 4


@pytest.mark.slow
@pytest.mark.parametrize("average", ["all", "valid"])
def test_one_device_and_four_compute_the_same_statistics_and_gradients(average, boxes, tmp_path):
    """Adam would turn gradients that are zero but for rounding into whole steps: they are tiny."""
    own = {"average": average, "learning_rate": 1e-6, "epochs": 1, "drop_path_rate": 0.0}
    one, four = str(tmp_path / "one"), str(tmp_path / "four")
    run(boxes, [(one, own, True), (four, own, False)], devices=4, without_dropout=True)
    states = [load_file(saved_states(Path(place) / "checkpoints")[-1]) for place in (one, four)]
    compared = [name for name in states[0] if name.startswith(("model/", "optimizer/"))]
    assert any("moving_variance" in name for name in compared)
    for name in compared:  # the moments of the optimizer are sums of gradients and their squares
        own = 1.0 if name.startswith("model/") else max(np.abs(states[0][name]).max(), 1e-2)
        np.testing.assert_allclose(
            states[1][name], states[0][name], atol=1e-5 * own, rtol=0, err_msg=name
        )


@pytest.mark.slow
def test_two_machines_validate_together(boxes, tmp_path):
    own = {"learning_rate": 1e-6, "epochs": 1, "drop_path_rate": 0.0, "ema_decay": None}
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    run(boxes, [(one, own, False)], without_dropout=True)
    ports = []
    for _ in range(2):
        with socket.create_server(("localhost", 0)) as server:
            ports.append(server.getsockname()[1])
    workers = [f"localhost:{port}" for port in ports]
    processes = [
        start(boxes, [(two, own, False)], without_dropout=True, environment={
            "TF_CONFIG": json.dumps(
                {"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}}
            )
        })
        for index in range(2)
    ]  # fmt: skip
    for process in processes:
        told = process.communicate()[1]
        assert process.returncode == 0, told[-3000:]
    (expected,), (found,) = (
        list(csv.DictReader((Path(place) / "log.csv").open())) for place in (one, two)
    )
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(float(value), rel=1e-4), name


def group_of(name, last):
    """The group of a weight of mmsegmentation, by the rules of the official configurations."""
    if name.startswith("backbone.downsample_layers"):
        return 0
    if match := re.match(r"backbone\.stages\.(\d)", name):
        return int(match[1]) + 1
    return last + 1


@pytest.mark.slow
@pytest.mark.skipif(not ORACLES.is_dir(), reason="needs ORACLES, see make_golden_arrays.py")
def test_ten_updates_are_those_of_mmsegmentation(tmp_path, monkeypatch):
    import openmmlab
    from mmengine.structures import PixelData
    from mmseg.structures import SegDataSample

    depths, dims, classes = (1, 1, 2, 1), (8, 16, 24, 32), 5
    net = openmmlab.upernet(depths, dims, 16, classes)
    openmmlab.randomize(net, seed=0)
    net.train()
    for layer in net.modules():
        if isinstance(layer, torch.nn.Dropout2d):
            layer.p = 0.0
    openmmlab.save(net, tmp_path / "start.pth")
    monkeypatch.setattr(segmentation_network, "DROPOUT", 0.0)
    monkeypatch.setattr(toy_segmentation, "TOY", toy_segmentation.TOY._replace(
        name="toy_mmseg", depths=depths, dims=dims, layer_scale=1.0
    ))  # fmt: skip
    toy_segmentation.register(monkeypatch)
    recipe = recipe_for("segment_small", "toy_mmseg", {
        "start": str(tmp_path / "start.pth"), "channels": 16, "size": 64, "drop_path_rate": 0.0,
    })  # fmt: skip
    segmenter = build_segmenter(recipe, "toy_mmseg", classes)
    ours = trained(segmenter, 64)
    optimizer = AdamW(1e-4, 0.05, layer_decay=0.9, layer_groups="stage_wise")
    loss_of = PixelCrossEntropy(0.4, "all")

    names = dict(net.named_parameters())
    theirs = torch.optim.AdamW([
        {
            "params": [weight],
            "lr": 1e-4 * 0.9 ** (7 - group_of(name, 6)),
            "weight_decay": 0.0 if weight.ndim == 1 or name.endswith(".bias") else 0.05,
        }
        for name, weight in names.items()
    ])  # fmt: skip
    normalized = segmenter.get_layer("normalization")

    for _ in range(10):
        images = RANDOM.uniform(0, 255, (4, 64, 64, 3)).astype("float32")
        labels = RANDOM.integers(0, classes, (4, 8, 8)).repeat(8, 1).repeat(8, 2)
        labels[:, :5] = -1
        with tf.GradientTape() as tape:
            loss = loss_of(labels, ours(images, training=True))
        gradients = tape.gradient(loss, ours.trainable_variables)
        optimizer.apply(gradients, ours.trainable_variables)

        samples = [
            SegDataSample(
                gt_sem_seg=PixelData(data=torch.from_numpy(np.where(own < 0, 255, own))[None]),
                metainfo={"img_shape": (64, 64)},
            )
            for own in labels
        ]
        pixels = torch.from_numpy(np.moveaxis(normalized(images).numpy(), -1, 1).copy())
        losses = net.loss(pixels, samples)
        expected = losses["decode.loss_ce"] + losses["aux.loss_ce"]
        theirs.zero_grad()
        expected.backward()
        theirs.step()
        assert float(loss) == pytest.approx(expected.item(), abs=1e-4)

    openmmlab.save(net, tmp_path / "end.pth")
    other = build_segmenter(
        recipe_for("segment_small", "toy_mmseg", {
            "start": str(tmp_path / "end.pth"), "channels": 16, "drop_path_rate": 0.0,
        }), "toy_mmseg", classes,
    )  # fmt: skip
    for mine, weight in zip(segmenter.weights, other.weights, strict=True):
        np.testing.assert_allclose(mine, weight, atol=1e-4, err_msg=mine.path)
