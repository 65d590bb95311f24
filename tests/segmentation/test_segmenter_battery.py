"""Every check of the battery for segmenters, on this backend and the others.

A network is one line in `NETWORKS`. A check is a function of a model that returns logits, of what
builds it with other options, and of an empty folder.
"""

import copy
import pickle
import re
from functools import cache, partial
from pathlib import Path

import keras
import numpy as np
import pytest
from battery import (
    BACKEND,
    ROUNDING,
    array,
    assert_close,
    compute,
    dtype_policy,
    random,
    relative_error,
)
from other_backends import assert_tests_pass

import keras_convnext
from keras_convnext.export import fuse
from keras_convnext.feature_maps import with_values
from keras_convnext.segmentation import UperNet

GOLDEN = Path(__file__).with_name("golden")
DEPTHS, DIMS, CLASSES = (1, 1, 2, 1), (8, 16, 24, 32), 5
PIXELS = random(2, 41, 59, 3)


def upernet(network, weights=None, **options):
    trunk = network(
        DEPTHS, DIMS, weights=None, include_top=False, include_preprocessing=False,
        input_shape=(None, None, 3), drop_path_rate=options.pop("drop_path_rate", 0.0),
    )  # fmt: skip
    keras.utils.set_random_seed(0)
    defaults = {"classes": CLASSES, "channels": 16, "classifier_activation": None}
    model = UperNet(trunk, weights=weights, **{**defaults, **options})
    for number, weight in enumerate(model.weights if weights is None else ()):
        values = np.random.default_rng(number).normal(size=weight.shape)
        if len(weight.shape) > 1:
            values *= np.prod(weight.shape[:-1]) ** -0.5
        is_scale = weight.path.endswith("/gamma") and "grn" not in weight.path
        values = np.abs(values) + 0.5 if "variance" in weight.path or is_scale else 0.3 * values
        weight.assign(values)
    return model


NETWORKS = {
    "upernet": partial(upernet, keras_convnext.ConvNeXt, weights=GOLDEN / "upernet.pth"),
    "upernet_v2": partial(upernet, keras_convnext.ConvNeXtV2),
}


def check_parity(model, build, folder):
    """With mmsegmentation's numbers for the same weights."""
    if build is not NETWORKS["upernet"]:
        pytest.skip("there are golden arrays of one network")
    pixels = np.random.default_rng(0).normal(size=(1, 33, 47, 3)).astype("float32")
    assert_close(compute(model, pixels), np.load(GOLDEN / "upernet.npz")["whole 33"])


def check_sizes_of_images_and_batches(model, build, folder):
    whole = model.predict(PIXELS, verbose=0)
    assert whole.shape == (*PIXELS.shape[:3], CLASSES)
    assert model.compute_output_shape(PIXELS.shape) == whole.shape
    for index in range(2):
        assert_close(model.predict(PIXELS[index : index + 1], verbose=0), whole[index : index + 1])


def check_class_map(model, build, folder):
    """It is the largest channel of the full output, for smaller, equal and larger sides."""
    mapped = build(class_map=True)
    assert mapped.output_shape == (None, None, None)
    for height, width in ((64, 32), (33, 59)):
        pixels = np.random.default_rng(1).normal(0, 3, (2, height, width, 3)).astype("float32")
        found = mapped.predict(pixels, verbose=0)
        assert found.dtype == np.int32
        expected = array(compute(model, pixels))
        np.testing.assert_array_equal(found, expected.argmax(-1))
        assert len(np.unique(found)) > 1 or build is not NETWORKS["upernet"]
    mapped.save(folder / "map.keras")
    again = keras.models.load_model(folder / "map.keras")
    np.testing.assert_array_equal(again.predict(pixels, verbose=0), found)
    assert_close(compute(with_values(again), pixels), expected)


def check_copies(model, build, folder):
    model = build(drop_path_rate=0.3)
    expected = compute(model, PIXELS)
    model.save(folder / "model.keras")
    model.save_weights(folder / "model.weights.h5")
    copies = {
        ".keras": keras.models.load_model(folder / "model.keras"),
        ".weights.h5": build(weights=None, drop_path_rate=0.3),
        "clone_model": keras.models.clone_model(model),
        "from_config": keras.Model.from_config(model.get_config()),
        "deepcopy": copy.deepcopy(model),
        "pickle": pickle.loads(pickle.dumps(model)),
    }
    copies[".weights.h5"].load_weights(folder / "model.weights.h5")
    for way in ("clone_model", "from_config"):
        copies[way].set_weights(model.get_weights())
    for way, again in copies.items():
        assert_close(compute(again, PIXELS), expected, what=way)


def check_precision(model, build, folder):
    expected = array(compute(model, PIXELS))
    for name in ("mixed_float16", "mixed_bfloat16"):
        half = name.removeprefix("mixed_")
        with dtype_policy(name):
            found = compute(build(), PIXELS)
        assert keras.backend.standardize_dtype(found.dtype) == "float32"
        assert 0 < relative_error(array(found), expected) < 12 * ROUNDING[half], half


def check_fused(model, build, folder):
    fused = fuse(model)
    assert fused.count_params() < model.count_params()
    assert_close(compute(fused, PIXELS), compute(model, PIXELS))


def check_fit(model, build, folder):
    """Training changes every weight, and all numbers stay finite.

    But for the shifts before pointwise layers, which the batch norm behind takes away again.
    """
    model = build(drop_path_rate=0.2, auxiliary=False)
    before, pixels = model.get_weights(), random(4, 96, 64, 3)  # 3 x 2 cells of the last map
    labels = np.random.default_rng(0).integers(0, CLASSES, pixels.shape[:3])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss)
    history = model.fit(pixels, labels, batch_size=2, epochs=2, verbose=0).history["loss"]
    assert np.isfinite(history).all()
    for variable, was, now in zip(model.weights, before, model.get_weights(), strict=True):
        assert np.isfinite(now).all(), variable.path
        assert (was != now).any() or re.search(r"norm_[0-2]/beta$", variable.path), variable.path


CHECKS = {
    name.removeprefix("check_"): check
    for name, check in list(globals().items())
    if name.startswith("check_")
}
# Of the first network; all of the others are slow, and so are all other backends.
QUICK = {"parity", "class_map", "fused"}


@cache
def shared(name):
    return NETWORKS[name]()


def cases():
    for number, name in enumerate(NETWORKS):
        for check in CHECKS:
            is_slow = number > 0 or check not in QUICK
            marks = [pytest.mark.slow] if is_slow else []
            yield pytest.param(name, check, marks=marks, id=f"{name}-{check}")


@pytest.mark.parametrize(("name", "check"), list(cases()))
def test_segmenter(name, check, tmp_path):
    CHECKS[check](shared(name), NETWORKS[name], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("backend", sorted({"jax", "tensorflow", "torch"} - {BACKEND}))
def test_segmenters_on_another_backend(backend):
    assert_tests_pass(backend, f"{__file__}::test_segmenter")
