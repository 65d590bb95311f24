"""Runs the example script for one GPU, with JAX, in a separate process for `test_examples.py`.

Usage: python run_gpu_example.py DATA OUTPUT UPDATES. Tests the script's augmentation, repeats the
updates of a run on TensorFlow, then trains a smaller network with the script.
"""

import importlib.util
import json
import sys
from pathlib import Path


class WithoutTensorFlow:
    """Makes imports fail as on a machine without TensorFlow."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        if name == "tensorflow":
            raise ModuleNotFoundError(name)


sys.meta_path.insert(0, WithoutTensorFlow)
SCRIPT = Path(__file__).parent.parent / "examples" / "train_cifar10_on_a_gpu.py"
spec = importlib.util.spec_from_file_location("example", SCRIPT)
example = importlib.util.module_from_spec(spec)
spec.loader.exec_module(example)  # chooses Keras' backend

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from jax.scipy.ndimage import map_coordinates  # noqa: E402

from keras_convnext import builders  # noqa: E402
from keras_convnext.variants import VARIANTS, Variant  # noqa: E402

COUNT, SIDE = 400, 32
KEY = jax.random.key(0)
RECIPE = example.read_recipe("cifar10_gpu", "convnext_cifar", {})


def test_a_box_is_taken_as_another_resampling_takes_it():
    images = np.random.default_rng(0).uniform(0, 255, (3, SIDE, SIDE, 3)).astype("float32")
    begin = np.array([[0.1, 0.2], [0.0, 0.0], [0.3, 0.0]], "float32")
    size = np.array([[0.8, 0.7], [1.0, 1.0], [0.6, 0.9]], "float32")
    shear = np.array([[0.0, 0.15], [0.0, 0.0], [0.0, -0.2]], "float32")  # of the rows alone
    found = example.resampled(images, begin, size, shear)
    down, across = np.meshgrid(np.arange(SIDE), np.arange(SIDE), indexing="ij")
    for i in range(3):
        y, x = (begin[i, j] * SIDE + size[i, j] * (p + 0.5) - 0.5
                for j, p in enumerate((down, across)))  # fmt: skip
        x = np.clip(x + shear[i, 1] * (down + 0.5 - SIDE / 2), 0, SIDE - 1)
        for channel in range(3):
            theirs = map_coordinates(images[i, ..., channel], [y, x], order=1, mode="nearest")
            np.testing.assert_allclose(found[i, ..., channel], theirs, atol=0.02)
    turned = example.resampled(images.swapaxes(1, 2), begin[:, ::-1], size[:, ::-1], shear[:, ::-1])
    assert abs(turned.swapaxes(1, 2) - found).max() > 1  # down comes first
    np.testing.assert_array_equal(found[1], images[1])


def test_a_crop_stays_inside_and_half_are_mirrored():
    ramp = np.broadcast_to(np.arange(SIDE, dtype="float32")[:, None], (COUNT, SIDE, SIDE, 1))
    found = np.asarray(example.cropped(KEY, ramp, RECIPE.input))
    assert 0 <= found.min() < 1
    assert SIDE - 2 < found.max() <= SIDE - 1
    mirrored = (found[:, :, -1] < found[:, :, 0]).all((1, 2))
    assert 0.4 < mirrored.mean() < 0.6


def test_colors_move_about_what_they_were():
    gray = np.full((COUNT, 4, 4, 3), 100, "float32")
    found = np.asarray(example.jittered(KEY, gray, 0.3))
    assert 69 < found.min() < 80  # brightness alone moves what is gray and flat
    assert 120 < found.max() < 131
    np.testing.assert_allclose(found.std((1, 2, 3)), 0, atol=1e-3)
    blue = np.asarray(example.jittered(KEY, gray + np.array([0, 0, 40], "float32"), 0.3))
    further = (blue[:, 0, 0, 2] - blue[:, 0, 0, 0]) / 40
    assert 0.7**3 < further.min() < 0.7
    assert 1.3**2 < further.max() < 1.3**3  # by all three


def test_one_image_in_four_loses_a_box():
    found = np.asarray(example.erased(KEY, np.zeros((COUNT, SIDE, SIDE, 3), "float32"), 0.25))
    share = (found != 0).any(-1).mean((1, 2))
    assert 0.18 < (share > 0).mean() < 0.32
    assert share[share > 0].min() > 0.01
    assert share.max() < 0.3


def test_a_target_is_what_the_image_is_made_of():
    values = np.arange(COUNT, dtype="float32")
    images = np.broadcast_to(values[:, None, None, None], (COUNT, SIDE, SIDE, 3))
    images, targets = example.mixed(KEY, images, np.eye(COUNT, dtype="float32"), RECIPE.targets)
    np.testing.assert_allclose(images.mean((1, 2, 3)), targets @ values, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-5)
    own = np.diag(targets)
    assert 0.4 < own.mean() < 0.6
    is_cut = images.std((1, 2, 3)) > 1e-3
    assert 0.35 < is_cut.mean() < 0.65


def test_a_setting_that_the_script_lacks_is_refused():
    for settings in ({"rand_augment": "rand-m9"}, {"precision": "mixed_float16"}):
        try:
            example.read_recipe("cifar10_gpu", "convnext_cifar", settings)
        except ValueError as error:
            assert next(iter(settings)) in str(error)  # noqa: PT017
        else:
            raise AssertionError(settings)


def assert_same_updates(file):
    """Repeats the updates that `test_examples.py` made on TensorFlow, from the same weights."""
    with np.load(file) as stored:
        theirs = dict(stored)
    settings = json.loads(str(theirs["settings"]))
    recipe = example.read_recipe("cifar10_gpu", "toy", settings)
    classes = theirs["targets"].shape[-1]
    model, optimizer = example.start(recipe, "toy", classes, recipe.batch.batch_size)
    for index, variable in enumerate(model.trainable_variables):
        variable.assign(theirs[f"before {index}"])
    update, _, _ = example.programs(recipe, model, optimizer, classes)
    state, update, losses = example.state_of(model, optimizer), jax.jit(update), []
    for batch in zip(theirs["images"], theirs["targets"]):
        state, (loss, _) = update(state, *map(jnp.asarray, batch))
        losses.append(loss)
    np.testing.assert_allclose(losses, theirs["losses"], rtol=1e-3)
    for kind, weights in (
        ("final", state[0]), ("final_ema", example.averages_of(optimizer, state[2])),
    ):  # fmt: skip
        for index, value in enumerate(weights):
            expected = theirs[f"{kind} {index}"]
            away = np.abs(value - expected).max() / np.abs(expected).max()
            assert away < 1e-3, (kind, index, away)


if __name__ == "__main__":
    for name, check in list(globals().items()):
        if name.startswith("test_"):
            check()
    data, output, updates = map(Path, sys.argv[1:])
    VARIANTS["toy"] = Variant("toy", (1, 1), (16, 32), None, 4)
    builders.BUILDERS["toy"] = builders._builder(VARIANTS["toy"])
    assert_same_updates(updates)
    settings = {
        "epochs": 30, "warmup_epochs": 1, "batch_size": 20, "learning_rate": 1e-2,
        "ema_decay": 0.9, "drop_path_rate": 0.1,
    }  # fmt: skip
    example.main(data, output, model="toy", setting=[f"{k}={v}" for k, v in settings.items()])
