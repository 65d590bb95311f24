"""Which arithmetic computes a block, and that it is the same in whichever is chosen."""

import copy
import gc
import pickle
import warnings
import weakref
from functools import partial

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context  # only it tells what was run
from test_builders import images, toy
from test_parity import TOLERANCE, relative_error

import keras_convnext
from keras_convnext import tensorflow_cpu
from keras_convnext.arithmetic import residual_of
from keras_convnext.block import Block

DIM = 8


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def randomize(layer, seed=0):
    """Layer scales of order 0.3, norms other than 1 and 0, biases other than 0."""
    for number, weight in enumerate(layer.weights):
        values = normal(*weight.shape, seed=(seed, number))
        if len(weight.shape) > 1:
            values *= np.prod(weight.shape[:-1]) ** -0.5
        else:
            values = 0.3 * values + ("norm/gamma" in weight.path)
        weight.assign(values)
    return layer


def random_block(**options):
    block = Block(DIM, **options)
    block.build((None, None, None, DIM))
    return randomize(block)


def with_lora(block):
    for dense in (block.pwconv1, block.pwconv2):
        dense.enable_lora(2)
        dense.lora_kernel_b.assign(normal(*dense.lora_kernel_b.shape))
    return block


def maps(batch=2, side=9):
    return tf.constant(normal(batch, side, side + 3, DIM, seed=1))


def output_and_gradients(residual, block, x):
    """By the input, and by each weight that is trained."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        output = residual(x)
        loss = tf.reduce_sum(output * normal(*x.shape, seed=2))
    variables = [weight.value for weight in block.trainable_weights]
    return [output, *tape.gradient(loss, [x, *variables])]


def assert_same(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        assert relative_error(np.asarray(one), np.asarray(other)) < TOLERANCE


def compiled(function):
    return lambda block: partial(tensorflow_cpu.call_compiled, function, block)


def as_it_is(function):
    return lambda block: partial(function, block)


def what(residual):
    """What can be compared: a partial is equal to itself alone."""
    if isinstance(residual, partial):
        return (residual.func, *residual.args)
    return residual


MODES = {
    # layers, training, eager: the arithmetic
    ("plain", False, True): compiled(Block.residual),
    ("plain", True, True): compiled(tensorflow_cpu.residual),
    ("plain", False, False): as_it_is(Block.residual),
    ("plain", True, False): as_it_is(tensorflow_cpu.residual),
    ("LoRA", False, True): as_it_is(Block.residual),
    ("LoRA", True, True): as_it_is(tensorflow_cpu.residual),
    ("LoRA", True, False): as_it_is(tensorflow_cpu.residual),
    ("remat", False, True): compiled(Block.residual),
    ("remat", True, True): as_it_is(tensorflow_cpu.residual),
    ("remat", True, False): as_it_is(tensorflow_cpu.residual),
}


@pytest.mark.parametrize(("kind", "training", "eager"), MODES, ids=str)
@pytest.mark.parametrize("scale", ["layer scale", "GRN", "neither"])
def test_each_mode_has_its_arithmetic_and_the_same_numbers(kind, training, eager, scale):
    options = {"layer_scale": 0.3 if scale == "layer scale" else None, "grn": scale == "GRN"}
    block, x = random_block(**options, remat=kind == "remat"), maps()
    block = with_lora(block) if kind == "LoRA" else block
    chosen = []

    def step(x):
        chosen.append(residual_of(block, x, training))
        return output_and_gradients(chosen[-1], block, x)

    found = (step if eager else tf.function(step))(x)
    assert what(chosen[-1]) == what(MODES[kind, training, eager](block))
    assert len(found) == 10 + 2 * (kind == "LoRA") + ["neither", "layer scale", "GRN"].index(scale)
    assert_same(found, output_and_gradients(block.residual, block, x))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_other_precisions_are_computed_as_they_are_written(name, training):
    block = random_block(dtype=name)
    assert residual_of(block, tf.cast(maps(), block.compute_dtype), training) == block.residual


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("quantized", ["pwconv1", "pwconv2"])
def test_quantized_layers_are_computed_as_they_are_written(quantized, training):
    block = random_block()
    getattr(block, quantized).quantize("int8")
    assert residual_of(block, maps(), training) == block.residual


@pytest.mark.parametrize("eager", [False, True])
def test_a_subclass_trains_by_what_it_computes(eager):
    class Twice(Block):
        def mlp(self, x):
            return 2 * super().mlp(x)

    block = Twice(DIM)
    block.build((None, None, None, DIM))
    randomize(block)
    x = maps()
    called = block if eager else tf.function(block)
    assert_same([called(x, training=True)], [block.residual(x)])
    fused = keras_convnext.export.fuse(toy())
    pixels = images(2, 32, 32, 3)
    np.testing.assert_allclose(fused(pixels, training=True), fused(pixels), rtol=1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_where_there_is_a_gpu_keras_computes(training, monkeypatch):
    block, x = random_block(), maps()
    gpu = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
    devices = [*tf.config.list_physical_devices(), gpu]
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda: devices)
    assert residual_of(block, x, training) == block.residual


@pytest.mark.parametrize("training", [False, True])
def test_nothing_is_compiled_under_a_strategy(training):
    """It would hold the variables of one device, or make some where none may be made."""
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        block, x = random_block(), maps()
        arithmetic = tensorflow_cpu.residual if training else Block.residual
        assert what(residual_of(block, x, training)) == (arithmetic, block)


def test_batches_and_sizes_share_a_trace():
    block = random_block()
    for training in (False, True):
        for batch in range(1, 8):
            for side in (1, 4, 9):
                output = residual_of(block, maps(batch, side), training)(maps(batch, side))
                assert output.shape == (batch, side, side + 3, DIM)
    functions = tensorflow_cpu._compiled[block].values()
    assert [function.experimental_get_tracing_count() for function in functions] == [1, 1]


def test_tensorflow_warns_of_no_retracing(caplog):
    """As it does from the fifth trace of what looks like one function."""
    for _ in range(8):
        block = random_block()
        for training in (False, True):
            residual_of(block, maps(), training)(maps())
    assert "retracing" not in caplog.text


def test_in_inference_product_bias_and_gelu_are_one_operation():
    block, x = random_block(), maps()
    residual = residual_of(block, x, training=False)
    context.enable_run_metadata()
    try:
        residual(x)
        graphs = context.export_run_metadata().partition_graphs
    finally:
        context.disable_run_metadata()
    fused = [node.attr["fused_ops"].list.s for graph in graphs for node in graph.node]
    assert [b"BiasAdd", b"GeluExact"] in fused


def test_what_is_compiled_keeps_nothing_alive():
    before = set(tensorflow_cpu._compiled)
    model = toy()
    for training in (False, True):
        model(images(1, 32, 32, 3), training=training)
    (block,) = [layer for layer in model.layers if layer.name == "stages_0_blocks_0"]
    assert set(tensorflow_cpu._compiled[block]) == {
        (Block.residual, 1),
        (tensorflow_cpu.residual, 1),
    }
    gone = weakref.ref(block)
    del model, block
    gc.collect()
    assert gone() is None
    assert set(tensorflow_cpu._compiled) == before


def filled(model, path):
    model.save_weights(path)
    again = small(layer_scale_init_value=0.3)
    again(images(1, 32, 32, 3))
    again(images(1, 32, 32, 3), training=True)
    again.load_weights(path)
    return again


def cloned(model):
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    return clone


def saved_and_loaded(model, path):
    model.save(path)
    return keras.models.load_model(path)


COPIES = {
    "weights in a file": lambda model, folder: filled(model, folder / "x.weights.h5"),
    "a file": lambda model, folder: saved_and_loaded(model, folder / "x.keras"),
    "a clone": lambda model, folder: cloned(model),
    "a deep copy": lambda model, folder: copy.deepcopy(model),
    "a pickle": lambda model, folder: pickle.loads(pickle.dumps(model)),
}


def quantized(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the layers that have nothing to quantize
        model.quantize("int8")


CHANGES = {
    "other weights": lambda model: randomize(model, seed=1),
    "set_weights": lambda model: model.set_weights([w + 0.1 for w in model.get_weights()]),
    "LoRA": lambda model: [with_lora(layer) for layer in model.layers if isinstance(layer, Block)],
    "int8": quantized,
}


def logits_and_gradients(model):
    """Of what was learned and of the pixels, eagerly, in inference and in training."""
    pixels, found = tf.constant(images(2, 32, 32, 3)), []
    for training in (False, True):
        with tf.GradientTape() as tape:
            tape.watch(pixels)
            logits = model(pixels, training=training)
            loss = tf.reduce_sum(logits * normal(2, 5))
        variables = [weight.value for weight in model.trainable_variables]
        found += [logits, *tape.gradient(loss, [pixels, *variables])]
    return found


def small(**options):
    """Two blocks of the same shapes, which could be mistaken for each other."""
    return toy(depths=(2,), dims=(DIM,), classifier_activation=None, **options)


def random_toy():
    return randomize(small(layer_scale_init_value=0.3))


# What the battery copies, too, is slow here: each copy is compiled anew.
SLOW_COPIES = {"weights in a file", "a file", "a clone"}


@pytest.mark.parametrize(
    "copied",
    [
        pytest.param(copied, id=name, marks=[pytest.mark.slow] if name in SLOW_COPIES else [])
        for name, copied in COPIES.items()
    ],
)
def test_copies_have_their_own(copied, tmp_path):
    model = random_toy()
    expected = logits_and_gradients(model)
    again = copied(model, tmp_path)
    assert_same(logits_and_gradients(again), expected)
    randomize(model, seed=1)
    assert_same(logits_and_gradients(again), expected)


@pytest.mark.usefixtures("no_garbage_collection")
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changes_are_seen(change, monkeypatch):
    model = random_toy()
    before = logits_and_gradients(model)
    change(model)
    found = logits_and_gradients(model)
    monkeypatch.setattr("keras_convnext.arithmetic.tensorflow_on_cpu", lambda: False)
    assert_same(found, logits_and_gradients(model))
    assert relative_error(found[0].numpy(), before[0].numpy()) > 1e-3


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("eager", [True, False])
def test_gradients_of_gradients_are_the_same(training, eager):
    block, x = random_block(), maps()

    def penalty(branch, x):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as inner:
                inner.watch(x)
                loss = tf.reduce_sum(branch(x) ** 2)
            squared = tf.reduce_sum(inner.gradient(loss, x) ** 2)
        return outer.gradient(squared, [x, block.pwconv1.kernel.value, block.dwconv.kernel.value])

    def step(x):
        return penalty(residual_of(block, x, training), x)

    assert_same((step if eager else tf.function(step))(x), penalty(block.residual, x))


def test_models_within_models_are_the_same(monkeypatch):
    inner = randomize(toy(layer_scale_init_value=0.3, include_top=False, pooling="avg"))
    model = keras.Sequential(
        [keras.Input((32, 32, 3)), keras.Sequential([inner]), keras.layers.Dense(5)]
    )
    found = logits_and_gradients(model)
    monkeypatch.setattr("keras_convnext.arithmetic.tensorflow_on_cpu", lambda: False)
    assert_same(found, logits_and_gradients(model))


@pytest.mark.parametrize("jit_compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_an_eager_fit_learns_what_a_graph_does(jit_compile):
    weights = []
    for options in ({"run_eagerly": True}, {"jit_compile": jit_compile}):
        model = random_toy()
        model.compile(keras.optimizers.SGD(1e-3), "mse", **options)
        pixels, targets = images(8, 32, 32, 3), normal(8, 5)
        model.fit(pixels, targets, batch_size=4, epochs=2, shuffle=False, verbose=0)
        weights.append(model.get_weights())
    assert_same(*weights)
