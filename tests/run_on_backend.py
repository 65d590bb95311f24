"""What `test_backends.py` runs in a process of its own, under another KERAS_BACKEND.

Usage: python run_on_backend.py FOLDER. Ports FOLDER/NAME.pth, predicts FOLDER/pixels.npy, writes
FOLDER/NAME.npz; then trains a toy with stochastic depth. TensorFlow is as if it were not installed.
"""

import sys
from importlib.machinery import PathFinder
from pathlib import Path


class WithoutTensorFlow(PathFinder):
    """Finds what is installed, but for TensorFlow."""

    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name == "tensorflow" else super().find_spec(name, path, target)


sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutTensorFlow

import keras  # noqa: E402
import numpy as np  # noqa: E402

import keras_convnext  # noqa: E402
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
    # Drawn anew at each call, also where the step is compiled: a constant mask would be a trace
    # of one draw.
    drop_path = model.get_layer("stages_1_blocks_1_drop_path")
    ones = np.ones((64, 1, 1, 1), "float32")
    draws = [keras.ops.convert_to_numpy(drop_path(ones, training=True)) for _ in range(2)]
    assert (draws[0] != draws[1]).any()


if __name__ == "__main__":
    port_and_predict(Path(sys.argv[1]))
    train_save_and_load(Path(sys.argv[1]))
