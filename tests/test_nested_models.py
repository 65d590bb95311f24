"""Models as Keras users build them around a ConvNeXt: everything works, or says what to do."""

import json

import keras
import numpy as np
import pytest
import torch
from keras import layers

import keras_convnext
from keras_convnext import CheckpointError, call_graph, save_checkpoint
from keras_convnext.export import Artifact, export, fuse
from keras_convnext.export.served import served_network
from keras_convnext.saliency import grad_cam

DIMS = (8, 16)
CLASSES = 3


def trunk(**options):
    options = {"include_top": False, "pooling": "avg", "input_shape": (32, 32, 3), **options}
    return keras_convnext.ConvNeXt((1, 1), DIMS, layer_scale_init_value=0.3, **options)


def image(**options):
    return keras.Input((32, 32, 3), **options)


def dense(**options):
    return layers.Dense(CLASSES, **{"activation": "softmax", "name": "classes", **options})


def augmented():
    flips = [layers.RandomFlip(), layers.RandomRotation(0.1), layers.RandomCrop(32, 32)]
    return keras.Sequential([image(), *flips, trunk(), layers.Dropout(0.3), dense()])


def augmentation_in_a_sequential():
    flips = keras.Sequential([layers.RandomFlip(), layers.RandomZoom(0.1)], name="flips")
    x = image()
    features = trunk()(flips(x), training=False)
    return keras.Model(x, dense()(layers.Dropout(0.3)(features)))


def own_head():
    base = trunk()
    return keras.Model(base.input, dense()(base.output))


def own_rescaling():
    base = trunk(include_preprocessing=False)
    return keras.Sequential([image(), layers.Rescaling(1 / 127.5, -1), base, dense()])


def of_bytes():
    x = image(dtype="uint8")
    return keras.Model(x, dense()(trunk()(layers.RandomFlip()(x))))


def own_pooling():
    base = trunk(pooling=None)
    head = [layers.GlobalAveragePooling2D(), layers.BatchNormalization(), layers.Dropout(0.2)]
    return keras.Sequential([image(), base, *head, dense()])


def two_dense():
    return keras.Sequential([image(), trunk(), layers.Dense(6, "relu"), dense(activation=None)])


def two_levels_deep():
    inner = keras.Sequential([image(), layers.RandomFlip(), trunk()], name="inner")
    middle = keras.Sequential([inner, layers.Dropout(0.1)], name="middle")
    return keras.Sequential([image(), middle, dense()])


def with_top():
    return keras.Sequential([image(), layers.RandomFlip(), trunk(include_top=True, classes=3)])


def one_sigmoid():
    return keras.Sequential([image(), trunk(), layers.Dense(1, activation="sigmoid")])


def frozen():
    base = trunk()
    base.trainable = False
    return keras.Sequential([image(), base, dense()])


def partly_frozen():
    model = augmented()
    for layer in model.get_layer("convnext").layers[:6]:
        layer.trainable = False
    return model


def with_lora():
    model = augmented()
    keras_convnext.enable_lora(model, rank=2)
    return model


def gray():
    base = trunk(input_shape=(32, 32, 1))
    return keras.Sequential([keras.Input((32, 32, 1)), base, dense()])


def four_channels():
    return keras.Sequential([keras.Input((32, 32, 4)), trunk(input_shape=(32, 32, 4)), dense()])


def oblong():
    x = keras.Input((32, 48, 3))
    return keras.Model(x, dense()(trunk(input_shape=(32, 48, 3))(x)))


def of_any_size():
    x = keras.Input((None, None, 3))
    return keras.Model(x, dense()(trunk(input_shape=(None, None, 3))(x)))


def isotropic():
    base = keras_convnext.ConvNeXtIsotropic(
        2, 16, patch_size=8, include_top=False, pooling="avg", input_shape=(32, 32, 3)
    )
    return keras.Sequential([image(), base, dense()])


def separate_softmax():
    return keras.Sequential([image(), trunk(), dense(activation=None), layers.Softmax()])


# Of these everything works.
CLASSIFIERS = [
    augmented, augmentation_in_a_sequential, own_head, own_rescaling, of_bytes, own_pooling,
    two_dense, two_levels_deep, with_top, one_sigmoid, frozen, partly_frozen, with_lora, gray,
    four_channels, oblong, of_any_size, isotropic, separate_softmax,
]  # fmt: skip


def siamese():
    left, right, base = image(name="left"), image(name="right"), trunk()
    return keras.Model([left, right], layers.Dense(1)(layers.Subtract()([base(left), base(right)])))


def two_trunks():
    x = image()
    features = [trunk(name=name)(x) for name in ("one", "other")]
    return keras.Model(x, dense()(layers.Concatenate()(features)))


def two_trunks_of_the_same_names():
    x = image()
    both = [keras.Sequential([image(), trunk()], name=name) for name in ("one", "other")]
    return keras.Model(x, dense()(layers.Average()([half(x) for half in both])))


def two_trunks_side_by_side():
    x = image()
    one, other = (trunk(name=name, input_tensor=x) for name in ("one", "other"))
    return keras.Model(x, dense()(layers.Concatenate()([one.output, other.output])))


def two_outputs():
    base = trunk()
    features = base(x := image())
    return keras.Model(x, {"kind": dense()(features), "age": layers.Dense(1, name="age")(features)})


def names_that_clash():
    base = trunk()
    x = layers.Rescaling(1.0, name="normalization")(image())
    return keras.Sequential([keras.Model(x, x), base, layers.Dense(CLASSES, name="norm")])


FUSED = [
    *CLASSIFIERS, siamese, two_trunks, two_trunks_of_the_same_names, two_trunks_side_by_side,
    two_outputs,
]  # fmt: skip


def pixels_for(model, number=3):
    draw = np.random.default_rng(0)
    shapes = [(number, *(side or 40 for side in shape[1:3]), shape[3]) for shape in
              (x.shape for x in model.inputs)]  # fmt: skip
    arrays = [draw.integers(0, 256, shape).astype("float32") for shape in shapes]
    return arrays[0] if len(arrays) == 1 else arrays


def outputs(model, pixels):
    found = keras.tree.flatten(model.predict(pixels, verbose=0))
    return [np.asarray(x) for x in found]


def randomize(model):
    """Draws all weights, so that each counts: of adapters, statistics and biases too."""
    draw = np.random.default_rng(0)
    for weight in model.weights:
        values = draw.standard_normal(weight.shape)
        if len(weight.shape) > 1:
            values /= np.sqrt(np.prod(weight.shape[:-1]))
        elif weight.name in ("gamma", "moving_variance"):
            values = 1 + 0.3 * np.tanh(values)
        else:
            values *= 0.3
        weight.assign(values)
    return model


def made(make):
    return randomize(make())


def assert_close(ours, theirs):
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, atol=1e-5 * abs(other).max())


@pytest.mark.parametrize("make", FUSED)
def test_fusing_keeps_the_outputs_and_flattens(make):
    model = made(make)
    fused = fuse(model)
    pixels = pixels_for(model)
    assert_close(outputs(fused, pixels), outputs(model, pixels))
    assert not any(isinstance(layer, keras.Model) for layer in fused.layers)
    kinds = {type(layer).__name__ for layer in fused.layers}
    assert not kinds & {"Dropout", "RandomFlip", "RandomRotation", "RandomZoom", "Block"}
    assert [x.name for x in fused.inputs] == [x.name for x in model.inputs]
    assert fused.input_shape == model.input_shape


def test_the_fused_model_has_folded_across_the_border_of_the_nested_one():
    fused = fuse(made(own_rescaling))
    assert [layer.name for layer in fused.layers if "rescaling" in layer.name] == []
    assert fused.get_layer("norm").weights == []
    assert [w.shape for w in fused.get_layer("classes").weights] == [(16, 3), (3,)]
    assert fused.get_layer("stem_conv").name == "stem_conv"


def test_what_is_fused_shares_nothing_and_adds_nothing_to_the_layers():
    model = made(augmented)
    before = [w.copy() for w in model.get_weights()]
    norm = model.get_layer("convnext").get_layer("norm")
    for use in (fuse, lambda model: grad_cam(model, pixels_for(model))):
        use(model)
        assert norm.output.shape == (None, 16)  # which Keras refuses for a layer called twice
    fused = fuse(model)
    for weight in fused.weights:
        weight.assign(weight + 1)
    for now, then in zip(model.get_weights(), before):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize("make", CLASSIFIERS)
def test_grad_cam_of_the_nested_is_that_of_the_flat(make):
    model = made(make)
    pixels = pixels_for(model)
    classes = [0] * 3 if make is one_sigmoid else [0, 1, 2]
    heat = grad_cam(model, pixels, classes)
    assert heat.shape == pixels.shape[:3]
    expected = grad_cam(fuse(model), pixels, classes)
    np.testing.assert_allclose(heat, expected, atol=1e-4)
    assert 0 < heat.max() <= 1


def test_grad_cam_is_the_gradient_of_the_logit_not_of_the_probability():
    model = made(augmented)
    pixels = pixels_for(model)
    nested = model.get_layer("convnext")
    head = model.get_layer("classes")
    flat = trunk(include_top=True, classes=3)
    flat.set_weights([*nested.get_weights(), *head.get_weights()])
    np.testing.assert_allclose(
        grad_cam(model, pixels, [0, 1, 2]), grad_cam(flat, pixels, [0, 1, 2]), atol=1e-5
    )


@pytest.mark.parametrize("make", CLASSIFIERS)
def test_what_is_exported_computes_what_the_model_does(make):
    model = made(make)
    pixels = pixels_for(model)
    (expected,) = outputs(model, pixels)
    served = served_network(model)(pixels)
    np.testing.assert_allclose(served["probabilities"], expected, atol=1e-5)


# Each takes seconds to write, and all are written in the same way.
WRITTEN = {of_bytes, with_lora, of_any_size, oblong}


@pytest.mark.parametrize(
    "make",
    [
        make if make in WRITTEN else pytest.param(make, marks=pytest.mark.slow)
        for make in CLASSIFIERS
    ],
)
def test_saved_models_are_compared_with_the_live_model(make, tmp_path):
    model = made(make)
    size = 40 if make is of_any_size else None
    difference = export(model, tmp_path / "out", "saved_model", size=size)
    assert difference.error < 1e-5
    pixels = pixels_for(model)
    artifact = Artifact(tmp_path / "out")
    (expected,) = outputs(model, pixels)
    np.testing.assert_allclose(artifact(pixels)["probabilities"], expected, atol=1e-5)
    manifest = json.loads((tmp_path / "out" / "export.json").read_text())
    assert manifest["channels"] == pixels.shape[-1]
    assert artifact.image_size == ((32, 48) if make is oblong else (size or 32,) * 2)


HEADS = [augmented, of_bytes, own_rescaling, own_pooling, two_dense, one_sigmoid, gray, oblong]


def other_formats():
    """Each model in each format; by default, each of both a few times."""
    kinds = ("onnx", "litert", "openvino")
    for number, make in enumerate(HEADS):
        for kind in kinds:
            often = kind == kinds[number % 3] or make is of_bytes
            yield pytest.param(make, kind, marks=[] if often else [pytest.mark.slow])


@pytest.mark.parametrize(("make", "kind"), list(other_formats()))
def test_other_formats_write_own_heads(make, kind, tmp_path):
    model = made(make)
    difference = export(model, tmp_path / "out", kind)
    assert difference.error < 1e-4
    found = Artifact(tmp_path / "out")(pixels_for(model))
    np.testing.assert_allclose(
        found["probabilities"], outputs(model, pixels_for(model))[0], atol=1e-4
    )
    features = {own_pooling: 16, two_dense: 16}.get(make, 16)
    assert found["features"].shape == (3, features)


def test_an_export_that_differs_from_the_nested_model_is_thrown_away(tmp_path, monkeypatch):
    from keras_convnext.export import ExportError, exporting

    served = exporting.served_network

    def spoilt(model):
        network = served(model)
        head = network.get_layer("classes")
        head.bias.assign(head.bias + np.array([0.1, 0, 0]))
        return network

    monkeypatch.setattr(exporting, "served_network", spoilt)
    with pytest.raises(ExportError, match="it was removed"):
        export(made(augmented), tmp_path / "out")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (siamese, r"must have images \(N, H, W, C\) as its only input.*2"),
        (two_outputs, r"select one with keras.Model.*of the layers age, classes"),
        (lambda: trunk(pooling=None), "returns features, not classes"),
        (
            lambda: keras.Sequential([image(), trunk(include_preprocessing=False), dense()]),
            "add a keras.layers.Rescaling before",
        ),
    ],
)
def test_what_cannot_be_exported_is_said(make, said, tmp_path):
    with pytest.raises(ValueError, match=said):
        export(make(), tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_crop_that_cuts_is_kept():
    x = keras.Input((48, 40, 3))
    model = randomize(keras.Model(x, dense()(trunk()(layers.CenterCrop(32, 32)(x)))))
    fused = fuse(model)
    assert "center_crop" in fused.layers[1].name
    pixels = pixels_for(model)
    assert_close(outputs(fused, pixels), outputs(model, pixels))


def test_a_layer_that_a_format_has_no_words_for_is_named(tmp_path):
    model = keras.Sequential([image(), trunk(pooling=None), layers.Flatten(), dense()])
    with pytest.raises(ValueError, match=r"saved_model or litert.*Received: flatten.*a Flatten"):
        export(model, tmp_path / "out", "onnx")
    assert export(model, tmp_path / "out", "litert").error < 1e-5


def test_an_average_of_two_networks_is_exported(tmp_path):
    x = image()
    both = [trunk(name=name, include_top=True, classes=3) for name in ("one", "other")]
    model = randomize(keras.Model(x, layers.Average()([network(x) for network in both])))
    for kind in ("saved_model", "litert"):
        assert export(model, tmp_path / kind, kind).error < 1e-5


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__(name="mine")
        self.backbone, self.classes = trunk(), dense()

    def call(self, x):
        return self.classes(self.backbone(x))


def subclassed():
    model = Subclassed()
    model(np.zeros((1, 32, 32, 3), "float32"))
    return model


@pytest.mark.parametrize(
    "use",
    [
        fuse,
        keras_convnext.pyramid_features,
        lambda model: grad_cam(model, np.zeros((1, 32, 32, 3))),
        lambda model: export(model, "never"),
    ],
)
def test_a_subclassed_model_is_named_with_what_to_do(use):
    with pytest.raises(ValueError, match=r"Subclassed.*the model inside it.*mine"):
        use(subclassed())


def test_the_trunk_of_a_subclassed_model_can_be_saved_and_loaded(tmp_path):
    model = subclassed()
    with pytest.warns(UserWarning, match="without the layers mine/classes"):
        save_checkpoint(model, tmp_path / "x.pth")
    other = subclassed()
    keras_convnext.load_checkpoint(other, tmp_path / "x.pth")
    assert_close(other.backbone.get_weights(), model.backbone.get_weights())


@pytest.mark.parametrize("make", [two_trunks, two_trunks_side_by_side])
@pytest.mark.parametrize(
    "use",
    [
        keras_convnext.pyramid_features,
        lambda model: grad_cam(model, np.zeros((1, 32, 32, 3))),
        lambda model: save_checkpoint(model, "never.pth"),
        lambda model: keras_convnext.load_checkpoint(model, "never.pth"),
    ],
)
def test_of_two_trunks_one_has_to_be_chosen(make, use):
    with pytest.raises(ValueError, match=r"2 ConvNeXt networks.*with one, other"):
        use(make())


def test_a_trunk_that_is_used_twice_is_no_obstacle_but_where_it_is(tmp_path):
    model = made(siamese)
    with pytest.warns(UserWarning, match="without the layers dense"):
        save_checkpoint(model, tmp_path / "x.pth")
    for use in (keras_convnext.pyramid_features, lambda m: grad_cam(m, np.zeros((1, 32, 32, 3)))):
        with pytest.raises(ValueError, match=r"(2 times|\(N, classes\)|2 inputs)"):
            use(model)


LOSSLESS = [augmented, own_head, of_bytes, two_levels_deep, with_top, frozen, separate_softmax,
            with_lora, gray, isotropic]  # fmt: skip


def all_kinds_of_files():
    """Each model in each kind of file; by default, each model in one."""
    kinds = (".pth", ".safetensors", ".weights.h5")
    for number, make in enumerate(LOSSLESS):
        for kind in kinds:
            often = kind == kinds[number % 3]
            yield pytest.param(make, kind, marks=[] if often else [pytest.mark.slow])


@pytest.mark.parametrize(("make", "suffix"), list(all_kinds_of_files()))
def test_a_checkpoint_has_the_trunk_and_the_one_dense(make, suffix, tmp_path):
    model = made(make)
    path = tmp_path / f"x{suffix}"
    save_checkpoint(model, path)
    plain = keras_convnext.load_model(path, input_shape=model.input_shape[1:])
    pixels = pixels_for(model)
    assert plain.output_shape[-1] == CLASSES
    assert_close(outputs(plain, pixels), outputs(model, pixels))


@pytest.mark.parametrize("make", [own_pooling, two_dense, two_outputs])
def test_a_head_that_no_checkpoint_has_a_place_for_is_reported(make, tmp_path):
    model = made(make)
    with pytest.warns(UserWarning, match="without the layers"):
        save_checkpoint(model, tmp_path / "x.pth")
    tensors = torch.load(tmp_path / "x.pth", weights_only=True)["model"]
    assert not any(key.startswith("head") for key in tensors)
    assert ("norm.weight" in tensors) == (make is not own_pooling)


@pytest.mark.parametrize("make", [augmented, two_levels_deep, own_pooling, two_outputs, siamese])
def test_a_checkpoint_is_loaded_into_the_trunk(make, tmp_path):
    source = randomize(trunk(include_top=True, classes=CLASSES))
    save_checkpoint(source, tmp_path / "x.pth")
    model = make()
    keras_convnext.load_checkpoint(model, tmp_path / "x.pth")
    stem = keras_convnext.trunks.trunk_of(model).layers["stem_conv"]
    np.testing.assert_array_equal(stem.kernel, source.get_layer("stem_conv").kernel)
    if make in (augmented, two_levels_deep):
        pixels = pixels_for(model)
        assert_close(outputs(model, pixels), outputs(source, pixels))


def test_a_head_of_other_classes_keeps_its_weights_in_a_nested_model_too(tmp_path):
    save_checkpoint(randomize(trunk(include_top=True, classes=9)), tmp_path / "x.pth")
    model = augmented()
    head = [w.copy() for w in model.get_layer("classes").get_weights()]
    with pytest.warns(UserWarning, match="has 9 classes, but the model has 3"):
        keras_convnext.load_checkpoint(model, tmp_path / "x.pth")
    assert_close(model.get_layer("classes").get_weights(), head)


@pytest.mark.parametrize("make", [augmented, own_head, two_levels_deep, of_bytes, two_outputs])
def test_a_pyramid_has_the_input_of_the_model_and_its_layers(make):
    model = made(make)
    pyramid = keras_convnext.pyramid_features(model)
    pixels = pixels_for(model)
    alone = keras_convnext.trunks.trunk_of(model).model
    expected = keras_convnext.pyramid_features(alone).predict(pixels, verbose=0)
    found = pyramid.predict(pixels, verbose=0)
    assert {name: x.shape for name, x in found.items()} == {
        "P2": (3, 8, 8, 8), "P3": (3, 4, 4, 16)
    }  # fmt: skip
    for name in found:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-5)
    assert {id(w) for w in pyramid.weights} < {id(w) for w in model.weights}


def test_a_quantized_model_names_the_layer_and_what_comes_first(no_garbage_collection, tmp_path):
    model = augmented()
    model.quantize("int8")
    for use, said in (
        (fuse, "fuse it first"),
        (lambda model: export(model, tmp_path / "out"), "export it before calling quantize"),
        (lambda model: save_checkpoint(model, tmp_path / "x.pth"), "before you call quantize"),
        (lambda model: grad_cam(model, pixels_for(model)), "to a separate layer"),
    ):
        error = CheckpointError if "before you" in said else ValueError
        with pytest.raises(error, match=f"{said}.*quantized"):
            use(model)


@pytest.mark.parametrize("make", [trunk, augmented], ids=["trunk", "nested"])
def test_no_checkpoint_is_written_of_a_fused_model(make, tmp_path):
    fused = fuse(make())
    for use in (save_checkpoint, keras_convnext.load_checkpoint):
        with pytest.raises(CheckpointError, match="A fused model has no checkpoint"):
            use(fused, tmp_path / "m.pth")
    assert not any(tmp_path.iterdir())


def test_a_network_that_a_layer_calls_by_itself_is_not_left_unfused_in_silence():
    frames = keras.Input((2, 32, 32, 3))
    x = layers.TimeDistributed(trunk(name="net"), name="each")(frames)
    model = keras.Model(frames, dense()(layers.GlobalAveragePooling1D()(x)), name="video")
    with pytest.raises(ValueError, match=r"net is called inside the layer each.*model=video"):
        fuse(model)


def test_export_names_what_writes_a_model_of_several_inputs(tmp_path):
    numbers = keras.Input((4,))
    x = image()
    y = dense()(layers.Concatenate()([trunk()(x), numbers]))
    model = keras.Model([x, numbers], y)
    with pytest.raises(ValueError, match=r"use fuse\(model\)\.export\(folder\)"):
        export(model, tmp_path / "m", "saved_model")
    inputs = [np.ones((1, 32, 32, 3), "f"), np.ones((1, 4), "f")]
    assert_close(fuse(model).predict(inputs, verbose=0), model.predict(inputs, verbose=0))


@pytest.mark.parametrize("use", [fuse, keras_convnext.pyramid_features, save_checkpoint])
def test_what_is_no_model_or_of_keras_applications_is_said(use, tmp_path):
    arguments = (tmp_path / "m.pth",) if use is save_checkpoint else ()
    with pytest.raises(ValueError, match=r"model is a keras\.Model\. Received: a str"):
        use("m.pth", *arguments)
    theirs = keras.Sequential([image(), layers.Rescaling(1.0, name="x_prestem_normalization")])
    with pytest.raises(ValueError, match=r"with from_keras_applications first"):
        use(theirs, *arguments)


def test_a_keras_file_is_no_checkpoint(tmp_path):
    with pytest.raises(ValueError, match=r"Use model\.save"):
        save_checkpoint(trunk(), tmp_path / "m.keras")


def test_grad_cam_refuses_images_of_another_size():
    with pytest.raises(ValueError, match=r"takes images of shape \(32, 32, 3\)"):
        grad_cam(augmented(), np.zeros((1, 31, 32, 3), "f"))


def test_lora_reaches_the_trunk_alone():
    model = with_lora()
    trained = {weight.path for weight in model.trainable_weights}
    assert any(path.endswith("lora_kernel_a") for path in trained)
    assert "classes/kernel" in {"/".join(path.split("/")[-2:]) for path in trained}
    assert not any("stem" in path for path in trained)


def test_augmentation_that_is_left_out_does_nothing_at_inference():
    """What `graph` takes for idle is what this version of Keras computes."""
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 16, 16, 3)).astype("float32")
    names = [name for name in dir(layers) if name in call_graph._IDLE or name.startswith("Random")]
    arguments = {"GaussianNoise": (0.2,), "GaussianDropout": (0.2,), "RandomCrop": (16, 16),
                 "RandomPosterization": (3,), "RandomTranslation": (0.2, 0.2)}  # fmt: skip
    for name in names:
        kind = getattr(layers, name)
        try:
            layer = kind(*arguments.get(name, ()))
        except TypeError:
            layer = kind(0.2)
        assert call_graph._is_idle(layer)
        np.testing.assert_array_equal(layer(pixels, training=False), pixels, name)
    assert len(names) > 20
