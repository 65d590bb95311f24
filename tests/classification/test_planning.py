import json
import runpy
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from typer.testing import CliRunner

from keras_convnext import cli
from keras_convnext.builders import _builder
from keras_convnext.classification.memory import memory_of
from keras_convnext.classification.planning import plan
from keras_convnext.classification.settings import recipe_for
from keras_convnext.cli.application import settings_of
from keras_convnext.complexity import parts
from keras_convnext.training.devices import DEVICES
from keras_convnext.training.layout import shares
from keras_convnext.training.memory import sections
from keras_convnext.variants import VARIANTS, Variant

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def planned(recipe, model, devices, device_type="a100-80gb", images=None, **settings):
    return plan(recipe_for(recipe, model, settings), model, images, devices, device_type)


@pytest.mark.parametrize(
    ("recipe", "model", "devices", "shared"),
    [
        ("imagenet22k", "convnext_base", 128, (32, 1)),
        ("imagenet22k", "convnext_base", 8, (32, 16)),
        ("imagenet1k", "convnext_tiny", 32, (128, 1)),
        ("imagenet1k", "convnext_large", 64, (64, 1)),
        ("imagenet1k", "convnext_tiny", 3 * 2**9, None),
        ("imagenet22k_to_1k_384", "convnext_xlarge", 64, (8, 1)),
        ("imagenet22k_to_1k", "convnext_xlarge", 1, (16, 32)),
    ],
)
def test_the_batch_is_shared_as_in_the_official_layouts(recipe, model, devices, shared):
    if shared is None:
        with pytest.raises(ValueError, match=r"must be a multiple of .* Received: batch_size=4096"):
            planned(recipe, model, devices)
    else:
        found = planned(recipe, model, devices)
        assert (found.device_batch, found.accumulated) == shared
        assert found.device_batch * found.accumulated * devices == found.recipe.batch.batch_size


def test_shares_are_the_largest_that_divide():
    assert shares(4096, 8, 128) == (128, 4)
    assert shares(60, 2, 8) == (6, 5)
    assert shares(6, 2, 100) == (3, 1)


def test_steps_flops_and_hours_of_imagenet_22k_are_those_by_hand():
    found = planned("imagenet22k", "convnext_base", 128, "v100-32gb")
    assert found.updates_per_epoch == 3466
    assert found.updates == 311_940
    assert found.images_seen == 311_940 * 4096
    assert found.machines == 16
    macs = 15_353_729_024 + 1024 * 20_841  # the head has so many classes more
    assert found.flops_per_image == pytest.approx(6 * macs, rel=1e-3)
    hours = 311_940 * 4096 * 6 * macs / (128 * 15.7e12 * 0.45) / 3600
    assert found.hours == pytest.approx(hours, rel=1e-3)
    trained = found.hours * 3600 * found.images_per_second
    assert trained == pytest.approx(311_940 * 4096, rel=1e-9)  # what is left of an epoch is not
    assert found.hours_per_epoch * 90 == pytest.approx(found.hours)
    assert found.input_rate * 16 == pytest.approx(found.images_per_second)
    # Weights and two moments of 109.8 M parameters, in float32.
    assert found.checkpoint == 3 * 4 * (87_566_464 + 1025 * 21_841)
    assert found.memory.moments == found.checkpoint * 2 // 3


def test_recomputing_a_block_costs_a_forward_pass_and_saves_memory():
    plain, remat = (
        planned("imagenet1k", "convnext_tiny", 32, remat=remat) for remat in (False, True)
    )
    assert remat.flops_per_image * 3 == plain.flops_per_image * 4
    assert remat.hours * 3 == pytest.approx(plain.hours * 4)
    assert remat.memory.activations < plain.memory.activations / 2


def test_the_state_of_averages_and_accumulation_is_counted():
    base = planned("imagenet22k_to_1k", "convnext_tiny", 16).memory
    parameters = sum(part.parameters for part in parts(VARIANTS["convnext_tiny"]))
    assert (base.weights, base.moments) == (4 * parameters, 8 * parameters)
    assert (base.average, base.accumulator) == (0, 0)
    more = planned("imagenet22k_to_1k", "convnext_tiny", 4, ema_decay=0.9).memory
    assert (more.average, more.accumulator) == (4 * parameters, 4 * parameters)
    half = planned("imagenet22k_to_1k", "convnext_tiny", 16, precision="mixed_bfloat16").memory
    assert half.weights == 6 * parameters
    assert half.activations < 0.6 * base.activations


def test_the_device_batch_is_the_largest_that_fits():
    found = planned("imagenet22k_to_1k_384", "convnext_xlarge", 8, "v100-32gb", device_batch=64)
    assert found.fits
    assert found.device_batch < 64
    recipe, model = found.recipe, found.model
    above = memory_of(recipe, model, 1000, *shares(512, 8, found.device_batch * 2), found.device)
    assert above.total > found.memory_limit


def test_what_helps_is_told_where_nothing_fits(monkeypatch):
    small = DEVICES["a100-40gb"]._replace(name="small", memory=3)
    monkeypatch.setitem(DEVICES, "small", small)
    found = planned("imagenet22k", "convnext_large", 128, "small")
    assert not found.fits
    assert found.device_batch == 1
    changes = [line.split(":")[0] for line in found.advice]
    assert changes == [
        "remat=true",
        "precision=mixed_bfloat16",
        "precision=mixed_bfloat16 remat=true",
    ]
    result = run(
        "--recipe", "imagenet22k", "--model", "convnext_large", "--device-type", "small"
    )  # fmt: skip
    assert result.exit_code == 1
    assert "batch of one image" in result.stderr
    assert "remat=true" in result.stderr


def test_cores_are_one_device_together():
    found = planned("cifar10", "convnext_cifar", 2, "cpu-core")
    assert (found.device_batch, found.accumulated, found.machines) == (128, 1, 1)
    assert found.memory_limit == 2 * DEVICES["cpu-core"].memory * 2**30
    assert found.memory.average > 0
    three = planned("cifar10", "convnext_cifar", 3, "cpu-core")
    assert three.hours * 3 == pytest.approx(found.hours * 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("imagenet1k", "convnext_tiny", 32, "a100-80g"), "did you mean a100-80gb"),
        (("imagenet1k", "convnext_tiny", 0), "Received: devices=0"),
        (("finetune_small", "convnext_tiny", 1), "--images"),
        (("finetune_small", "convnext_tiny", 1, "h200", 63), "Set batch_size to 63 or less"),
    ],
)
def test_errors_say_what_to_do(arguments, message):
    with pytest.raises(ValueError, match=message):
        planned(*arguments)


def test_a_precision_that_a_device_lacks_is_refused():
    with pytest.raises(ValueError, match="Set precision to float32 or mixed_float16"):
        planned("imagenet1k", "convnext_tiny", 32, "v100-32gb", precision="mixed_bfloat16")


SCALED = Variant("toy", (2, 2), (24, 48))
V2 = SCALED._replace(layer_scale=None, grn=True)


@pytest.mark.parametrize(
    ("fused", "policy", "remat", "variant"),
    [
        (True, "float32", False, SCALED),
        (True, "float32", False, SCALED._replace(layer_scale=None)),
        (True, "float32", False, V2),
        (False, "float32", False, SCALED),
        (False, "float32", False, SCALED._replace(layer_scale=None)),
        (False, "float32", False, V2),
        (False, "float32", True, SCALED),
        (False, "mixed_bfloat16", False, SCALED),
        (False, "mixed_bfloat16", False, V2),
    ],
)
def test_what_a_graph_keeps_is_what_the_model_says(fused, policy, remat, variant, monkeypatch):
    if not fused:
        monkeypatch.setattr("keras_convnext.arithmetic.tensorflow_on_cpu", lambda: False)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = _builder(variant)(
            weights=None, classes=10, input_shape=(64, 64, 3), drop_path_rate=0.1,
            classifier_activation=None, remat=remat,
        )  # fmt: skip
    finally:
        keras.config.set_dtype_policy(before)
    compute = 4 if policy == "float32" else 2
    rows = list(sections(variant, 64, 10, compute, remat, fused))
    assert sum(row.parameters for row in rows) == model.count_params()
    images = 3 * 64**2 * 4  # which the graph is given, and does not keep
    assert sum(row.kept for row in rows) - images == pytest.approx(kept_by(model), rel=0.01)


def kept_by(model, batch=8):
    """Bytes an image that the operations of the gradient read from those before the loss."""

    @tf.function
    def gradients(images):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(tf.cast(model(images, training=True), "float32")))
        names.append(loss.op.name)
        return tape.gradient(loss, [variable.value for variable in model.trainable_variables])

    names = []
    graph = gradients.get_concrete_function(tf.TensorSpec((batch, *model.input_shape[1:]))).graph
    operations = graph.get_operations()
    forward = [operation.name for operation in operations].index(names[-1])
    before = {operation.name for operation in operations[:forward]}
    read = {}
    for operation in operations[forward:]:
        for tensor in operation.inputs if operation.type != "Shape" else ():
            if tensor.op.name in before:
                source = made_by(tensor)
                read[source.name] = source
    return sum(
        tensor.dtype.size * np.prod(tensor.shape.as_list()) / batch
        for tensor in read.values()
        if made_by(tensor, "Cast").op.type not in ("ReadVariableOp", "Placeholder", "Const")
    )


def made_by(tensor, *more):
    """What holds the numbers of a tensor: a reshape has none of its own."""
    while tensor.op.type in ("Reshape", "Identity", "EnsureShape", *more):
        tensor = tensor.op.inputs[0]
    return tensor


def run(*arguments):
    return CliRunner().invoke(cli.app, ["plan", *map(str, arguments)])


def test_the_command_prints_a_table():
    result = run("--recipe", "imagenet22k", "--model", "convnext_base", "--device-type", "h200")
    assert result.exit_code == 0
    for cell in ("14,197,122", "311,940", "128", "h200, machines: 16", "assumed", "of 141"):
        assert cell in result.stdout


def test_the_command_prints_json_with_settings():
    result = run(
        "--recipe", "finetune_small", "--model", "convnext_tiny", "--device-type", "rtx-3090",
        "--images", 6400, "--set", "epochs=3", "--set", "remat=true", "--json",
    )  # fmt: skip
    found = json.loads(result.stdout)
    assert (found["updates_per_epoch"], found["updates"], found["devices"]) == (100, 300, 1)
    assert found["recipe"]["batch.remat"] is True
    assert found["memory"]["total"] == sum(
        size for name, size in found["memory"].items() if name != "total"
    )
    assert found["fits"] is True


def test_settings_are_read_and_checked():
    assert settings_of(["epochs=5", "start = none", "rand_augment=rand-m9=x"]) == {
        "epochs": "5",
        "start": "none",
        "rand_augment": "rand-m9=x",
    }
    for wrong in (["epochs"], ["=5"], ["epochs=5", "epochs=6"]):
        with pytest.raises(ValueError, match="Received: --set"):
            settings_of(wrong)


def test_the_kept_measurements_are_near_the_model(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    benchmark = runpy.run_path(str(BENCHMARKS / "planning.py"))
    kept = json.loads((BENCHMARKS / "results" / "planning.json").read_text())
    assert len(kept["cases"]) == 15
    for number, case in kept["cases"].items():
        memory = benchmark["modeled"](benchmark["CASES"][int(number)])
        assert case["tensors"]["planned"] == memory.total - memory.workspace
        assert abs(case["tensors"]["error"]) < 0.15


@pytest.mark.slow
def test_the_benchmark_measures_what_is_planned(tmp_path):
    results = tmp_path / "planning.json"
    subprocess.run(
        [sys.executable, BENCHMARKS / "planning.py", "--cases", "0", "--results", results],
        check=True,
    )
    figures = json.loads(results.read_text())
    assert {"cpu", "cores", "flags", "versions", "load_average"} <= figures["machine"].keys()
    case = figures["cases"]["0"]
    assert abs(case["tensors"]["error"]) < 0.15
