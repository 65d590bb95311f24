"""HDF5 files that Keras saved, of these networks: into models and out again."""

import shutil
import warnings
import zipfile

import h5py
import keras
import numpy as np
import pytest

import keras_convnext
from keras_convnext import CheckpointError, identify, load_checkpoint, load_model, save_checkpoint


def toy(depths=(1, 2), dims=(8, 16), **options):
    options = {"classes": 5, "input_shape": (32, 32, 3), **options}
    return keras_convnext.ConvNeXt(depths, dims, **options)


def isotropic(depth=2, **options):
    options = {"classes": 5, "input_shape": (32, 32, 3), **options}
    return keras_convnext.ConvNeXtIsotropic(depth, 8, **options)


def with_random_weights(model, seed=0):
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        weight.assign(0.3 * generator.normal(size=weight.shape))
    return model


def assert_same_weights(ours, theirs):
    assert len(ours.weights) == len(theirs.weights)
    for one, other in zip(ours.get_weights(), theirs.get_weights()):
        np.testing.assert_array_equal(one, other)


def datasets(path):
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: found.update({name: item[()]} if hasattr(item, "shape") else {})
        )
    return found


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.weights.h5"


MODELS = {
    "plain": toy,
    "drop path": lambda: toy(drop_path_rate=0.2),
    "without preprocessing": lambda: toy(include_preprocessing=False),
    "without gamma": lambda: toy(layer_scale_init_value=None),
    "without the top": lambda: toy(include_top=False),
    "pooled": lambda: toy(include_top=False, pooling="max"),
    "one stage": lambda: toy((3,), (8,)),
    "stages that return to a width": lambda: toy((1, 2, 1), (8, 16, 8)),
    "stages of one width": lambda: toy((2, 1), (8, 8)),
    "isotropic": isotropic,
    "isotropic without the top": lambda: isotropic(include_top=False),
    "isotropic, pooled": lambda: isotropic(include_top=False, pooling="avg"),
    "one stage without the top": lambda: toy((2,), (8,), include_top=False),
}


@pytest.mark.parametrize("build", MODELS.values(), ids=MODELS)
def test_what_keras_saves_is_loaded_and_what_is_saved_keras_loads(build, path, tmp_path):
    model = with_random_weights(build())
    model.save_weights(path)
    again = build()
    load_checkpoint(again, path)
    assert_same_weights(again, model)

    save_checkpoint(again, tmp_path / "ours.weights.h5")
    ours, theirs = datasets(tmp_path / "ours.weights.h5"), datasets(path)
    assert ours.keys() == theirs.keys()
    assert all(ours[name].tobytes() == theirs[name].tobytes() for name in theirs)
    save_checkpoint(again, tmp_path / "legacy.h5")
    for written in ("ours.weights.h5", "legacy.h5"):
        third = build()
        third.load_weights(tmp_path / written)
        assert_same_weights(third, model)


AMBIGUOUS = ("stages of one width", "one stage without the top")


@pytest.mark.parametrize("name", [name for name in MODELS if name not in AMBIGUOUS])
def test_the_file_tells_its_network(name, path):
    model = with_random_weights(MODELS[name]())
    model.save_weights(path)
    options = {"pooling": None} if "without the top" in name else {}
    again = load_model(path, input_shape=model.input_shape[1:], **options)
    assert [weight.path for weight in again.weights] == [weight.path for weight in model.weights]
    assert_same_weights(again, model)


def test_stages_of_one_width_need_a_model(path):
    MODELS["stages of one width"]().save_weights(path)
    with pytest.raises(CheckpointError, match=r"3 blocks .* 2 stages.*load_checkpoint.*x\.weights"):
        identify(path)


def test_addresses_alone_tell_the_layers(path):
    """Keras before 3.6 put no names beside the numbers, and a heap of names may be damaged."""
    model = with_random_weights(toy())
    model.save_weights(path)
    with h5py.File(path, "a") as file:
        file.visititems(lambda name, item: item.attrs.clear())
    again = toy()
    load_checkpoint(again, path)
    assert_same_weights(again, model)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16"])
def test_weights_of_other_policies(policy, path, tmp_path):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = with_random_weights(toy())
    finally:
        keras.config.set_dtype_policy(before)
    model.save_weights(path)
    again = toy(weights=path)
    for ours, theirs in zip(again.get_weights(), model.get_weights()):
        np.testing.assert_array_equal(ours, theirs.astype("float32"))
    dtype = keras.DTypePolicy(policy).variable_dtype
    save_checkpoint(again, tmp_path / "ours.weights.h5", dtype=dtype)
    model.load_weights(tmp_path / "ours.weights.h5")
    assert_same_weights(again, toy(weights=path))
    for ours, theirs in zip(again.get_weights(), model.get_weights()):
        rounded = ours.astype(dtype)  # as the others are: a layer scale, which stays in float32
        np.testing.assert_array_equal(rounded.astype("float32"), theirs.astype("float32"))


def test_the_legacy_form_holds_no_bfloat16(tmp_path):
    with pytest.raises(ValueError, match="bfloat16"):
        save_checkpoint(toy(), tmp_path / "x.h5", dtype="bfloat16")
    assert list(tmp_path.iterdir()) == []


def test_an_optimizer_and_random_generators_are_left_in_the_file(path, tmp_path):
    image = keras.layers.RandomFlip()(keras.Input((32, 32, 3)))
    model = toy(input_tensor=image, drop_path_rate=0.1)
    model.compile("adamw", "sparse_categorical_crossentropy")
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "x.keras")
    with zipfile.ZipFile(tmp_path / "x.keras") as archive:
        path.write_bytes(archive.read("model.weights.h5"))
    with h5py.File(path, "a") as file:
        assert "optimizer" in file
        file["layers/random_flip/seed_generator/vars/0"] = np.zeros(2, "uint32")
    again = toy()
    load_checkpoint(again, path)
    assert_same_weights(again, model)


def test_a_model_saved_whole_in_the_legacy_form(tmp_path):
    model = toy()
    model.compile("sgd", "sparse_categorical_crossentropy")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(tmp_path / "x.h5")
    again = toy(weights=tmp_path / "x.h5")
    assert_same_weights(again, model)


def test_the_builder_fits_the_file_as_it_does_a_pth(path):
    model = with_random_weights(toy())
    model.save_weights(path)
    with pytest.warns(UserWarning, match="5 classes, but the model has 3"):
        fresh = toy(weights=path, classes=3)
    np.testing.assert_array_equal(fresh.get_layer("norm").gamma, model.get_layer("norm").gamma)
    assert [w.path for w in toy(weights=path, include_top=False).weights][-1].startswith("stages_1")
    gray = toy(weights=path, input_shape=(32, 32, 1)).get_layer("stem_conv").kernel
    np.testing.assert_allclose(
        gray, np.sum(model.get_layer("stem_conv").kernel, axis=2, keepdims=True), rtol=1e-6
    )


def test_a_misfit_is_refused_and_nothing_is_loaded(path):
    with_random_weights(toy((1, 1))).save_weights(path)
    model = toy()
    before = model.get_weights()
    with pytest.raises(CheckpointError, match=r"depths \(1, 1\).*depths \(1, 2\).*x\.weights\.h5"):
        load_checkpoint(model, path)
    damaged = with_random_weights(toy())
    damaged.get_layer("norm").beta.assign(np.full(16, np.nan))
    damaged.save_weights(path)
    with pytest.raises(CheckpointError, match=r"norm\.1 contains NaN"):
        load_checkpoint(model, path)
    for ours, theirs in zip(model.get_weights(), before):
        np.testing.assert_array_equal(ours, theirs)


def test_the_network_in_a_model_around_it_is_found(path):
    trunk = toy(include_top=False, pooling="avg")
    keras.Sequential([trunk, keras.layers.Dense(2)]).save_weights(path)
    assert identify(path).classes == 2
    assert_same_weights(toy(weights=path, include_top=False, pooling="avg"), trunk)


def test_of_several_dense_layers_none_is_the_head(path):
    trunk = toy(include_top=False, pooling="avg")
    first = keras.layers.Dense(7)(trunk.output)
    keras.Model(trunk.input, keras.layers.Dense(2)(first)).save_weights(path)
    assert identify(path).classes is None
    with pytest.warns(UserWarning, match=r"ignored 4 other tensors: .*layers/dense_1/vars/0"):
        assert_same_weights(toy(weights=path, include_top=False, pooling="avg"), trunk)
    trunk.save_weights(path)
    with h5py.File(path, "a") as file:
        file["layers/block_7/vars/0"] = file["layers/block/vars/0"][()]
    with pytest.raises(CheckpointError, match=r"unknown tensors: layers/block_7"):
        toy(weights=path, include_top=False, pooling="avg")


def test_a_missing_layer_is_told(path):
    toy((2, 2)).save_weights(path)
    with h5py.File(path, "a") as file:
        del file["layers/block_1/pwconv2"]
    with pytest.raises(CheckpointError, match="stages_0_blocks_1/pwconv2/kernel"):
        toy((2, 2), weights=path)
    with h5py.File(path, "a") as file:
        del file["layers/block_1/dwconv"]
    with pytest.raises(CheckpointError, match=r"blocks do not tell|Missing from the checkpoint"):
        toy((2, 2), weights=path)


def test_a_copy_under_another_name_is_the_same(path, tmp_path):
    with_random_weights(toy()).save_weights(path)
    shutil.copy(path, tmp_path / "model.h5")
    assert_same_weights(toy(weights=tmp_path / "model.h5"), toy(weights=path))
