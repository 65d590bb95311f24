"""What `fit` computes on a CPU: gradients that equal PyTorch's, from operations of our own."""

import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
import torch_reference
from test_builders import TOY, images, policy, toy  # noqa: F401  (policy is a fixture)
from test_parity import TOLERANCE, relative_error

import keras_convnext
from keras_convnext.block import Block

DEPTHS, DIMS = TOY["depths"], TOY["dims"]


def gradients_of(model, pixels, seeds, jit_compile=None):
    """What training computes: the logits, the gradients of their sum, weighted, and the graph."""

    @tf.function(jit_compile=jit_compile)
    def step(pixels):
        with tf.GradientTape() as tape:
            logits = model(pixels, training=True)
            loss = tf.reduce_sum(logits * seeds)
        return logits, tape.gradient(loss, [v.value for v in model.trainable_variables])

    logits, gradients = step(tf.constant(pixels))
    operations = step.get_concrete_function(tf.constant(pixels)).graph.get_operations()
    named = {v.path: g.numpy() for v, g in zip(model.trainable_variables, gradients)}
    return logits.numpy(), named, [operation.type for operation in operations]


def assert_equal_gradients(ours, theirs):
    assert ours.keys() == theirs.keys()
    for path, gradient in theirs.items():
        assert relative_error(ours[path], gradient) < TOLERANCE, path


def hierarchical(**options):
    reference = torch_reference.Hierarchical(DEPTHS, DIMS, classes=TOY["classes"], **options)
    own = {} if options.pop("gamma", True) else {"layer_scale_init_value": None}
    return reference, lambda **more: toy(classifier_activation=None, **own, **options, **more)


def isotropic():
    reference = torch_reference.Isotropic(2, 16, classes=5, patch_size=8)

    def build(**more):
        return keras_convnext.ConvNeXtIsotropic(
            2, 16, patch_size=8, classes=5, input_shape=(32, 32, 3), classifier_activation=None,
            layer_scale_init_value=None, **more,
        )  # fmt: skip

    return reference, build


@pytest.mark.parametrize("remat", [False, True])
@pytest.mark.parametrize(
    "networks",
    [
        hierarchical,
        lambda: hierarchical(gamma=False),
        lambda: hierarchical(kernel_size=3),
        isotropic,
    ],
    ids=["hierarchical", "without layer scale", "kernels of 3", "isotropic"],
)
def test_gradients_equal_pytorch(networks, remat, tmp_path):
    reference, build = networks()
    torch_reference.randomize(reference)
    checkpoint = torch_reference.save(reference, tmp_path / "weights.pth")
    pixels, seeds = images(3, 32, 32, 3), images(3, 5, seed=1) / 128 - 1
    logits, ours, operations = gradients_of(build(weights=checkpoint, remat=remat), pixels, seeds)
    assert "PartitionedCall" in operations  # of the passes that XLA compiles

    normalized = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    expected = reference(torch.tensor(normalized, dtype=torch.float32).movedim(-1, 1))
    (expected * torch.from_numpy(seeds)).sum().backward()
    # The gradients are ported as the weights are, so that each finds its place.
    torch.save({"model": {name: p.grad for name, p in reference.named_parameters()}},
               tmp_path / "gradients.pth")  # fmt: skip
    theirs = build(weights=tmp_path / "gradients.pth")
    assert relative_error(logits, expected.detach().numpy()) < TOLERANCE
    assert_equal_gradients(ours, {v.path: v.numpy() for v in theirs.trainable_variables})


def random_toy(**options):
    keras.utils.set_random_seed(0)
    return toy(layer_scale_init_value=0.3, classifier_activation=None, **options)


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"input_shape": (None, None, 3)}, (2, 37, 45, 3)),
        ({"input_shape": (40, None, 1)}, (2, 40, 33, 1)),
        ({"kernel_size": 3, "patch_size": 2}, (2, 32, 32, 3)),
    ],
    ids=str,
)
def test_any_shape_gives_what_the_layers_give_one_by_one(options, shape, monkeypatch):
    pixels, seeds = images(*shape), images(shape[0], 5)
    logits, ours, operations = gradients_of(random_toy(**options), pixels, seeds)
    assert "PartitionedCall" in operations
    monkeypatch.setattr("keras_convnext.arithmetic.tensorflow_on_cpu", lambda: False)
    expected, theirs, operations = gradients_of(random_toy(**options), pixels, seeds)
    assert "PartitionedCall" not in operations
    assert relative_error(logits, expected) < TOLERANCE
    assert_equal_gradients(ours, theirs)


def test_a_model_built_around_the_layers_trains_by_the_same_operations():
    trunk = random_toy(include_top=False, pooling="avg")
    model = keras.Model(trunk.input, keras.layers.Dense(5)(trunk.output))
    _, gradients, operations = gradients_of(model, images(2, 32, 32, 3), np.ones((2, 5), "float32"))
    # Norm, GELU, and the gradient of each, in each block; a norm and its gradient elsewhere.
    norms = 1 + len(DEPTHS)
    assert operations.count("PartitionedCall") >= 4 * sum(DEPTHS) + 2 * norms
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())


def test_frozen_layers_get_no_gradient_and_the_others_the_same():
    model, whole = random_toy(), random_toy()
    for layer in model.layers:
        layer.trainable = isinstance(layer, Block)
        if layer.trainable:
            for part in (layer.dwconv, layer.norm, layer.pwconv1, layer.gamma):
                part.trainable = False
    pixels, seeds = images(2, 32, 32, 3), images(2, 5)
    _, gradients, _ = gradients_of(model, pixels, seeds)
    _, expected, _ = gradients_of(whole, pixels, seeds)
    assert len(gradients) == 2 * sum(DEPTHS) < len(expected)
    assert_equal_gradients(gradients, {path: expected[path] for path in gradients})


def test_under_xla_the_numbers_are_the_same():
    pixels, seeds = images(2, 32, 32, 3), images(2, 5)
    logits, ours, _ = gradients_of(random_toy(), pixels, seeds)
    compiled, theirs, _ = gradients_of(random_toy(), pixels, seeds, jit_compile=True)
    assert relative_error(logits, compiled) < TOLERANCE
    assert_equal_gradients(ours, theirs)


@pytest.mark.parametrize("name", ["mixed_bfloat16", "mixed_float16", "float64"])
def test_other_precisions_train_by_the_plain_layers(policy, name):  # noqa: F811
    policy(name)
    _, gradients, operations = gradients_of(
        random_toy(remat=True), images(2, 32, 32, 3), np.ones((2, 5), "float32")
    )
    assert "PartitionedCall" not in operations
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())


def test_inference_and_eager_calls_leave_the_graph_plain():
    model = random_toy(remat=True)
    function = tf.function(lambda pixels: model(pixels, training=False))
    pixels = tf.constant(images(2, 32, 32, 3))
    operations = function.get_concrete_function(pixels).graph.get_operations()
    assert "PartitionedCall" not in {operation.type for operation in operations}
    np.testing.assert_allclose(model(pixels, training=True), function(pixels), 1e-4, 1e-5)


def test_recomputation_runs_the_branch_twice():
    pixels, seeds = images(2, 32, 32, 3), images(2, 5)
    _, _, once = gradients_of(random_toy(), pixels, seeds)
    _, _, again = gradients_of(random_toy(remat=True), pixels, seeds)
    forward = "DepthwiseConv2dNative"
    assert once.count(forward) == sum(DEPTHS)
    assert again.count(forward) == 2 * sum(DEPTHS)


def test_a_model_that_recomputes_is_saved_and_loaded(tmp_path):
    model = random_toy(remat=True)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    blocks = [layer for layer in again.layers if isinstance(layer, Block)]
    assert [block.remat for block in blocks] == [True] * sum(DEPTHS)
    model.save_weights(tmp_path / "x.weights.h5")
    plain = toy(layer_scale_init_value=0.3, weights=tmp_path / "x.weights.h5",
                classifier_activation=None)  # fmt: skip
    pixels = images(2, 32, 32, 3)
    np.testing.assert_array_equal(again(pixels), model(pixels))
    np.testing.assert_array_equal(plain(pixels), model(pixels))


TWO_DEVICES = """
import sys
import keras_convnext
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
devices = ["CPU:0", "CPU:1"][: int(sys.argv[1])]
with tf.distribute.MirroredStrategy(devices).scope():
    keras.utils.set_random_seed(0)
    model = keras_convnext.ConvNeXt((1, 1), (8, 16), weights=None, classes=3,
                                    input_shape=(32, 32, 3), layer_scale_init_value=0.3)
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
pixels = np.random.default_rng(0).uniform(0, 255, (16, 32, 32, 3)).astype("float32")
history = model.fit(pixels, np.arange(16) % 3, batch_size=8, epochs=2, shuffle=False, verbose=0)
print(*history.history["loss"])
"""


@pytest.mark.slow
def test_two_devices_learn_as_one_does():
    losses = []
    for devices in ("1", "2"):
        result = subprocess.run(
            [sys.executable, "-c", TWO_DEVICES, devices], capture_output=True, text=True,
            cwd=Path(__file__).parent.parent, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )  # fmt: skip
        assert result.returncode == 0, result.stderr[-2000:]
        losses.append([float(word) for word in result.stdout.split()])
    assert len(losses[0]) == 2
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
