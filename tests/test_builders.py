import inspect
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_convnext
from keras_convnext.block import Block
from keras_convnext.builders import BUILDERS

TOY = {"depths": (1, 2), "dims": (8, 16), "classes": 5}


def toy(**options):
    return keras_convnext.ConvNeXt(**{**TOY, "input_shape": (32, 32, 3), **options})


def images(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape).astype("float32")


@pytest.fixture
def policy():
    before = keras.config.dtype_policy()
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy(before)


def test_every_variant_has_an_exported_builder_of_its_name():
    names = {builder.__name__: builder for builder in BUILDERS.values()}
    assert len(names) == len(BUILDERS) == 29
    for name, builder in names.items():
        assert getattr(keras_convnext, name) is builder
        assert name in keras_convnext.__all__
        assert "depths" in inspect.getdoc(builder)


def test_signature_begins_as_keras_applications_does():
    theirs = inspect.signature(keras.applications.ConvNeXtTiny).parameters
    ours = inspect.signature(keras_convnext.ConvNeXtTiny).parameters
    assert list(ours)[: len(theirs)] == list(theirs)
    defaults = {name: parameter.default for name, parameter in theirs.items()}
    # None stands for their 1000, and for the 21,841 of weights that have so many.
    assert {name: ours[name].default for name in theirs} == {**defaults, "classes": None}


def test_layer_names_and_weight_shapes_are_the_contract():
    shapes = {weight.path: tuple(weight.shape) for weight in toy().weights}
    block = {
        "dwconv/kernel": (7, 7, 16, 1), "dwconv/bias": (16,),
        "norm/gamma": (16,), "norm/beta": (16,),
        "pwconv1/kernel": (16, 64), "pwconv1/bias": (64,),
        "pwconv2/kernel": (64, 16), "pwconv2/bias": (16,),
        "gamma": (16,),
    }  # fmt: skip
    assert {k: v for k, v in shapes.items() if k.startswith("stages_1_blocks_1/")} == {
        f"stages_1_blocks_1/{name}": shape for name, shape in block.items()
    }
    assert {k: v for k, v in shapes.items() if not k.startswith("stages")} == {
        "stem_conv/kernel": (4, 4, 3, 8), "stem_conv/bias": (8,),
        "stem_norm/gamma": (8,), "stem_norm/beta": (8,),
        "downsample_1_norm/gamma": (8,), "downsample_1_norm/beta": (8,),
        "downsample_1_conv/kernel": (2, 2, 8, 16), "downsample_1_conv/bias": (16,),
        "norm/gamma": (16,), "norm/beta": (16,),
        "head/kernel": (16, 5), "head/bias": (5,),
    }  # fmt: skip


def test_weights_file_addresses_are_the_contract(tmp_path):
    h5py = pytest.importorskip("h5py")
    toy(drop_path_rate=0.1).save_weights(tmp_path / "toy.weights.h5")
    with h5py.File(tmp_path / "toy.weights.h5") as file:
        classes = {name.rstrip("_0123456789") for name in file["layers"]}
        within = set(file["layers/block_2"])
    assert classes >= {"patch_conv2d", "layer_normalization", "block", "dense"}
    assert within == {"vars", "dwconv", "norm", "pwconv1", "pwconv2", "drop_path"}


@pytest.mark.parametrize(
    ("shape", "last"),
    [((32, 32), (1, 1)), ((33, 47), (1, 1)), ((64, 96), (2, 3)), ((75, 224), (2, 7))],
    ids=str,
)
@pytest.mark.parametrize("fixed", [True, False], ids=["fixed", "any-size"])
def test_any_height_and_width_from_32(shape, last, fixed):
    model = keras_convnext.ConvNeXt(
        (1, 1, 1, 1), (4, 4, 4, 8), include_top=False,
        input_shape=(*shape, 3) if fixed else None,
    )  # fmt: skip
    assert model.predict(images(2, *shape, 3), verbose=0).shape == (2, *last, 8)


def test_default_input_shapes_are_those_of_keras_applications():
    assert keras_convnext.ConvNeXtAtto(weights=None).input_shape == (None, 224, 224, 3)
    assert keras_convnext.ConvNeXtCifar(weights=None).input_shape == (None, 32, 32, 3)
    trunk = keras_convnext.ConvNeXtAtto(weights=None, include_top=False)
    assert trunk.input_shape == (None, None, None, 3)


def test_input_tensor_may_be_in_the_middle_of_a_graph():
    start = keras.Input((64, 64, 3))
    model = toy(input_tensor=keras.layers.RandomFlip()(start), include_top=False)
    assert model.input is start
    assert model.predict(images(1, 64, 64, 3), verbose=0).shape == (1, 8, 8, 16)


def test_uint8_pixels_give_the_same_as_float():
    model = toy()
    pixels = images(2, 32, 32, 3)
    same = model.predict(pixels.astype("uint8"), verbose=0)
    np.testing.assert_allclose(same, model.predict(pixels, verbose=0), rtol=1e-6)


def test_preprocessing_in_the_model_is_the_published_normalization():
    with_it, without = toy(), toy(include_preprocessing=False)
    without.set_weights(with_it.get_weights())
    pixels = images(2, 32, 32, 3)
    normalized = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    np.testing.assert_allclose(
        with_it.predict(pixels, verbose=0), without.predict(normalized, verbose=0), rtol=1e-5
    )


@pytest.mark.parametrize("channels", [1, 2, 4, 6])
def test_other_numbers_of_channels(channels):
    model = toy(input_shape=(32, 32, channels))
    assert model.get_layer("stem_conv").kernel.shape == (4, 4, channels, 8)
    assert np.isfinite(model.predict(images(2, 32, 32, channels), verbose=0)).all()


def test_pooling_norms_the_pooled_map():
    outputs = {}
    source = toy()
    for pooling in (None, "avg", "max"):
        model = toy(include_top=False, pooling=pooling)
        model.set_weights(source.get_weights()[: len(model.weights)])
        outputs[pooling] = model.predict(images(2, 32, 32, 3), verbose=0)
    for pooling, pool in (("avg", np.mean), ("max", np.max)):
        pooled = pool(outputs[None], axis=(1, 2))
        centered = pooled - pooled.mean(-1, keepdims=True)
        normed = centered / np.sqrt((centered**2).mean(-1, keepdims=True) + 1e-6)
        np.testing.assert_allclose(outputs[pooling], normed, rtol=1e-3, atol=1e-4)


def test_initialization_is_as_published():
    model = keras_convnext.ConvNeXtNano(weights=None, head_init_scale=0.1)
    kernels = {}
    for weight in model.weights:
        value = keras.ops.convert_to_numpy(weight)
        if value.ndim > 1:
            kernels[weight.path] = value
        else:
            scale = 1 if "norm" in weight.path else 1e-6
            start = scale if weight.name == "gamma" else 0
            np.testing.assert_array_equal(value, np.float32(start))
    for name, kernel in kernels.items():
        expected = 0.002 if name == "head/kernel" else 0.02
        assert abs(kernel.mean()) < 0.1 * expected, name
        assert kernel.std() == pytest.approx(expected, rel=0.08), name
        assert abs(kernel).max() < 2.3 * expected, name
    first, second = (kernels[f"stages_2_blocks_{i}/pwconv1/kernel"] for i in (0, 1))
    assert not np.allclose(first, second)


def test_kernels_of_the_narrow_network_start_by_the_number_of_their_inputs():
    model = keras_convnext.ConvNeXtCifar(weights=None)
    kernels = {weight.path: weight for weight in model.weights}
    for name, inputs in {
        "stem_conv": 2 * 2 * 3,
        "stages_1_blocks_2/dwconv": 5 * 5,
        "stages_1_blocks_2/pwconv1": 256,
        "stages_1_blocks_2/pwconv2": 1024,
        "downsample_1_conv": 2 * 2 * 128,
        "head": 2500,  # 0.02, as in all of them
    }.items():
        kernel = keras.ops.convert_to_numpy(kernels[f"{name}/kernel"])
        assert kernel.std() == pytest.approx(inputs**-0.5, rel=0.06), name


def test_drop_path_rates_rise_linearly_over_all_blocks():
    model = keras_convnext.ConvNeXtTiny(weights=None, drop_path_rate=0.4)
    rates = [layer.drop_path.rate for layer in model.layers if isinstance(layer, Block)]
    assert rates == pytest.approx([i * 0.4 / 17 for i in range(18)])


@pytest.mark.parametrize("value", [None, 0])
def test_layer_scale_can_be_left_out(value):
    model = toy(layer_scale_init_value=value)
    assert all(layer.gamma is None for layer in model.layers if isinstance(layer, Block))
    assert {w.path for w in model.weights} < {w.path for w in toy().weights}


@pytest.mark.parametrize("activation", [None, "softmax", "sigmoid", keras.ops.tanh])
def test_classifier_activation_is_the_one_asked_for(activation):
    logits = toy(classifier_activation=None)
    model = toy(classifier_activation=activation)
    model.set_weights(logits.get_weights())
    pixels = images(2, 32, 32, 3)
    expected = logits.predict(pixels, verbose=0)
    if activation is not None:
        expected = keras.ops.convert_to_numpy(keras.activations.get(activation)(expected))
    np.testing.assert_allclose(model.predict(pixels, verbose=0), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        "float64",
        "mixed_float16",
        "mixed_bfloat16",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("float32", "float16", "bfloat16")),
    ],
)
def test_every_dtype_policy(name, policy):
    reference = toy(layer_scale_init_value=0.3, classifier_activation=None)
    policy(name)
    model = toy(layer_scale_init_value=0.3, classifier_activation=None, drop_path_rate=0.2)
    model.set_weights(reference.get_weights())
    pixels = images(4, 32, 32, 3)
    theirs = reference.predict(pixels, verbose=0)
    ours = model.predict(pixels, verbose=0)
    assert ours.dtype == ("float64" if name == "float64" else "float32")
    tolerance = 1e-5 if "32" in name or "64" in name else 0.05
    assert np.abs(ours - theirs).max() < tolerance * np.abs(theirs).max()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    loss = model.fit(pixels, np.arange(4), verbose=0).history["loss"][0]
    assert np.isfinite(loss)


@pytest.mark.slow  # test_lazy_import.py loads files in such processes by default
def test_keras_file_loads_in_a_process_that_only_imported_the_package(tmp_path):
    model = toy(drop_path_rate=0.1, layer_scale_init_value=0.3)
    pixels = images(2, 32, 32, 3)
    model.save(tmp_path / "toy.keras")
    np.save(tmp_path / "pixels.npy", pixels)
    np.save(tmp_path / "expected.npy", model.predict(pixels, verbose=0))
    subprocess.run(
        [
            sys.executable,
            "-c",
            "import keras_convnext, keras, numpy as np\n"
            "model = keras.models.load_model('toy.keras')\n"
            "found = model.predict(np.load('pixels.npy'), verbose=0)\n"
            "np.testing.assert_allclose(found, np.load('expected.npy'), rtol=1e-6)\n",
        ],
        cwd=tmp_path,
        check=True,
    )


def test_clone_has_the_same_layers():
    model = toy(drop_path_rate=0.1)
    clone = keras.models.clone_model(model)
    assert [layer.get_config() for layer in clone.layers] == [
        layer.get_config() for layer in model.layers
    ]
    clone.set_weights(model.get_weights())
    pixels = images(2, 32, 32, 3)
    np.testing.assert_allclose(
        clone.predict(pixels, verbose=0), model.predict(pixels, verbose=0), rtol=1e-6
    )


@pytest.mark.parametrize(("saved", "loaded"), [(0.0, 0.2), (0.2, 0.0)])
def test_keras_weights_load_whatever_the_drop_path_rate(saved, loaded, tmp_path):
    path = tmp_path / "toy.weights.h5"
    model = toy(drop_path_rate=saved)
    model.save_weights(path)
    again = toy(weights=path, drop_path_rate=loaded)
    for ours, theirs in zip(again.get_weights(), model.get_weights()):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"classes": 0}, "classes=0"),
        ({"classes": 2.5}, "classes=2.5"),
        ({"drop_path_rate": -0.1}, "drop_path_rate=-0.1"),
        ({"drop_path_rate": 1.0}, "drop_path_rate=1.0"),
        ({"pooling": "med"}, "pooling=med"),
        ({"layer_scale_init_value": -1e-6}, "layer_scale_init_value=-1e-06"),
        ({"layer_scale_init_value": float("nan")}, "layer_scale_init_value=nan"),
        ({"input_shape": (31, 64, 3)}, r"\(31, 64, 3\)"),
        ({"input_shape": (None, 16, 3)}, r"\(None, 16, 3\)"),
        ({"input_shape": (64, 64)}, r"\(64, 64\)"),
        ({"input_shape": (64, 64, None)}, r"\(64, 64, None\)"),
        ({"input_tensor": np.zeros((1, 64, 64, 3))}, "input_tensor="),
        ({"weights": "imagenet_21k"}, "weights='imagenet_21k'"),
        ({"classifier_activation": "sofmax"}, "sofmax"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_bad_arguments_are_named(options, named):
    with pytest.raises(ValueError, match=named):
        keras_convnext.ConvNeXtAtto(**{"weights": None, **options})


def test_v2_has_no_layer_scale():
    for value in (None, 0):
        trunk = keras_convnext.ConvNeXtV2Atto(
            weights=None, include_top=False, layer_scale_init_value=value
        )
        assert trunk.get_layer("stages_0_blocks_0").gamma is None
    with pytest.raises(ValueError, match=r"V2 has no layer scale.*layer_scale_init_value=1e-06"):
        keras_convnext.ConvNeXtV2Atto(weights=None, layer_scale_init_value=1e-6)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"depths": (1,), "dims": (8, 16)}, "dims"),
        ({"depths": (), "dims": ()}, "depths"),
        ({"depths": (0,), "dims": (8,)}, "depths"),
        ({"depths": (1,), "dims": (8,), "kernel_size": 4}, "kernel_size=4"),
        ({"depths": (1,), "dims": (8,), "patch_size": 0}, "patch_size"),
    ],
    ids=str,
)
def test_bad_networks_are_named(options, named):
    with pytest.raises(ValueError, match=named):
        keras_convnext.ConvNeXt(**options)


def test_isotropic_images_are_two_patches_or_more():
    with pytest.raises(ValueError, match=r"\(16, 16, 3\)"):
        keras_convnext.ConvNeXtIsotropic(1, 8, input_shape=(16, 16, 3))


def test_missing_file_is_found_out_before_the_model_is_built():
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        keras_convnext.ConvNeXtXLarge(weights="nowhere.pth")


def test_channels_first_is_refused():
    keras.config.set_image_data_format("channels_first")
    try:
        with pytest.raises(ValueError, match="channels_first"):
            toy()
    finally:
        keras.config.set_image_data_format("channels_last")


@pytest.mark.parametrize("weights", [False, True, 3, {}, []], ids=repr)
def test_weights_are_named_by_text_or_a_path(weights):
    with pytest.raises(ValueError, match=r"or None for random weights\. Received: weights="):
        toy(weights=weights)


def test_numbers_of_numpy_are_numbers(tmp_path):
    model = toy(
        depths=np.array([1, 2]), dims=np.array([8, 16]), classes=np.int64(5),
        patch_size=np.int32(4), kernel_size=np.uint8(7),
    )  # fmt: skip
    model.save(tmp_path / "x.keras")
    assert keras.models.load_model(tmp_path / "x.keras").output_shape == (None, 5)
    for classes in (True, 0, np.int64(-1), 2.0, "5"):
        with pytest.raises(ValueError, match=r"positive integer\. Received: classes="):
            toy(classes=classes)


def test_an_unknown_argument_is_an_error_of_the_builder():
    with pytest.raises(TypeError, match=r"^ConvNeXtAtto\(\) got"):
        keras_convnext.ConvNeXtAtto(foo=1)
    with pytest.raises(TypeError, match=r"^ConvNeXtIsotropic\(\) got"):
        keras_convnext.ConvNeXtIsotropic(1, 8, foo=1)
