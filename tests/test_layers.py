import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_convnext import tensorflow_cpu
from keras_convnext.layers import (
    DepthwiseConv2D,
    DropPath,
    LayerNormalization,
    LayerScale,
    PatchConv2D,
    PointwiseDense,
)


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


@pytest.mark.parametrize(
    "layer",
    [
        PatchConv2D(4, patch_size=2),
        DepthwiseConv2D(3, padding="same"),
        PointwiseDense(8, activation="gelu"),
        LayerScale(0.3),
        DropPath(0.5, seed=1),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_survive_their_config(layer):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(layer))
    assert type(again) is type(layer)
    assert again.get_config() == layer.get_config()
    inputs = normal(2, 6, 6, 5)
    output = layer(inputs)
    again(inputs)
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(again(inputs), output)
    assert layer.compute_output_shape(inputs.shape) == output.shape


@pytest.mark.parametrize("policy", ["float32", "float64", "mixed_bfloat16"])
def test_normalization_is_exact_in_its_dtype(policy):
    gamma, beta = 1 + normal(16, seed=1), normal(16, seed=2)
    inputs = tf.constant(3 + 5 * normal(2, 3, 4, 16), "float64")
    layer = LayerNormalization(epsilon=1e-6, dtype=policy)
    layer.build(inputs.shape)
    layer.set_weights([gamma, beta])
    output = layer(inputs)
    assert keras.backend.standardize_dtype(output.dtype) == layer.compute_dtype

    x = inputs.numpy()
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    tolerance = {"float32": 1e-5, "float64": 1e-12, "mixed_bfloat16": 0.03}[policy]
    found = keras.ops.convert_to_numpy(output).astype("float64")
    np.testing.assert_allclose(found, x * gamma + beta, rtol=tolerance, atol=tolerance)


def test_pointwise_dense_is_a_dense_layer_at_each_position():
    inputs = tf.constant(normal(2, 3, 4, 5))
    layer = PointwiseDense(7, activation="gelu")
    dense = keras.layers.Dense(7, activation="gelu")
    layer.build(inputs.shape)
    layer.set_weights([normal(5, 7, seed=1), normal(7, seed=2)])
    dense.build(inputs.shape)
    dense.set_weights(layer.get_weights())
    found = []
    for one in (layer, dense):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            output = one(inputs)
            loss = tf.reduce_sum(output**2)
        found.append([output, *tape.gradient(loss, [inputs, one.kernel.value, one.bias.value])])
    for ours, theirs in zip(*found):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_outside_of_a_graph_product_bias_and_gelu_are_one_call(monkeypatch):
    calls = []
    monkeypatch.setattr(tensorflow_cpu, "dense_gelu", lambda *args: calls.append(args) or args[2])
    layer = PointwiseDense(7, activation="gelu")
    with pytest.raises(tf.errors.InvalidArgumentError):  # what the stand-in returns is no map
        layer(normal(2, 3, 4, 5))
    assert [tuple(argument.shape) for argument in calls[0]] == [(24, 5), (5, 7), (7,)]


@pytest.mark.parametrize("shape", [(2, 3, 8, 3), (2, 8, 3, 3)])
def test_a_map_smaller_than_a_patch_is_refused(shape):
    layer = PatchConv2D(4, patch_size=4)
    layer.build((None, None, None, 3))
    with pytest.raises(ValueError, match="too small"):
        layer(normal(*shape))


def test_depthwise_convolution_stays_out_of_xla_on_a_cpu():
    model = keras.Sequential([keras.Input((8, 8, 3)), DepthwiseConv2D(3)])
    model.compile("sgd", "mse")
    assert model.jit_compile is (keras.config.backend() == "jax")


def test_layer_scale_is_applied_in_float32_under_mixed_float16():
    layer = LayerScale(1e-6, dtype="mixed_float16")
    output = layer(np.full((1, 4), 30000.0, "float16"))
    assert layer.gamma.dtype == "float32"
    assert keras.backend.standardize_dtype(output.dtype) == "float16"
    # In float16 the factor 1e-6 is subnormal: 30000 times it would be off by more than a percent.
    np.testing.assert_allclose(output, 0.03, rtol=1e-3)


class TestDropPath:
    def test_drops_whole_samples_and_scales_the_rest(self):
        layer = DropPath(0.25, seed=0)
        output = keras.ops.convert_to_numpy(
            layer(np.ones((4000, 2, 2, 3), "float32"), training=True)
        )
        samples = output.reshape(len(output), -1)
        np.testing.assert_array_equal(samples, samples[:, :1] * np.ones(12))
        np.testing.assert_allclose(np.unique(samples), [0, 4 / 3], rtol=1e-6)
        assert samples.mean() == pytest.approx(1, abs=0.03)

    def test_does_nothing_at_inference(self):
        inputs = normal(4, 2, 2, 3)
        np.testing.assert_array_equal(DropPath(0.9)(inputs, training=False), inputs)

    def test_is_repeated_by_the_seed_of_keras(self):
        draws = []
        for _ in range(2):
            keras.utils.set_random_seed(3)
            layer = DropPath(0.5)
            inputs = np.ones((64, 1, 1, 1), "float32")
            draws.append([np.array(layer(inputs, training=True)) for _ in range(2)])
        np.testing.assert_array_equal(draws[0], draws[1])
        assert (draws[0][0] != draws[0][1]).any()
