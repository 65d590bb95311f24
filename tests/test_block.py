"""The block as a layer: what it computes, what is kept of it, and how it is recomputed."""

import warnings
from contextlib import nullcontext
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_arithmetic import DIM, assert_same, maps, normal, random_block, randomize, with_lora
from test_builders import images, policy, toy  # noqa: F401  (policy is a fixture)

import keras_convnext
from keras_convnext.block import Block
from keras_convnext.export.inference import InferenceBlock
from keras_convnext.layers import GlobalResponseNormalization

PACKAGE = Path(keras_convnext.__file__).parent


def blocks_of(model):
    return [layer for layer in model.layers if isinstance(layer, Block)]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("kernel_size", [3, 4, 7])
def test_it_is_figure_4_of_the_paper(kernel_size, training):
    """With layers of Keras alone, on maps where the block takes rows."""
    block, x = random_block(kernel_size=kernel_size, layer_scale=0.3), maps()
    dwconv = keras.layers.DepthwiseConv2D(kernel_size, padding="same")
    norm = keras.layers.LayerNormalization(epsilon=1e-6)
    pwconv1, pwconv2 = keras.layers.Dense(4 * DIM, activation="gelu"), keras.layers.Dense(DIM)
    for own, theirs in zip(block.parts(), (dwconv, norm, pwconv1, pwconv2)):
        theirs.build(x.shape if theirs is not pwconv2 else (None, 4 * DIM))
        theirs.set_weights(own.get_weights())
    gamma = keras.Variable(block.gamma)
    weights = [weight for layer in (dwconv, norm, pwconv1, pwconv2) for weight in layer.weights]
    found = []
    for call, variables in (
        (lambda x: block(x, training=training), block.weights),
        (lambda x: x + gamma * pwconv2(pwconv1(norm(dwconv(x)))), [gamma, *weights]),
    ):
        with tf.GradientTape() as tape:
            tape.watch(x)
            output = call(x)
            loss = tf.reduce_sum(output * normal(*x.shape, seed=2))
        variables = [weight.value for weight in variables]
        found.append([output, *tape.gradient(loss, [x, *variables])])
    assert_same(*found)


@pytest.mark.parametrize("eager", [True, False], ids=["eager", "graph"])
@pytest.mark.parametrize("training", [False, True])
def test_a_channel_that_is_zero_everywhere_has_a_finite_gradient(training, eager):
    block, x = random_block(grn=True), maps()
    kernel = block.pwconv1.kernel.numpy()
    kernel[:, 3] = 0
    block.pwconv1.kernel.assign(kernel)
    bias = block.pwconv1.bias.numpy()
    bias[3] = 0
    block.pwconv1.bias.assign(bias)

    def gradients():
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(block(x, training=training) ** 2)
        return tape.gradient(loss, [x, *(weight.value for weight in block.weights)])

    found = gradients() if eager else tf.function(gradients)()
    assert all(np.isfinite(gradient).all() for gradient in found)
    by_path = dict(zip([weight.path for weight in block.weights], found[1:]))
    (d_gamma,) = (each for path, each in by_path.items() if path.endswith("grn/gamma"))
    assert d_gamma[3] == 0
    assert np.count_nonzero(d_gamma) == 4 * DIM - 1


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_the_norms_of_a_large_map_do_not_overflow_in_half_precision(dtype):
    """The sum of 128 x 128 squares of 6 is 590,000; the largest float16 is 65,504."""
    x = 2 + 4 * np.abs(normal(1, 128, 128, DIM))
    exact, half = GlobalResponseNormalization(), GlobalResponseNormalization(dtype=dtype)
    for layer in (exact, half):
        layer.build(x.shape)
        layer.gamma.assign(normal(DIM, seed=1))
        layer.beta.assign(normal(DIM, seed=2))
    found, expected = half(tf.cast(x, dtype)).numpy().astype("float32"), exact(x).numpy()
    assert half(tf.cast(x, dtype)).dtype == dtype
    assert np.abs(found - expected).max() < 2 ** (-9 if dtype == "float16" else -6) * expected.max()


def test_a_block_with_grn_has_no_layer_scale():
    block = Block(DIM, grn=True, layer_scale=0.3, name="x")
    block.build((None, None, None, DIM))
    paths = [weight.path for weight in block.weights]
    assert "x/gamma" not in paths
    assert paths[4:] == ["x/pwconv1/kernel", "x/pwconv1/bias", "x/grn/gamma", "x/grn/beta",
                         "x/pwconv2/kernel", "x/pwconv2/bias"]  # fmt: skip
    x = maps()
    before = block(x)
    block.grn.gamma.assign(normal(4 * DIM))
    assert np.abs(block(x) - before).max() > 1e-3 * np.abs(before).max()


def test_weights_have_the_names_of_their_layers():
    block = Block(DIM, name="x")
    block.build((None, None, None, DIM))
    assert {weight.path: tuple(weight.shape) for weight in block.weights} == {
        "x/gamma": (8,),
        "x/dwconv/kernel": (7, 7, 8, 1), "x/dwconv/bias": (8,),
        "x/norm/gamma": (8,), "x/norm/beta": (8,),
        "x/pwconv1/kernel": (8, 32), "x/pwconv1/bias": (32,),
        "x/pwconv2/kernel": (32, 8), "x/pwconv2/bias": (8,),
    }  # fmt: skip


CONFIGS = {
    "defaults": {},
    "other sizes": {"kernel_size": 5, "expansion": 2, "stddev": None},
    "without gamma": {"layer_scale": None},
    "drop path and remat": {"drop_path": 0.3, "remat": True},
    "half precision": {"dtype": "mixed_bfloat16", "name": "mine"},
    "frozen": {"trainable": False},
    "GRN": {"grn": True, "layer_scale": None},
}


@pytest.mark.parametrize("kind", [Block, InferenceBlock])
@pytest.mark.parametrize("options", CONFIGS.values(), ids=CONFIGS)
def test_it_survives_its_config(options, kind):
    block = kind(dim=DIM, **options)
    block.build((None, 9, 12, DIM))
    randomize(block)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(block))
    assert type(again) is kind
    assert again.get_config() == block.get_config()
    config = {**again.get_config(), "dtype": again.dtype_policy.name}
    assert {name: config[name] for name in options} == options
    x = tf.cast(maps(), block.compute_dtype)
    again(x)
    again.set_weights(block.get_weights())
    np.testing.assert_array_equal(again(x), block(x))
    assert block.compute_output_shape(x.shape) == x.shape


def with_int8(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the layers that have nothing to quantize
        model.quantize("int8")


LEARNED = {
    "plain": lambda model: None,
    "int8": with_int8,
    "LoRA": lambda model: [with_lora(block) for block in blocks_of(model)],
    "one layer with LoRA": lambda model: blocks_of(model)[1].pwconv2.enable_lora(3),
}


@pytest.mark.usefixtures("no_garbage_collection")
@pytest.mark.parametrize("change", LEARNED.values(), ids=LEARNED)
def test_a_model_is_saved_and_loaded_as_it_is_now(change, tmp_path):
    model = randomize(toy(layer_scale_init_value=0.3, drop_path_rate=0.2))
    change(model)
    model.save(tmp_path / "x.keras")
    again = keras.models.load_model(tmp_path / "x.keras")
    assert [(w.path, w.dtype) for w in again.weights] == [(w.path, w.dtype) for w in model.weights]
    for block, other in zip(blocks_of(again), blocks_of(model), strict=True):
        assert block.drop_path.rate == other.drop_path.rate
        for dense, theirs in ((block.pwconv1, other.pwconv1), (block.pwconv2, other.pwconv2)):
            assert dense.quantization_mode == theirs.quantization_mode
            assert dense.lora_enabled == theirs.lora_enabled
    pixels = images(2, 32, 32, 3)
    np.testing.assert_array_equal(again(pixels), model(pixels))
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    np.testing.assert_array_equal(clone(pixels), model(pixels))


class TestPrecision:
    def test_gamma_is_applied_in_float32_under_mixed_float16(self):
        block = Block(4, kernel_size=1, layer_scale=1e-6, dtype="mixed_float16")
        block.build((None, None, None, 4))
        block.pwconv2.bias.assign(np.full(4, 30000.0))
        output = block.residual(tf.zeros((1, 2, 2, 4), "float16"))
        assert block.gamma.dtype == "float32"
        assert output.dtype == "float16"
        # In float16 the factor 1e-6 is subnormal: 30000 times it would be off by over a percent.
        np.testing.assert_allclose(output, np.full((1, 2, 2, 4), 0.03), rtol=1e-3)

    @pytest.mark.parametrize(
        ("name", "dtype"), [("float16", "float32"), ("bfloat16", "float32"), ("float64", "float64")]
    )
    def test_gamma_has_float32_or_more(self, name, dtype):
        block = Block(4, dtype=name)
        output = block(tf.ones((1, 4, 4, 4), name))
        assert {weight.dtype for weight in block.weights[1:]} == {name}
        assert block.gamma.dtype == dtype
        assert output.dtype == name
        np.testing.assert_allclose(block.gamma, np.full(4, 1e-6), rtol=1e-6)


def test_it_stays_out_of_xla_on_a_cpu_alone(monkeypatch):
    model = keras.Sequential([keras.Input((8, 8, 3)), Block(3)])
    model.compile("sgd", "mse")
    assert model.jit_compile is False
    assert model.layers[0].supports_jit is False
    monkeypatch.setattr("keras_convnext.block.tensorflow_on_cpu", lambda: False)
    assert Block(3).supports_jit is True


def network(scope=None, **options):
    """A toy with stochastic depth whose first draws are always the same."""
    keras.utils.set_random_seed(0)
    with scope or nullcontext():
        options = {"drop_path_rate": 0.6, "classifier_activation": None, **options}
        model = randomize(toy(layer_scale_init_value=0.3, **options))
    for number, block in enumerate(blocks_of(model)):
        if block.drop_path.rate > 0:
            block.drop_path.seed_generator.state.assign([7, number])
    return model


def steps(model, eager):
    """The logits and the gradients of three steps, each with a draw of its own."""
    pixels = tf.constant(images(8, 32, 32, 3))

    def step():
        with tf.GradientTape() as tape:
            logits = model(pixels, training=True)
            loss = tf.reduce_sum(logits * normal(8, 5))
        return [logits, *tape.gradient(loss, [v.value for v in model.trainable_variables])]

    step = step if eager else tf.function(step)
    return [tensor for _ in range(3) for tensor in step()]


def named(*names):
    return keras.RematScope(mode="list_of_layers", layer_names=names)


REMATERIALIZED = {
    "remat": lambda **options: network(remat=True, **options),
    "a scope of blocks": lambda **options: network(
        named("stages_0_blocks_0", "stages_1_blocks_0", "stages_1_blocks_1"), **options
    ),
    "a scope of layers within": lambda **options: network(
        named("dwconv", "pwconv1", "drop_path"), **options
    ),
}


def ways_to_recompute():
    """Each way in both modes, of which the scopes are tested in one by default."""
    often = {("remat", True), ("remat", False), ("a scope of blocks", False),
             ("a scope of layers within", True)}  # fmt: skip
    for name, build in REMATERIALIZED.items():
        for eager in (True, False):
            marks = [] if (name, eager) in often else [pytest.mark.slow]
            mode = "eager" if eager else "graph"
            yield pytest.param(build, eager, marks=marks, id=f"{name}-{mode}")


@pytest.mark.parametrize(("build", "eager"), list(ways_to_recompute()))
def test_recomputation_leaves_the_numbers_and_draws_once(build, eager):
    expected = steps(network(), eager)
    draws = [tensor.numpy() for tensor in expected if tensor.shape == (8, 5)]
    assert np.abs(draws[0] - draws[1]).max() > 0.01
    assert_same(steps(build(), eager), expected)


def test_a_scope_makes_a_block_recompute():
    model = REMATERIALIZED["a scope of blocks"]()
    graph = tf.function(lambda: steps(model, eager=True)[:1]).get_concrete_function().graph
    operations = [operation.type for operation in graph.get_operations()]
    assert operations.count("DepthwiseConv2dNative") == 3 * 2 * len(blocks_of(model))


@pytest.mark.parametrize(
    "options",
    [
        {"run_eagerly": True},
        {},
        pytest.param({"jit_compile": False}, marks=pytest.mark.slow),  # what {} chooses on a CPU
    ],
    ids=str,
)
def test_recomputation_learns_the_same_in_fit(options):
    weights = []
    for remat in (False, True):
        model = network(remat=remat)
        model.compile(keras.optimizers.SGD(1e-3), "mse", **options)
        model.fit(images(16, 32, 32, 3), normal(16, 5), batch_size=8, epochs=2, verbose=0)
        weights.append(model.get_weights())
    assert_same(*weights)


class TestScopeOfAll:
    """It takes in the model as a whole, which TensorFlow repeats in eager calls alone."""

    def test_is_right_without_drop_path(self):
        expected = steps(network(drop_path_rate=0.0), eager=True)
        model = network(keras.RematScope(mode="full"), drop_path_rate=0.0)
        assert_same(steps(model, eager=True), expected)

    def test_is_refused_with_drop_path(self):
        with pytest.raises(RuntimeError, match=r"remat=True instead.*rate=0\.3"):
            steps(network(keras.RematScope(mode="full")), eager=True)

    def test_is_refused_by_tensorflow_in_a_graph(self):
        with pytest.raises(ValueError, match="keywords arguments only when eager"):
            steps(network(keras.RematScope(mode="full")), eager=False)


@pytest.mark.parametrize("eager", [True, False], ids=["eager", "graph"])
def test_remat_around_a_block_with_drop_path_is_refused(eager):
    block = random_block(drop_path=0.5)

    def step(x):
        return keras.remat(lambda x: block(x, training=True))(x)

    with pytest.raises(RuntimeError, match=r"remat would make drop path draw again.*rate=0\.5"):
        (step if eager else tf.function(step))(maps())


@pytest.mark.parametrize("eager", [True, False], ids=["eager", "graph"])
def test_remat_around_a_block_without_drop_path_is_right(eager):
    block, x = random_block(), maps()

    def gradients(call):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(call(x) * normal(*x.shape, seed=2))
        return tape.gradient(loss, [x, *(weight.value for weight in block.weights)])

    def step():
        return gradients(keras.remat(lambda x: block(x, training=True)))

    step = step if eager else tf.function(step)
    expected = gradients(block.residual)
    for _ in range(2):  # what is compiled is traced once, and a trace tells more than a call
        assert_same(step(), expected)


class TestTwoTrunks:
    @pytest.fixture
    def model(self):
        trunks = [
            toy(include_top=False, pooling="avg", name=name, drop_path_rate=0.2,
                layer_scale_init_value=0.3)
            for name in ("left", "right")
        ]  # fmt: skip
        features = keras.layers.Concatenate()([trunk.output for trunk in trunks])
        outputs = keras.layers.Dense(3)(features)
        return randomize(keras.Model([trunk.input for trunk in trunks], outputs))

    @pytest.fixture
    def pairs(self):
        return [images(2, 32, 32, 3), images(2, 32, 32, 3, seed=1)]

    def test_names_are_distinct(self, model):
        for names in ([x.name for x in model.layers], [w.path for w in model.weights]):
            assert len(names) == len(set(names))
        assert {"left_stages_1_blocks_0/gamma", "right_stages_1_blocks_0/gamma"} <= {
            weight.path for weight in model.weights
        }

    def test_the_default_name_is_no_prefix(self):
        trunk = toy(include_top=False, pooling="avg")
        assert not [x.name for x in trunk.layers if x.name.startswith("convnext")]

    def test_it_is_saved_loaded_and_cloned(self, model, pairs, tmp_path):
        expected = model(pairs)
        model.save(tmp_path / "x.keras")
        model.save_weights(tmp_path / "x.weights.h5")
        clone, other = (keras.models.clone_model(model) for _ in range(2))
        clone.set_weights(model.get_weights())
        other.load_weights(tmp_path / "x.weights.h5")
        for again in (keras.models.load_model(tmp_path / "x.keras"), clone, other):
            assert [w.path for w in again.weights] == [w.path for w in model.weights]
            np.testing.assert_array_equal(again(pairs), expected)

    def test_a_trunk_is_ported_fused_and_inspected_by_its_own_names(self, tmp_path):
        left = randomize(toy(name="left", layer_scale_init_value=0.3))
        pixels = images(2, 32, 32, 3)
        for name in ("x.pth", "x.weights.h5", "x.h5"):
            keras_convnext.save_checkpoint(left, tmp_path / name)
            again = toy(weights=tmp_path / name, layer_scale_init_value=0.3)
            np.testing.assert_array_equal(again(pixels), left(pixels))
        assert_same([keras_convnext.export.fuse(left)(pixels)], [left(pixels)])
        assert set(keras_convnext.pyramid_features(left).output) == {"P2", "P3"}
        left.save(tmp_path / "x.keras")
        trunk = keras_convnext.load_model(tmp_path / "x.keras", include_top=False)
        assert trunk.output_shape == (None, 16)


def test_a_network_is_listed_on_a_page():
    lines = []
    model = keras_convnext.ConvNeXtTiny(weights=None)
    model.summary(print_fn=lambda text: lines.extend(text.splitlines()))
    assert len(model.layers) <= 40
    assert sum("(Block)" in line for line in lines) == 18


def test_the_network_is_read_in_one_sitting():
    files = ("block.py", "network.py", "variants.py")
    assert sum(len((PACKAGE / name).read_text("utf-8").splitlines()) for name in files) <= 450
