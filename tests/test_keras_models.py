"""`.keras` files, of networks and of models around them: as models, as checkpoints, and hostile."""

import io
import json
import os
import zipfile
from contextlib import suppress

import h5py
import keras
import numpy as np
import pytest
from keras import layers
from test_nested_models import (
    assert_close,
    augmentation_in_a_sequential,
    augmented,
    dense,
    image,
    made,
    of_bytes,
    outputs,
    own_head,
    own_pooling,
    own_rescaling,
    pixels_for,
    siamese,
    trunk,
    two_dense,
    two_levels_deep,
    two_outputs,
    two_trunks_of_the_same_names,
    with_lora,
    with_top,
)

import keras_convnext
from keras_convnext import CheckpointError, convert, identify, load_checkpoint, load_model
from keras_convnext.pretrained.keras_file import read_keras
from keras_convnext.pretrained.keras_model import load_keras_model

NESTED = [augmented, augmentation_in_a_sequential, own_head, of_bytes, two_levels_deep, with_top]


def plain(**options):
    return trunk(include_top=True, **{"classes": 5, **options})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.keras"


def saved(make, path):
    model = made(make)
    model.save(path)
    return model


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5"])
@pytest.mark.parametrize("make", [*NESTED, with_lora, own_rescaling])
def test_the_network_in_a_model_is_told_by_its_file(make, suffix, tmp_path):
    model, path = made(make), tmp_path / f"x{suffix}"
    model.save(path) if suffix == ".keras" else model.save_weights(path)
    variant, classes, *_ = identify(path)
    assert (variant.depths, variant.dims, classes) == ((1, 1), (8, 16), 3)


def files_of_nested_models():
    """Each model in both kinds of file, of which one is tested by default."""
    for number, make in enumerate([*NESTED, with_lora]):
        for kind, suffix in enumerate((".keras", ".weights.h5")):
            marks = [] if number % 2 == kind else [pytest.mark.slow]
            yield pytest.param(make, suffix, marks=marks)


@pytest.mark.parametrize(("make", "suffix"), list(files_of_nested_models()))
def test_a_nested_file_fills_a_plain_network(make, suffix, tmp_path):
    model, path = made(make), tmp_path / f"x{suffix}"
    model.save(path) if suffix == ".keras" else model.save_weights(path)
    network = plain(classes=3)
    load_checkpoint(network, path)
    pixels = pixels_for(model)
    assert_close(outputs(network, pixels), outputs(model, pixels))


@pytest.mark.parametrize("make", [own_pooling, two_dense, two_outputs])
def test_of_other_heads_the_trunk_is_loaded(make, path):
    model = saved(make, path)
    assert identify(path).classes is None
    other = make()
    load_checkpoint(other, path)
    ours, theirs = (keras_convnext.trunks.trunk_of(each).model.get_weights()
                    for each in (other, model))  # fmt: skip
    assert_close(ours, theirs)


@pytest.mark.parametrize("make", [*NESTED, own_pooling, own_rescaling, siamese, two_outputs])
def test_a_model_comes_back_as_it_was(make, path):
    model = saved(make, path)
    again = load_model(path)
    assert not again.compiled
    assert_close(outputs(again, pixels_for(model)), outputs(model, pixels_for(model)))
    without = load_model(path, include_top=False)
    features = (None, 16) if make is not own_pooling else (None, 4, 4, 16)
    assert without.output_shape == features


def test_the_options_of_a_builder_are_honoured(path):
    model = saved(plain, path)
    larger = load_model(path, input_shape=(64, 96, 3))
    assert larger.input_shape == (None, 64, 96, 3)
    assert_close(larger.get_weights(), model.get_weights())
    assert load_model(path, model="convnext").name == model.name
    logits = load_model(path, classifier_activation=None)
    assert_close([keras.ops.softmax(x) for x in outputs(logits, pixels_for(model))],
                 outputs(model, pixels_for(model)))  # fmt: skip
    assert load_model(path, include_top=False, pooling="max").output_shape == (None, 16)
    regularized = load_model(path, drop_path_rate=0.5)
    assert regularized.get_layer("stages_1_blocks_0").drop_path.rate == 0.5


def test_what_is_not_asked_for_stays_as_in_the_file(path):
    options = {"classifier_activation": "sigmoid", "drop_path_rate": 0.2, "name": "mine"}
    saved(lambda: plain(include_preprocessing=False, input_shape=(32, 48, 1), **options), path)
    again = load_model(path, drop_path_rate=0.0)
    assert again.input_shape == (None, 32, 48, 1)
    assert "mine_normalization" not in {layer.name for layer in again.layers}
    assert again.get_layer("mine_predictions").activation is keras.activations.sigmoid


def test_other_classes_keep_the_trunk_and_a_head_to_be_trained(path):
    model = saved(plain, path)
    for load in (
        lambda: load_model(path, classes=7),
        lambda: trunk(include_top=True, weights=path, classes=7),
    ):
        with pytest.warns(UserWarning, match="has 5 classes, but the model has 7"):
            network = load()
        assert network.output_shape == (None, 7)
        assert_close(network.get_weights()[:-2], model.get_weights()[:-2])
        assert np.std(network.get_weights()[-2]) > 0.01
    assert trunk(include_top=True, weights=path).output_shape == (None, 5)


def test_another_network_or_an_entry_is_refused(path):
    saved(plain, path)
    with pytest.raises(CheckpointError, match="checkpoint of convnext, not of convnext_xlarge"):
        load_model(path, model="convnext_xlarge")
    with pytest.raises(CheckpointError, match="no entries"):
        load_model(path, entry="model_ema")


@pytest.mark.parametrize(
    ("make", "named"),
    [(own_rescaling, "rescaling"), (two_dense, r"dense\S*, classes"), (siamese, "2 inputs")],
)
def test_layers_that_no_builder_makes_are_named_if_options_are_given(make, named, path):
    saved(make, path)
    with pytest.raises(CheckpointError, match=rf"{named}.*without other arguments"):
        load_model(path, input_shape=(64, 64, 3))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".weights.h5", ".h5", ".keras"])
def test_a_nested_file_is_converted(suffix, path, tmp_path):
    model = saved(two_levels_deep, path)
    target = tmp_path / f"y{suffix}"
    convert(path, target)
    again = load_model(target, **({} if suffix == ".keras" else {"input_shape": (32, 32, 3)}))
    assert_close(outputs(again, pixels_for(model)), outputs(model, pixels_for(model)))


def test_a_quantized_file_is_refused_as_a_checkpoint(path, no_garbage_collection):
    model = augmented()
    model.quantize("int8")
    model.save(path)
    with pytest.raises(CheckpointError, match="is quantized"):
        identify(path)
    assert_close(outputs(load_model(path), pixels_for(model)), outputs(model, pixels_for(model)))


def test_a_file_of_two_networks_is_refused_as_a_checkpoint(path):
    saved(two_trunks_of_the_same_names, path)
    with pytest.raises(CheckpointError, match=r"contains ConvNeXts .*Choose one with prefix="):
        identify(path)


def test_what_is_to_be_ignored_in_a_keras_file_is(path):
    saved(
        lambda: keras_convnext.ConvNeXt((1, 1), (8, 16), input_shape=(32, 32, 3), classes=3), path
    )
    assert load_model(path, ignore="layers/dense/*").output_shape == (None, 16)
    with pytest.raises(CheckpointError, match="no ConvNeXt with the prefix 'nope'"):
        load_model(path, prefix="nope")
    saved(two_dense, path)
    with pytest.raises(CheckpointError, match="without other arguments"):
        load_model(path, ignore="layers/dense/*")


@pytest.mark.parametrize("name", ["dense", "classes", "my_head"])
def test_a_legacy_file_has_the_one_dense_around_a_network(name, tmp_path):
    head = dense(name=name)
    model = made(lambda: keras.Sequential([image(), layers.RandomFlip(), trunk(), head]))
    path = tmp_path / "x.h5"
    model.save(path)
    assert (identify(path).classes, identify(path).ignored) == (3, ())
    again = load_model(path, input_shape=(32, 32, 3))
    assert_close(outputs(again, pixels_for(model)), outputs(model, pixels_for(model)))


def test_a_legacy_file_has_other_layers_around_a_network(tmp_path):
    head = [layers.Dense(7, name="hidden"), layers.BatchNormalization(name="bn"), dense()]
    model = made(lambda: keras.Sequential([image(), trunk(), *head]))
    model.save(tmp_path / "x.h5")
    found = identify(tmp_path / "x.h5")
    assert (found.classes, found.variant.depths, len(found.ignored)) == (None, (1, 1), 8)


def test_a_model_without_a_network_is_refused(path):
    keras.Sequential([keras.Input((4,)), layers.Dense(2)]).save(path)
    with pytest.raises(CheckpointError, match=r"Not a ConvNeXt.*x\.keras"):
        identify(path)


class Unknown(layers.Layer):
    def call(self, x):
        return 2 * x


def test_an_unknown_layer_is_named(path):
    keras.Sequential([image(), trunk(), Unknown(), dense()]).save(path)
    with pytest.raises(
        CheckpointError, match=r"uses the class 'Unknown'.*register_keras_serializable"
    ):
        load_model(path)
    assert identify(path).classes == 3


def test_a_registered_layer_is_known(path):
    kind = keras.saving.register_keras_serializable("test_keras_models")(
        type("Registered", (Unknown,), {})
    )
    saved(lambda: keras.Sequential([image(), trunk(), kind(), dense()]), path)
    assert load_model(path).output_shape == (None, 3)


def changed(path, change):
    """Writes the archive again, with its configuration changed."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    change(config)
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


@pytest.mark.parametrize(
    "hostile",
    [
        {"module": "keras.layers", "class_name": "Lambda", "config": {}},
        {"module": "os", "class_name": "system", "config": {}},
        {"module": "builtins", "class_name": "function", "config": "exec"},
        {"module": "keras.utils", "class_name": "function", "config": "get_file"},
        {"module": "kerasx", "class_name": "Layer", "config": {}},
        {"module": None, "class_name": "__lambda__", "config": {"value": "x"}},
        {"module": "keras.layers", "class_name": "TFSMLayer", "config": {"filepath": "/"}},
        {"class_name": ["Dense"], "config": {}},
    ],
)
def test_what_would_run_is_refused_before_keras_sees_it(hostile, path, monkeypatch):
    saved(plain, path)
    changed(path, lambda config: config["config"]["layers"][2]["config"].update(x=hostile))
    monkeypatch.setattr(keras.models, "load_model", lambda *a, **k: pytest.fail("was loaded"))
    with pytest.raises(CheckpointError, match=r"x\.keras"):
        load_model(path)


def test_names_in_a_file_cannot_write_to_the_terminal(path):
    saved(plain, path)
    changed(path, lambda config: config.update(class_name="\x1b[31m" + "x" * 1000, module="evil"))
    with pytest.raises(CheckpointError) as caught:
        load_model(path)
    assert "\x1b" not in str(caught.value)
    assert len(str(caught.value)) < 600


def test_damaged_archives_are_told_as_such(path, tmp_path):
    saved(plain, path)
    whole = path.read_bytes()
    draw = np.random.default_rng(0)
    damaged = [b"", b"PK", whole[:-30], whole[: len(whole) // 2], b"text" + whole]
    for _ in range(60):
        spoilt = bytearray(whole)
        for place in draw.integers(0, len(whole), 40):
            spoilt[place] = draw.integers(256)
        damaged.append(bytes(spoilt))
    for content in damaged:
        path.write_bytes(content)
        for read in (read_keras, identify):
            with suppress(CheckpointError):
                read(path)
    path.write_bytes(b"PK")
    for read in (identify, load_model):
        with pytest.raises(CheckpointError, match=r"Not a valid \.keras file"):
            read(path)


def test_weights_that_are_compressed_or_absent_are_refused(path):
    saved(plain, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    with pytest.raises(CheckpointError, match="compressed"):
        identify(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", members["config.json"])
    with pytest.raises(CheckpointError, match=r"no model\.weights\.h5"):
        identify(path)


@pytest.mark.parametrize(
    ("content", "compression", "said"),
    [
        (b" " * (9 << 20), zipfile.ZIP_DEFLATED, "unpacks to far more bytes"),
        (b" " * (9 << 20), zipfile.ZIP_STORED, "larger than 8 MiB"),
        (b"[" * 100_000, zipfile.ZIP_STORED, r"Not a valid \.keras"),
    ],
    ids=["bomb", "long", "deep"],
)
def test_a_configuration_that_grows_or_nests_without_end_is_refused(
    path, content, compression, said
):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("config.json", content)
    with pytest.raises(CheckpointError, match=said):
        load_model(path)


def test_assets_that_grow_without_end_are_refused(path):
    saved(plain, path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("assets/layer/words.txt", b"a" * 20 * path.stat().st_size)
    with pytest.raises(CheckpointError, match="unpacks to far more bytes"):
        load_model(path)


def test_weights_that_claim_more_than_the_file_are_refused_before_keras_allocates_them(path):
    saved(lambda: keras.Sequential([keras.Input((2,)), layers.Dense(1)]), path)
    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        group = file.create_group("layers/dense/vars")
        group.create_dataset("0", (2, 10**9), "float32")  # is only stored once it is written
        group.create_dataset("1", data=np.zeros(1, "float32"))
    with zipfile.ZipFile(path) as archive:
        config = archive.read("config.json")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", config)
        archive.writestr("model.weights.h5", weights.getvalue())
    with pytest.raises(CheckpointError, match="claims more bytes than the file"):
        load_keras_model(path)


def test_reading_leaves_the_numbers_in_the_file(path):
    model = saved(plain, path)
    tensors = read_keras(path)
    assert sum(np.prod(tensor.shape) for tensor in tensors.values()) == model.count_params()
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(CheckpointError, match="truncated while"):
        [tensor.read() for tensor in tensors.values()]
