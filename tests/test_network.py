import keras
import numpy as np
import pytest

import keras_convnext


def toy(**options):
    return keras_convnext.ConvNeXt((1, 2, 1, 1), (4, 6, 8, 10), classes=3, **options)


@pytest.mark.parametrize("options", [{}, {"include_top": False}, {"input_shape": (64, 96, 3)}])
def test_pyramid_has_a_level_a_stage_of_stride_two_to_its_number(options):
    pyramid = keras_convnext.pyramid_features(toy(**options))
    shape = pyramid.input_shape
    height, width = shape[1] or 64, shape[2] or 96
    maps = pyramid.predict(np.zeros((2, height, width, 3)), verbose=0)
    assert {name: m.shape for name, m in maps.items()} == {
        f"P{level}": (2, height // 2**level, width // 2**level, dim)
        for level, dim in zip((2, 3, 4, 5), (4, 6, 8, 10))
    }


def test_pyramid_levels_follow_the_patch_size():
    model = toy(patch_size=2, input_shape=(32, 32, 3))
    assert sorted(keras_convnext.pyramid_features(model).output) == ["P1", "P2", "P3", "P4"]
    with pytest.raises(ValueError, match="patch_size=3"):
        keras_convnext.pyramid_features(toy(patch_size=3))


def test_pyramid_ends_with_the_last_map_of_the_trunk_and_shares_its_layers():
    trunk = toy(include_top=False)
    pyramid = keras_convnext.pyramid_features(trunk)
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3))
    np.testing.assert_array_equal(
        pyramid.predict(pixels, verbose=0)["P5"], trunk.predict(pixels, verbose=0)
    )
    assert pyramid.get_layer("stem_conv") is trunk.get_layer("stem_conv")


def test_a_model_without_stages_has_no_pyramid():
    with pytest.raises(ValueError, match="isotropic"):
        keras_convnext.pyramid_features(keras_convnext.ConvNeXtIsotropic(1, 8))


def test_an_image_too_small_is_refused_also_where_any_size_is_taken():
    with pytest.raises(ValueError, match="too small"):
        toy(include_top=False).predict(np.zeros((1, 31, 64, 3)), verbose=0)


def test_training_moves_every_weight():
    model = toy(layer_scale_init_value=0.3, drop_path_rate=0.1, input_shape=(64, 64, 3))
    before = model.get_weights()
    model.compile(keras.optimizers.SGD(1.0), "sparse_categorical_crossentropy")
    pixels = np.random.default_rng(0).uniform(0, 255, (8, 64, 64, 3))
    model.fit(pixels, np.arange(8) % 3, verbose=0)
    still = [
        weight.path
        for weight, was, now in zip(model.weights, before, model.get_weights())
        if (was == now).all()
    ]
    assert still == []
