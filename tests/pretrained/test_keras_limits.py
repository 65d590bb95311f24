"""A `.keras` file costs what an honest one of its size costs, whatever its configuration says."""

import io
import json
import random
import threading
import time
import zipfile
from contextlib import suppress

import h5py
import keras
import numpy as np
import pytest
from keras import layers

import keras_convnext
from keras_convnext import CheckpointError
from keras_convnext.pretrained.keras_limits import Limits
from keras_convnext.pretrained.keras_model import load_keras_model


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """Members of the files of a few models, by name."""
    folder = tmp_path_factory.mktemp("honest")
    image = keras.Input((8, 8, 3))
    models = {
        "dense": keras.Sequential([keras.Input((4,)), layers.Dense(2)]),
        "conv": keras.Sequential([image, layers.Conv2D(2, 3), layers.Flatten()]),
        "padding": keras.Sequential([keras.Input((8, 8, 3)), layers.ZeroPadding2D(1)]),
        "reshape": keras.Sequential([keras.Input((4,)), layers.Reshape((2, 2))]),
        "embedding": keras.Sequential([keras.Input((4,)), layers.Embedding(3, 2)]),
        "augment": keras.Sequential([keras.Input((8, 8, 3)), layers.RandAugment()]),
        "block": keras_convnext.ConvNeXt(
            (1,), (8,), include_top=False, weights=None, input_shape=(32, 32, 3)
        ),
    }
    inputs = keras.Input((4,))
    models["functional"] = keras.Model(inputs, layers.Dense(4, name="d")(inputs))
    found = {}
    for name, model in models.items():
        model.save(folder / "x.keras")
        with zipfile.ZipFile(folder / "x.keras") as archive:
            found[name] = {each: archive.read(each) for each in archive.namelist()}
    return found


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.keras"


def write(path, members, change=None, weights=None):
    """Writes a file with a changed configuration, and perhaps other weights."""
    config = json.loads(members["config.json"])
    if change is not None:
        config = change(config) or config
    members = {**members, "config.json": json.dumps(config).encode()}
    if weights is not None:
        members["model.weights.h5"] = weights
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def set_last(**changes):
    """Changes the arguments of the last layer that has one of them."""

    def change(config):
        *_, layer = (each for each in config["config"]["layers"] if {*changes} & {*each["config"]})
        layer["config"].update(changes)

    return change


MANY = 20_000_000
WEIGHTS = {
    "units": ("dense", {"units": MANY}),
    "filters": ("conv", {"filters": MANY}),
    "kernel": ("conv", {"kernel_size": [8, 8], "filters": MANY // 8}),
    "rows": ("embedding", {"input_dim": MANY}),
    "dim": ("block", {"dim": 50_000}),
}


@pytest.mark.parametrize(("model", "sizes"), WEIGHTS.values(), ids=WEIGHTS)
def test_weights_that_the_file_does_not_contain_are_not_allocated(model, sizes, honest, path):
    write(path, honest[model], set_last(**sizes))
    with pytest.raises(CheckpointError, match=r"more weights than the file contains.*x\.keras"):
        load_keras_model(path)


def test_ten_billion_units_are_refused(honest, path):
    for units in (10**10, 1e10):
        write(path, honest["dense"], set_last(units=units))
        with pytest.raises(CheckpointError, match=r"x\.keras"):
            load_keras_model(path)


MAPS = {
    "padding": ("padding", {"padding": [[0, 10**5], [0, 10**5]]}),
    "input": ("conv", {"batch_shape": [None, 10**5, 10**5, 3]}),
}


@pytest.mark.parametrize(("model", "sizes"), MAPS.values(), ids=MAPS)
def test_feature_maps_have_a_limit(model, sizes, honest, path):
    write(path, honest[model], set_last(**sizes))
    with pytest.raises(CheckpointError, match=r"A feature map has more .*x\.keras"):
        load_keras_model(path)


def test_a_shape_that_does_not_fit_is_one_error(honest, path):
    write(path, honest["reshape"], set_last(target_shape=[10**9, 10**9]))
    with pytest.raises(CheckpointError, match=r"x\.keras"):
        load_keras_model(path)


def test_a_number_of_repetitions_has_a_limit(honest, path):
    write(path, honest["augment"], set_last(num_ops=10**6))
    with pytest.raises(CheckpointError, match=r"RandAugment with num_ops=1000000, more than"):
        load_keras_model(path)
    write(path, honest["augment"], set_last(num_ops=1))
    assert load_keras_model(path).layers[0].num_ops == 1


def tensor_of(layer, node):
    inner = {"shape": [None, 4], "dtype": "float32", "keras_history": [layer, node, 0]}
    return {"class_name": "__keras_tensor__", "config": inner}


def twice(config):
    """Returns a model that calls another twice."""
    entries = config["config"]["layers"]
    source = next(each for each in entries if each["class_name"] == "InputLayer")
    calls = [("in", 0), ("inner", 0)]
    inner = {**config, "name": "inner", "inbound_nodes": [
        {"args": [tensor_of(*call)], "kwargs": {}} for call in calls
    ]}  # fmt: skip
    inner["config"] = {**config["config"], "name": "inner"}
    outer = {**source, "name": "in", "config": {**source["config"], "name": "in"}}
    model = {"name": "m", "trainable": True, "layers": [outer, inner],
             "input_layers": [["in", 0, 0]], "output_layers": [["inner", 1, 0]]}  # fmt: skip
    return {**config, "config": model}


def test_models_that_call_models_twice_are_counted(honest, path):
    def nested(times):
        def change(config):
            config.pop("compile_config", None)
            for _ in range(times):
                config = twice(config)
            return config

        return change

    write(path, honest["functional"], nested(2))
    with pytest.raises(CheckpointError, match="could not be loaded"):  # the graph was built
        load_keras_model(path)
    write(path, honest["functional"], nested(40))
    with pytest.raises(CheckpointError, match=r"calls its layers more than 3,000 times.*x\.keras"):
        load_keras_model(path)


def test_layers_are_called_on_tensors_and_in_order(honest, path):
    constant = {"class_name": "__tensor__", "config": {"value": [[0.0] * 4], "dtype": "float32"}}

    def without_input(config):
        config["config"]["layers"][-1]["inbound_nodes"] = [{"args": [constant], "kwargs": {}}]

    write(path, honest["functional"], without_input)
    with pytest.raises(CheckpointError, match=r"without an input tensor.*x\.keras"):
        load_keras_model(path)

    def waiting(config):
        config["config"]["layers"][-1]["inbound_nodes"] = [
            {"args": [tensor_of("d", 0)], "kwargs": {}}
        ]

    write(path, honest["functional"], waiting)
    with pytest.raises(CheckpointError, match=r"wait for inputs that no layer makes.*x\.keras"):
        load_keras_model(path)
    write(
        path, honest["functional"],
        lambda config: config["config"]["layers"].append(config["config"]["layers"][-1]),
    )  # fmt: skip
    with pytest.raises(CheckpointError, match=r"have the same name.*x\.keras"):
        load_keras_model(path)

    def chain(count, backwards):
        def change(config):
            source, layer = config["config"]["layers"]
            entries = [
                {**layer, "name": f"d{each}", "config": {**layer["config"], "name": f"d{each}"},
                 "inbound_nodes": [{"args": [tensor_of(f"d{each - 1}" if each else source["name"],
                                                       0)], "kwargs": {}}]}
                for each in range(count)
            ]  # fmt: skip
            config["config"]["layers"] = [source, *entries[:: -1 if backwards else 1]]

        return change

    write(path, honest["functional"], chain(1000, backwards=True))
    with pytest.raises(CheckpointError, match="not in the order in which they run"):
        load_keras_model(path)


def test_a_state_of_a_seed_generator_is_checked_too(honest, path):
    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        # is only stored once it is written
        file.create_dataset("layers/rand_augment/seed_generator/vars/0", (10**9,), "uint32")
    write(path, honest["augment"], weights=weights.getvalue())
    with pytest.raises(CheckpointError, match="claims more bytes than the file"):
        load_keras_model(path)


def nodes_of(config, found):
    """Lists the dicts and lists in a configuration."""
    if isinstance(config, dict | list):
        found.append(config)
        for each in config.values() if isinstance(config, dict) else config:
            nodes_of(each, found)
    return found


VALUES = (None, -1, 0, 3, 1e10, 10**9, 10**30, float("inf"), "", "x", [], [[]], {}, True,
          [10**9] * 3,
          {"class_name": "Dense", "config": None, "module": "keras.layers"})  # fmt: skip


def test_damage_to_a_configuration_is_one_error_that_names_the_file(honest, path):
    rng = random.Random(0)

    def damaged(config):
        place = rng.choice(nodes_of(config, []))
        keys = [*place] if isinstance(place, dict) else range(len(place))
        key = rng.choice(keys or [0])
        if not keys:
            return
        if rng.random() < 0.3:
            del place[key]
        else:
            place[key] = rng.choice(VALUES)

    began, errors = time.process_time(), []
    for number in range(150):
        write(path, honest[("dense", "conv", "functional", "embedding")[number % 4]], damaged)
        with suppress(CheckpointError):
            try:
                load_keras_model(path)
            except Exception as error:
                errors.append(error)
                raise
    assert 50 < len(errors) < 150
    assert all(str(error).count(str(path)) == 1 for error in errors)
    assert all(len(str(error)) < 1000 + len(str(path)) for error in errors)
    assert time.process_time() - began < 60


@pytest.mark.parametrize("name", [["x"], "x" * 10**6, {"x": 1}])
def test_a_class_without_a_name_is_one_short_error(name, honest, path):
    write(path, honest["dense"], lambda config: config.update(class_name=name))
    with pytest.raises(CheckpointError, match=r"x\.keras") as caught:
        load_keras_model(path)
    assert len(str(caught.value)) < 600


def test_deep_nesting_is_one_error(honest, path):
    for value in ("[" * 900 + "]" * 900, '{"a":' * 900 + "1" + "}" * 900):
        text = honest["dense"]["config.json"].decode().replace('"units": 2', f'"units": {value}')
        with zipfile.ZipFile(path, "w") as archive:
            for each, content in {**honest["dense"], "config.json": text.encode()}.items():
                archive.writestr(each, content)
        with pytest.raises(CheckpointError, match=r"x\.keras"):
            load_keras_model(path)


def test_the_classes_of_a_nested_compiled_model_are_checked(honest, path):
    def change(config):
        inner = twice(config)
        inner["config"]["layers"][-1]["compile_config"] = {
            "optimizer": {"class_name": "system", "module": "os", "config": {}}
        }
        return inner

    write(path, honest["functional"], change)
    with pytest.raises(CheckpointError, match="the class 'system'"):
        load_keras_model(path)


@keras.saving.register_keras_serializable("test_keras_limits")
class Scaled(layers.Layer):
    """A layer of a user, with a variable made from an array and one by an initializer."""

    def build(self, _):
        self.fixed = keras.Variable(np.full(3, 2.0, "float32"), trainable=False, name="fixed")
        self.scale = self.add_weight(shape=(3,), initializer="ones", name="scale")

    def call(self, x):
        return x * self.scale * self.fixed


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "mixed_float16"])
def test_honest_models_are_loaded_as_by_keras(dtype, path):
    trunk = keras_convnext.ConvNeXt(
        (1, 1), (8, 16), include_top=False, weights=None, input_shape=(32, 32, 3), pooling="avg"
    )
    trunk.compile("adam", "mse")
    model = keras.Sequential([
        keras.Input((32, 32, 3)), layers.RandomFlip(), Scaled(dtype=dtype), trunk,
        layers.Dense(3, dtype=dtype),
    ])  # fmt: skip
    model.compile("adam", "mse")
    for each in (trunk, model):
        each.optimizer.build(each.trainable_variables)
    model.save(path)
    ours, theirs = load_keras_model(path), keras.models.load_model(path, compile=False)
    assert not ours.compiled
    for one, other in zip(ours.weights, theirs.weights, strict=True):
        assert one.path.split("/")[-1] == other.path.split("/")[-1]
        np.testing.assert_array_equal(one.numpy(), other.numpy())


def test_the_limits_are_those_of_one_thread_and_one_load():
    limits, made = Limits(0), []
    with limits.kept():
        other = threading.Thread(target=lambda: made.append(keras.Variable(np.zeros(1 << 17))))
        other.start()
        other.join()
        with pytest.raises(CheckpointError, match="more weights"):
            keras.Variable("zeros", shape=(1 << 17,))
        with pytest.raises(CheckpointError, match="takes more than 100,000 tensors"):
            [keras.KerasTensor((1,)) for _ in range(100_001)]
    assert made[0].shape == (1 << 17,)
    assert keras.Variable("zeros", shape=(1 << 17,)).shape == (1 << 17,)
    assert "__init__" not in vars(keras.Variable)
