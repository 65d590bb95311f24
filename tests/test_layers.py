import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_convnext.layers import DropPath, LayerNormalization, PatchConv2D


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


@pytest.mark.parametrize(
    "layer",
    [
        PatchConv2D(4, patch_size=2),
        LayerNormalization(epsilon=1e-3),
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


@pytest.mark.parametrize("shape", [(2, 3, 8, 3), (2, 8, 3, 3)])
def test_a_map_smaller_than_a_patch_is_refused(shape):
    layer = PatchConv2D(4, patch_size=4)
    layer.build((None, None, None, 3))
    with pytest.raises(ValueError, match="too small"):
        layer(normal(*shape))


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
