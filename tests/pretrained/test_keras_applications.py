"""Files of `keras.applications.ConvNeXt*` into models, and a model's into theirs."""

import re

import h5py
import keras
import numpy as np
import pytest
from keras.src.applications.convnext import ConvNeXt as Theirs
from keras.src.legacy.saving import legacy_h5_format

import keras_convnext
from keras_convnext import (
    CheckpointError,
    builders,
    identify,
    load_checkpoint,
    load_model,
    save_checkpoint,
)
from keras_convnext.block import Block
from keras_convnext.variants import VARIANTS

TOLERANCE = 1e-5  # of the largest value
DEPTHS, DIMS = (1, 2, 1, 1), (8, 16, 24, 32)
TOPS = {"top": {}, "no top": {"include_top": False, "pooling": "avg"}}


def theirs(depths=DEPTHS, dims=DIMS, name="mine", seed=0, **options):
    options = {"classes": 5, "input_shape": (64, 64, 3), "weights": None, **options}
    options = {"classifier_activation": None, **options}
    model = Theirs(depths, dims, name=name, **options)
    return with_random_weights(model, seed)


def ours(depths=DEPTHS, dims=DIMS, **options):
    options = {"classes": 5, "input_shape": (64, 64, 3), "classifier_activation": None, **options}
    return keras_convnext.ConvNeXt(depths, dims, **options)


def with_random_weights(model, seed=0):
    """As `torch_reference.randomize`: layer scales of order 0.3, norms other than 1."""
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        value = generator.normal(size=weight.shape)
        if re.search(r"layer_scale|blocks_\d+/gamma", weight.path):
            value *= 0.3
        elif value.ndim > 1:
            value *= np.prod(value.shape[:-1]) ** -0.5
        else:
            value = 0.1 * value + ("gamma" in weight.path)
        weight.assign(value)
    return model


def save(model, path):
    """As `model.save_weights`, which writes no legacy form any more."""
    if path.name.endswith(".weights.h5"):
        model.save_weights(path)
    else:
        with h5py.File(path, "w") as file:
            legacy_h5_format.save_weights_to_hdf5_group(file, model)
    return path


def datasets(path):
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: found.update({name: item[()]} if hasattr(item, "shape") else {})
        )
    return found


def pixels(side=64, channels=3):
    return np.random.default_rng(0).uniform(0, 255, (1, side, side, channels)).astype("float32")


def assert_same_outputs(model, other, side=64, channels=3):
    images = pixels(side, channels)
    pairs = (keras.tree.flatten(each(images, training=False)) for each in (model, other))
    for one, another in zip(*pairs, strict=True):
        one, another = map(keras.ops.convert_to_numpy, (one, another))
        assert np.abs(one - another).max() < TOLERANCE * np.abs(another).max()


def in_order(model):
    """The weights in the order of the computation: ours have the layer scale of a block first."""
    for layer in model.layers:
        weights = list(layer.weights)
        if isinstance(layer, Block) and layer.gamma is not None:
            weights = [*weights[1:], weights[0]]
        yield from map(keras.ops.convert_to_numpy, weights)


def assert_same_weights(one, other):
    """The layers come in one order; depthwise kernels differ by an axis of length 1."""
    for a, b in zip(in_order(one), in_order(other), strict=True):
        np.testing.assert_array_equal(a, b.reshape(a.shape))


@pytest.fixture(params=[".weights.h5", ".h5"])
def path(request, tmp_path):
    return tmp_path / f"theirs{request.param}"


@pytest.mark.parametrize("options", TOPS.values(), ids=TOPS)
def test_a_file_of_theirs_gives_its_numbers_and_comes_back_to_the_bit(options, path):
    network, model = theirs(**options), ours(name="mine", **options)
    load_checkpoint(model, save(network, path))
    assert_same_outputs(model, network)

    written = path.with_name(path.name.replace("theirs", "ours"))
    save_checkpoint(model, written, layout="keras_applications")
    again = theirs(seed=1, **options)
    again.load_weights(written)
    assert_same_weights(again, network)
    back, original = datasets(written), datasets(path)
    if path.suffixes == [".weights", ".h5"]:
        assert back.keys() == original.keys()
    else:  # where layers have names of their own: a scale's variable, a last norm without a head
        own = {name for name in original if "layer_scale" in name or "/layer_norm" in f"/{name}"}
        assert original.keys() - back.keys() <= own
        assert len(back) == len(original)
    assert all(
        back[name].tobytes() == original[name].tobytes() for name in back if name in original
    )


def test_layers_may_be_looked_up_by_their_names(tmp_path):
    model = with_random_weights(ours(name="mine"))
    save_checkpoint(model, tmp_path / "x.h5", layout="keras_applications")
    network, again = theirs(seed=1), ours()
    network.load_weights(tmp_path / "x.h5", by_name=True)
    load_checkpoint(again, save(network, tmp_path / "theirs.h5"))
    assert_same_weights(again, model)


def test_the_file_tells_its_network(path):
    found = identify(save(theirs(), path))
    assert (found.variant.depths, found.variant.dims, found.classes) == (DEPTHS, DIMS, 5)
    assert load_model(path, input_shape=(64, 64, 3)).output_shape == (None, 5)


@pytest.mark.parametrize("scale", [None, 0.3])
def test_layer_scale_may_be_missing(scale, path):
    network = theirs(layer_scale_init_value=scale)
    assert_same_weights(ours(weights=save(network, path), layer_scale_init_value=scale), network)


def test_stages_of_one_width(path):
    network = theirs((1, 2, 1, 1), (8, 8, 8, 16))
    model = ours((1, 2, 1, 1), (8, 8, 8, 16))
    load_checkpoint(model, save(network, path))
    assert_same_weights(model, network)


def test_kernels_of_a_depthwise_convolution_are_taken_too(path):
    network = theirs()
    save(network, path)
    with h5py.File(path, "a") as file:
        grouped = [name for name, array in datasets(path).items() if array.shape[:3] == (7, 7, 1)]
        assert len(grouped) == sum(DEPTHS)
        for name in grouped:
            kernel = file[name][()]
            del file[name]
            file[name] = kernel.transpose(0, 1, 3, 2)
    assert_same_weights(ours(weights=path), network)


def test_the_constants_of_their_normalization_are_skipped_and_no_others(path):
    network = theirs()
    save(network, path)
    legacy = path.name == "theirs.h5"
    place = "mine_prestem_normalization" if legacy else "layers/normalization/vars"
    names = ("mean:0", "variance:0", "count:0") if legacy else ("0", "1", "2")
    with h5py.File(path, "a") as file:
        for name, value in zip(names, (np.zeros(3, "f4"), np.ones(3, "f4"), np.int64(7))):
            file[f"{place}/{name}"] = value
    assert_same_weights(ours(weights=path), network)
    with h5py.File(path, "a") as file:
        inner = "mine_stage_0_block_0_other"  # by its name, where a legacy file has names
        file[f"{inner}/{inner}/kernel" if legacy else "layers/other/vars/0"] = np.zeros(3, "f4")
    with pytest.raises(CheckpointError, match=r"unknown tensors: .*other"):
        ours(weights=path)


def test_the_names_of_published_files(tmp_path):
    """Keras 2 wrote them: a number behind each variable, and no name for that of a scale."""
    network, model = (
        theirs(include_top=False, pooling="avg"),
        ours(include_top=False, pooling="avg"),
    )
    save_checkpoint(with_random_weights(model), tmp_path / "x.h5", layout="keras_applications")
    with h5py.File(tmp_path / "x.h5") as old, h5py.File(tmp_path / "y.h5", "w") as new:
        for name, array in datasets(tmp_path / "x.h5").items():
            group, _, rest = name.partition("/")
            rest = rest.removeprefix(f"{group}/") if group.endswith(("stem", "_0", "_1")) else rest
            name = f"{group}/Variable:0" if "layer_scale" in name else f"{group}/{rest}:0"
            new[name.replace("layer_normalization", "layer_normalization_7")] = array
        new.attrs.update(old.attrs)
    again = ours(weights=tmp_path / "y.h5", include_top=False, pooling="avg")
    assert_same_weights(again, model)
    assert len(network.weights) == len(again.weights)


@pytest.mark.slow
@pytest.mark.parametrize("options", TOPS.values(), ids=TOPS)
def test_tiny_at_its_own_size(options, path):
    network = with_random_weights(
        keras.applications.ConvNeXtTiny(weights=None, classifier_activation=None, **options)
    )
    model = keras_convnext.ConvNeXtTiny(
        weights=save(network, path), classifier_activation=None, **options
    )
    assert_same_outputs(model, network, side=224)
    written = path.with_name(path.name.replace("theirs", "ours"))
    save_checkpoint(model, written, layout="keras_applications")
    again = keras.applications.ConvNeXtTiny(weights=None, **options)
    again.load_weights(written)
    assert_same_weights(again, network)


LIVE = {
    "top": {},
    "logits": {"classifier_activation": None},
    "no top": {"include_top": False},
    "avg": {"include_top": False, "pooling": "avg"},
    "max, any size": {"include_top": False, "pooling": "max", "input_shape": (None, None, 3)},
    "no layer scale": {"layer_scale_init_value": None},
    "normalized outside": {"include_preprocessing": False},
    "four channels": {"input_shape": (64, 64, 4)},
}


@pytest.mark.parametrize("options", LIVE.values(), ids=LIVE)
def test_a_live_model_becomes_ours(options):
    options = {"classifier_activation": "softmax", "drop_path_rate": 0.2, **options}
    network = theirs(**options)
    model = keras_convnext.from_keras_applications(network)
    assert [type(layer) for layer in model.layers if "stages_" in layer.name] == [Block] * 5
    assert model.get_layer("stages_3_blocks_0").drop_path.rate == pytest.approx(0.2)
    assert model.output_shape == network.output_shape
    assert_same_outputs(network, model, channels=network.input_shape[-1])


def test_published_networks_keep_their_names():
    with pytest.MonkeyPatch.context() as patch:
        row = VARIANTS["convnext_tiny"]._replace(depths=DEPTHS, dims=DIMS)
        patch.setitem(VARIANTS, "convnext_tiny", row)
        patch.setitem(builders.BUILDERS, "convnext_tiny", builders._builder(row))
        model = keras_convnext.from_keras_applications(theirs())
    assert model.name == "convnext_tiny"


def nested_in_sequential():
    trunk = theirs(include_top=False, pooling="avg")
    trunk.trainable = False
    return keras.Sequential([
        keras.Input((64, 64, 3)),
        keras.layers.RandomFlip(),
        trunk,
        keras.layers.Dropout(0.1),
        keras.layers.Dense(3, activation="softmax"),
    ])  # fmt: skip


def nested_twice():
    image = keras.Input((64, 64, 3))
    inner = keras.Sequential([theirs(include_top=False), keras.layers.GlobalAveragePooling2D()])
    return keras.Model(image, keras.layers.Dense(2)(inner(image)))


def own_head():
    trunk = theirs(include_top=False, pooling="avg")
    outputs = {"a": keras.layers.Dense(3)(trunk.output), "b": keras.layers.Dense(1)(trunk.output)}
    return keras.Model(trunk.input, outputs)


def on_a_tensor():
    image = keras.Input((64, 64, 3))
    half = keras.layers.Rescaling(0.5)(image)
    return theirs(input_tensor=half, input_shape=(64, 64, 3))


@pytest.mark.parametrize("make", [nested_in_sequential, nested_twice, own_head, on_a_tensor])
def test_a_model_around_theirs_becomes_one_around_ours(make):
    model = make()
    converted = keras_convnext.from_keras_applications(model)
    layers = converted._flatten_layers()
    assert sum(isinstance(layer, Block) for layer in layers) == sum(DEPTHS)
    assert not any("_stage_" in layer.name for layer in layers)
    assert_same_outputs(model, converted)
    assert len(converted.trainable_weights) == len(model.trainable_weights)


def test_what_is_none_of_theirs_is_refused():
    with pytest.raises(ValueError, match=r"no ConvNeXt of keras\.applications.*model=convnext"):
        keras_convnext.from_keras_applications(ours())
    network = theirs()
    probe = keras.Model(
        network.input, [network.output, keras.layers.Flatten()(network.layers[-3].input)]
    )
    with pytest.raises(ValueError, match="uses intermediate outputs of the ConvNeXt"):
        keras_convnext.from_keras_applications(probe)


def test_a_fine_tuned_model_that_was_saved(tmp_path):
    model = nested_in_sequential()
    model.save(tmp_path / "tuned.keras")
    loaded = keras.models.load_model(tmp_path / "tuned.keras")
    assert_same_outputs(keras_convnext.from_keras_applications(loaded), model)
