"""Runs with another KERAS_BACKEND, in a separate process for `test_backends.py`.

Usage: python run_on_backend.py FOLDER. Ports FOLDER/NAME.pth, predicts FOLDER/pixels.npy, writes
FOLDER/NAME.npz; then trains a toy with stochastic depth. TensorFlow cannot be imported.
"""

import sys
from importlib.machinery import PathFinder
from pathlib import Path


class WithoutTensorFlow(PathFinder):
    """Finds all installed packages except TensorFlow."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name == "tensorflow" else super().find_spec(name, path, target)


sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutTensorFlow

import keras  # noqa: E402
import numpy as np  # noqa: E402

import keras_convnext  # noqa: E402
from keras_convnext.arithmetic import residual_of  # noqa: E402
from keras_convnext.block import Block  # noqa: E402
from keras_convnext.builders import BUILDERS  # noqa: E402


def port_and_predict(folder):
    pixels = np.load(folder / "pixels.npy")
    for checkpoint in folder.glob("*.pth"):
        model = BUILDERS[checkpoint.stem](
            weights=checkpoint, classifier_activation=None, input_shape=pixels.shape[1:]
        )
        outputs = {"logits": model.output, "features": model.get_layer("norm").output}
        if "isotropic" not in checkpoint.stem:
            outputs |= keras_convnext.pyramid_features(model)(model.input)
        found = keras.Model(model.input, outputs).predict(pixels, verbose=0)
        np.savez(folder / f"{checkpoint.stem}.npz", **found)


def train_save_and_load(folder):
    keras.utils.set_random_seed(0)
    model = keras_convnext.ConvNeXt(
        (1, 2), (8, 16), classes=3, drop_path_rate=0.5, input_shape=(32, 32, 3)
    )
    model.compile("adamw", "sparse_categorical_crossentropy")
    pixels = np.random.default_rng(0).uniform(0, 255, (16, 32, 32, 3))
    history = model.fit(pixels, np.arange(16) % 3, epochs=3, batch_size=8, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    model.save(folder / "toy.keras")
    again = keras.models.load_model(folder / "toy.keras")
    np.testing.assert_allclose(
        again.predict(pixels, verbose=0), model.predict(pixels, verbose=0), rtol=1e-5
    )
    # Each call draws again, even in a compiled step: a constant mask would be a single draw that
    # was captured by tracing.
    drop_path = model.get_layer("stages_1_blocks_1").drop_path
    ones = np.ones((64, 1, 1, 1), "float32")
    draws = [keras.ops.convert_to_numpy(drop_path(ones, training=True)) for _ in range(2)]
    assert (draws[0] != draws[1]).any()


def compare_the_gradients_of_a_sum_with_those_of_a_convolution():
    import jax
    from jax import numpy as jnp

    from keras_convnext.jax_cpu import depthwise_conv2d

    def convolution(x, kernel):
        return keras.ops.depthwise_conv(x, kernel, padding="same")

    random = np.random.default_rng(0)
    for kernel, sides in (((7, 7), (9, 12)), ((4, 3), (8, 5)), ((5, 5), (2, 3))):
        x = random.normal(size=(2, *sides, 6)).astype("float32")
        weights = random.normal(size=(*kernel, 6, 1)).astype("float32")
        d_output = random.normal(size=x.shape).astype("float32")
        ours, our_gradients = jax.vjp(depthwise_conv2d, x, weights)
        theirs, their_gradients = jax.vjp(convolution, x, weights)
        pairs = zip((ours, *our_gradients(d_output)), (theirs, *their_gradients(d_output)))
        for found, expected in pairs:
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    half = depthwise_conv2d(jnp.ones((1, 8, 8, 2), "bfloat16"), jnp.full((7, 7, 2, 1), 0.1))
    assert half.dtype == "bfloat16"
    assert abs(half[0, 4, 4, 0] - 4.9) < 0.02  # 49 terms, added up in float32


def check_that_a_block_is_computed_with_that_sum():
    import jax

    from keras_convnext import jax_cpu

    block = Block(6, layer_scale=0.3)
    x = np.random.default_rng(0).normal(size=(2, 9, 12, 6)).astype("float32")
    block.build(x.shape)
    for training in (True, False):
        residual = residual_of(block, x, training)
        assert (residual.func, residual.args) == (jax_cpu.residual, (block,))
        traced = str(jax.make_jaxpr(lambda x, training=training: block(x, training=training))(x))
        assert "conv_general_dilated" not in traced
        plain = block.residual(x)
        assert abs(residual(x) - plain).max() < 1e-5 * abs(plain).max()


def check_that_a_block_is_computed_as_it_is_written():
    block = Block(6)
    x = keras.ops.ones((2, 9, 12, 6))
    block.build(x.shape)
    for training in (True, False):
        assert residual_of(block, x, training) == block.residual


if __name__ == "__main__":
    if keras.config.backend() == "jax":
        check_that_a_block_is_computed_with_that_sum()
        compare_the_gradients_of_a_sum_with_those_of_a_convolution()
    else:
        check_that_a_block_is_computed_as_it_is_written()
    port_and_predict(Path(sys.argv[1]))
    train_save_and_load(Path(sys.argv[1]))
