"""The networks of the road: counts, names, arguments and files."""

import keras
import numpy as np
import pytest
import torch
from battery import assert_close
from counted_networks import macs_of, parameters_of
from keras import ops
from road_twins import CLASSES, PIXELS, twin_of

import keras_convnext
from keras_convnext import roadmap
from keras_convnext.cli.loading import load_classifier
from keras_convnext.roadmap.steps import STEPS
from keras_convnext.trunks import has_no_classes


@pytest.mark.parametrize("step", STEPS)
def test_the_counts_are_those_of_the_network(step):
    model = roadmap.network(step, "toy4", input_shape=(*PIXELS.shape[1:],), classes=CLASSES)
    counted = roadmap.parts(step, "toy4", PIXELS.shape[1:3], CLASSES)
    assert sum(part.parameters for part in counted) == parameters_of(model)
    if step != "convnext":  # which `test_complexity` counts
        assert sum(part.macs for part in counted) == macs_of(model)
    assert counted[-2].output == tuple(model.get_layer("avg_pool").input.shape[1:])
    assert counted[-1].output == (CLASSES,)


def test_features_without_the_top():
    model = roadmap.network("depthwise", "toy4", include_top=False)
    assert model(PIXELS).shape == (2, 6, 8, 64)
    for pooling in ("avg", "max"):
        normed = roadmap.network("final_norm", "toy4", include_top=False, pooling=pooling)
        assert normed(PIXELS).shape == (2, 24)
        assert normed.layers[-1].name == "norm"


def test_names_and_defaults():
    model = roadmap.network("patchify", "toy4")
    assert model.name == "toy4_patchify"
    assert model.input_shape == (None, 32, 32, 3)
    assert model.output_shape == (None, 1000)
    named = roadmap.network("patchify", "toy4", name="left")
    assert named.get_layer("left_stages_0_blocks_0_conv1").name
    last = roadmap.network("convnext", "toy4", name="right")
    assert (last.name, last.get_layer("right_head").units) == ("right", 1000)
    rates = [
        layer.rate
        for layer in roadmap.network("gelu", "toy4", drop_path_rate=0.2).layers
        if layer.name.endswith("drop_path")
    ]
    np.testing.assert_allclose(rates, [0, 0.1, 0.2])


def test_convolutions_start_as_in_pytorch():
    keras.utils.set_random_seed(0)
    torch.manual_seed(0)
    model = roadmap.network("layer_norm", "cifar")
    for name, theirs in {
        "conv1": torch.nn.Conv2d(192, 192, 7, groups=192),
        "conv2": torch.nn.Conv2d(192, 768, 1),
    }.items():
        layer = model.get_layer(f"stages_3_blocks_2_{name}")
        for ours, expected in ((layer.kernel, theirs.weight), (layer.bias, theirs.bias)):
            ours, expected = ops.convert_to_numpy(ours), expected.detach().numpy()
            assert ours.size == expected.size
            assert np.abs(ours).max() == pytest.approx(np.abs(expected).max(), rel=0.05)
            assert ours.std() == pytest.approx(expected.std(), rel=0.15)


def test_a_saved_network_is_the_same(tmp_path):
    model, _ = twin_of("fewer_norms")
    model.save(tmp_path / "model.keras")
    again = keras_convnext.load_model(tmp_path / "model.keras")
    assert_close(again(PIXELS), model(PIXELS))


def test_commands_tell_classifiers_from_features(tmp_path):
    image = keras.Input((32, 32, 3))
    features = roadmap.network("gelu", "toy4", include_top=False, pooling="avg", input_tensor=image)
    own = keras.Model(image, keras.layers.Dense(3)(features(image)))
    for model in (roadmap.network("gelu", "toy4"), roadmap.network("gelu", "toy4", name="a"), own):
        assert not has_no_classes(model)
    normed = roadmap.network("final_norm", "toy4", include_top=False, pooling="max")
    for model in (features, normed, roadmap.network("gelu", "toy4", include_top=False)):
        assert has_no_classes(model)
    own.save(tmp_path / "own.keras")
    assert load_classifier(str(tmp_path / "own.keras"), None, {}, {}).output_shape == (None, 3)


def test_a_step_of_your_own():
    own = STEPS["fewer_norms"]._replace(name="mine", gelu=False, inverted=False)
    model = roadmap.network(own, "toy4")
    counted = roadmap.parts(own, "toy4")
    assert sum(part.parameters for part in counted) == parameters_of(model)
    assert model.name == "toy4_mine"
    assert model.get_layer("stages_0_blocks_0_act2").activation is keras.activations.relu
    with pytest.raises(ValueError, match="Only the step convnext has layer scale"):
        roadmap.network(own._replace(layer_scale=0.1), "toy4")


@pytest.mark.parametrize(
    ("step", "line"),
    [
        ("resnet",
         "1024 > 1x1, 256 > BN > ReLU > 3x3, 256 > BN > ReLU > 1x1, 1024 > BN > + > ReLU"),
        ("inverted",
         "384 > 1x1, 1536 > BN > ReLU > d3x3, 1536 > BN > ReLU > 1x1, 384 > BN > + > ReLU"),
        ("gelu", "384 > d7x7, 384 > BN > GELU > 1x1, 1536 > BN > GELU > 1x1, 384 > BN > + > GELU"),
        ("convnext", "384 > d7x7, 384 > LN > 1x1, 1536 > GELU > 1x1, 384 > scale > +"),
    ],
)  # fmt: skip
def test_a_block_is_drawn(step, line):
    assert roadmap.draw(step) == line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"step": "resnext"}, "step must be one of resnet, stage_ratio, .*Received: step=resnext"),
        ({"step": "gelu", "regime": "resnet18"}, "regime must be one of .*regime=resnet18"),
        ({"step": "gelu", "classes": 0}, "classes must be a positive integer"),
        ({"step": "gelu", "pooling": "sum"}, "pooling must be None"),
        ({"step": "gelu", "drop_path_rate": 1.0}, "drop_path_rate must be in"),
        ({"step": "gelu", "input_shape": (31, 32, 3)}, "at least 32 for resnet50_gelu"),
        ({"step": "convnext", "input_shape": (31, 32, 3)}, "at least 32 for convnext_tiny"),
        ({"step": "gelu", "input_tensor": 1}, "input_tensor must be a Keras tensor"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        roadmap.network(**arguments)


def test_layer_names_that_are_no_steps_are_shown_safely():
    with pytest.raises(ValueError, match=r"step=\\x1b\[31m"):
        roadmap.network("\x1b[31m")
