"""ConvNeXt in keras-hub: run in an environment of its own, with `pip install -e .[hub] pytest`."""

import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_convnext

keras_hub = pytest.importorskip("keras_hub")
hub = pytest.importorskip("keras_convnext.hub")

SIZE, CLASSES = 64, 5
IMAGES = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3)).astype("float32")


def network(**options):
    options = {"depths": (1, 2, 1, 1), "dims": (8, 16, 24, 32), "classes": CLASSES, **options}
    model = keras_convnext.ConvNeXt(**{"input_shape": (SIZE, SIZE, 3), **options})
    return with_random_weights(model)


def with_random_weights(model):
    """Layer scales of order 1, so that the blocks count."""
    generator = np.random.default_rng(0)
    for weight in model.weights:
        weight.assign(generator.normal(0.2, 0.3, weight.shape))
    return model


def outputs(model, images=IMAGES):
    return keras.tree.map_structure(
        lambda x: keras.ops.convert_to_numpy(keras.ops.cast(x, "float32")), model(images)
    )


def assert_same(found, expected, tolerance=1e-5):
    assert keras.tree.map_structure(np.shape, found) == keras.tree.map_structure(np.shape, expected)
    for one, other in zip(keras.tree.flatten(found), keras.tree.flatten(expected)):
        np.testing.assert_allclose(one, other, atol=tolerance * np.abs(other).max())


def pyramid(backbone):
    return keras.Model(backbone.input, backbone.pyramid_outputs)


def segmenter(backbone):
    encoder = keras_hub.models.DeepLabV3Backbone(
        image_encoder=backbone,
        spatial_pyramid_pooling_key="P5",
        low_level_feature_key="P2",
        upsampling_size=8,
        dilation_rates=[1, 2],
    )
    return keras_hub.models.DeepLabV3ImageSegmenter(encoder, num_classes=3, activation="softmax")


def detector(backbone):
    encoder = keras_hub.models.RetinaNetBackbone(
        image_encoder=backbone, min_level=3, max_level=6, use_p5=False
    )
    converter = keras_hub.layers.RetinaNetImageConverter(
        image_size=(SIZE, SIZE), bounding_box_format="xyxy"
    )
    return keras_hub.models.RetinaNetObjectDetector(
        encoder,
        num_classes=3,
        bounding_box_format="xyxy",
        pre_logits_num_conv_layers=1,
        preprocessor=keras_hub.models.RetinaNetObjectDetectorPreprocessor(converter),
    )


def v2():
    return with_random_weights(
        keras_convnext.ConvNeXtV2(
            (1, 2, 1, 1), (8, 16, 24, 32), classes=5, input_shape=(SIZE, SIZE, 3)
        )
    )


def with_adapters():
    model = network()
    keras_convnext.enable_lora(model, rank=2)
    return with_random_weights(model)


TRUNKS = {
    "with head": network,
    "without": lambda: network(include_top=False),
    "any size, five channels": lambda: network(include_top=False, input_shape=(None, None, 5)),
    "named": lambda: network(name="left"),
    "no layer scale": lambda: network(layer_scale_init_value=None),
    "another epsilon": lambda: network(epsilon=0.1),
    "normalized outside": lambda: network(include_preprocessing=False),
    "patch 2, kernel 5": lambda: network(patch_size=2, kernel_size=5),
    "LoRA": with_adapters,
    "V2": v2,
}


@pytest.mark.parametrize("make", TRUNKS.values(), ids=TRUNKS)
def test_a_backbone_computes_the_maps_of_its_trunk(make):
    trunk = make()
    images = np.resize(IMAGES, (2, SIZE, SIZE, trunk.input_shape[-1]))
    backbone = hub.ConvNeXtBackbone.from_trunk(trunk)
    maps = outputs(keras_convnext.pyramid_features(trunk), images)
    assert_same(outputs(pyramid(backbone), images), maps)
    assert_same(outputs(backbone, images), maps[max(maps)])


def test_the_configuration_is_complete():
    trunk = network(drop_path_rate=0.3, remat=True, patch_size=2, kernel_size=5)
    config = hub.ConvNeXtBackbone.from_trunk(trunk, name="mine").get_config()
    assert config.pop("dtype")["config"]["name"] == "float32"
    assert config == {
        "name": "mine",
        "trainable": True,
        "depths": [1, 2, 1, 1],
        "dims": [8, 16, 24, 32],
        "patch_size": 2,
        "kernel_size": 5,
        "layer_scale_init_value": 1e-6,
        "epsilon": 1e-6,
        "grn": False,
        "drop_path_rate": pytest.approx(0.3),
        "remat": True,
        "include_preprocessing": True,
        "image_shape": (SIZE, SIZE, 3),
    }
    again = hub.ConvNeXtBackbone.from_config({**config, "dtype": "mixed_bfloat16"})
    assert again.get_config() == {**config, "dtype": again.get_config()["dtype"]}
    assert again.get_layer("stages_0_blocks_0").pwconv1.compute_dtype == "bfloat16"
    assert again.get_layer("normalization").compute_dtype == "float32"
    assert keras.config.dtype_policy().name == "float32"


def test_overlapping_patches_are_refused():
    trunk = keras_convnext.ConvNeXtAttoOLS(weights=None, include_top=False)
    with pytest.raises(ValueError, match="no overlapping patches"):
        hub.ConvNeXtBackbone.from_trunk(trunk)


def test_what_is_no_trunk_with_a_pyramid_is_refused():
    isotropic = keras_convnext.ConvNeXtIsotropic(1, 8, input_shape=(SIZE, SIZE, 3))
    with pytest.raises(ValueError, match="hierarchical"):
        hub.ConvNeXtBackbone.from_trunk(isotropic)
    quantized = network()
    quantized.quantize("int8", filters=["pwconv"])
    with pytest.raises(ValueError, match=r"quantized .*pwconv1"):
        hub.ConvNeXtBackbone.from_trunk(quantized)
    with pytest.raises(ValueError, match="Received: model=convnext, num_classes=None"):
        hub.ConvNeXtImageClassifier.from_trunk(network(include_top=False))


@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_a_classifier_has_the_head_of_its_network(pooling):
    trunk = network(include_top=pooling == "avg", pooling=pooling)
    num_classes = None if pooling == "avg" else 7
    classifier = hub.ConvNeXtImageClassifier.from_trunk(
        trunk, num_classes, pooling=pooling, activation="softmax"
    )
    if pooling == "max":  # compare the features under the new head
        assert outputs(classifier).shape == (2, 7)
        classifier = keras.Model(classifier.input, classifier.get_layer("norm").output)
    assert_same(outputs(classifier), outputs(trunk))


def test_a_head_of_other_classes_starts_from_random_weights():
    classifier = hub.ConvNeXtImageClassifier.from_trunk(network(), num_classes=2)
    assert outputs(classifier).shape == (2, 2)
    np.testing.assert_array_equal(classifier.get_layer("head").bias, [0, 0])


def test_a_classifier_learns_and_survives_a_preset(tmp_path):
    preprocessor = keras_hub.models.ImageClassifierPreprocessor(
        image_converter=keras_hub.layers.ImageConverter(image_size=(SIZE, SIZE), antialias=True)
    )
    classifier = hub.ConvNeXtImageClassifier.from_trunk(
        network(), num_classes=2, preprocessor=preprocessor, dropout=0.1
    )
    larger = np.repeat(IMAGES, 2, axis=1)  # (2, 128, 64, 3), which the preprocessor resizes
    before = classifier.predict(larger, verbose=0)
    classifier.compile(optimizer=keras.optimizers.Adam(1e-3))
    classifier.fit(larger, np.array([0, 1]), epochs=3, verbose=0)
    after = classifier.predict(larger, verbose=0)
    assert np.abs(after - before).max() > 1e-3

    classifier.save_to_preset(tmp_path / "preset")
    again = keras_hub.models.ImageClassifier.from_preset(str(tmp_path / "preset"))
    assert isinstance(again, hub.ConvNeXtImageClassifier)
    assert_same(again.predict(larger, verbose=0), after)
    backbone = keras_hub.models.Backbone.from_preset(str(tmp_path / "preset"))
    assert_same(outputs(backbone), outputs(classifier.backbone))

    other = keras_hub.models.ImageClassifier.from_preset(
        str(tmp_path / "preset"), num_classes=4, dtype="mixed_bfloat16"
    )
    assert other.predict(larger, verbose=0).shape == (2, 4)
    assert_same(outputs(other.backbone), outputs(backbone), 0.05)
    assert other.backbone.get_layer("stem_conv").compute_dtype == "bfloat16"

    classifier.save(tmp_path / "classifier.keras")
    loaded = keras.models.load_model(tmp_path / "classifier.keras")
    assert_same(loaded.predict(larger, verbose=0), after)


def test_a_backbone_alone_becomes_a_preset(tmp_path):
    backbone = hub.ConvNeXtBackbone.from_trunk(network())
    backbone.save_to_preset(tmp_path / "preset")
    again = keras_hub.models.Backbone.from_preset(str(tmp_path / "preset"))
    assert_same(outputs(pyramid(again)), outputs(pyramid(backbone)))
    classifier = keras_hub.models.ImageClassifier.from_preset(
        str(tmp_path / "preset"), num_classes=2
    )
    assert outputs(classifier).shape == (2, 2)
    assert_same(outputs(classifier.backbone), outputs(backbone))
    random = keras_hub.models.Backbone.from_preset(str(tmp_path / "preset"), load_weights=False)
    assert np.abs(outputs(random) - outputs(backbone)).max() > 0.01


def test_the_classifier_of_keras_hub_takes_the_backbone(tmp_path):
    backbone = hub.ConvNeXtBackbone.from_trunk(network())
    classifier = keras_hub.models.ImageClassifier(backbone=backbone, num_classes=2)
    classifier.fit(IMAGES, np.array([0, 1]), verbose=0)
    assert classifier.predict(IMAGES, verbose=0).shape == (2, 2)
    classifier.save(tmp_path / "classifier.keras")
    again = keras.models.load_model(tmp_path / "classifier.keras")
    assert_same(outputs(again), outputs(classifier))


def test_a_quantized_backbone_survives_a_preset(tmp_path):
    classifier = hub.ConvNeXtImageClassifier.from_trunk(network(), activation="softmax")
    classifier.backbone.quantize("int8", filters=["pwconv"])
    classifier.save_to_preset(tmp_path / "preset")
    again = keras_hub.models.ImageClassifier.from_preset(str(tmp_path / "preset"))
    assert again.backbone.get_layer("stages_0_blocks_0").pwconv1.quantization_mode == "int8"
    assert_same(outputs(again), outputs(classifier))


TASKS = {
    "segmenter": (
        segmenter,
        np.eye(3)[np.zeros((2, SIZE, SIZE), int)],
        keras_hub.models.ImageSegmenter,
    ),
    "detector": (
        detector,
        {"boxes": np.array([[[4.0, 4, 40, 40]]] * 2), "labels": np.zeros((2, 1))},
        keras_hub.models.ObjectDetector,
    ),
}


@pytest.mark.parametrize(("make", "labels", "base"), TASKS.values(), ids=TASKS)
def test_dense_tasks_learn_and_survive_a_preset(make, labels, base, tmp_path):
    trunk = network(include_top=False, input_shape=(None, None, 3))
    task = make(hub.ConvNeXtBackbone.from_trunk(trunk))
    first = keras.tree.flatten(outputs(task))
    task.fit(IMAGES, labels, batch_size=2, epochs=2, verbose=0)
    trained = outputs(task)
    assert all(np.isfinite(array).all() for array in keras.tree.flatten(trained))
    assert np.abs(keras.tree.flatten(trained)[0] - first[0]).max() > 0
    task.save_to_preset(tmp_path / "preset")
    assert_same(outputs(base.from_preset(str(tmp_path / "preset"))), trained)
    task.save(tmp_path / "task.keras")
    assert_same(outputs(keras.models.load_model(tmp_path / "task.keras")), trained)


def test_the_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        keras_convnext, "ConvNeXtTiny", lambda weights, **options: network(**options)
    )
    page = Path(__file__).parent.parent / "docs" / "keras_hub.md"
    names = {"images": IMAGES, "labels": np.array([0, 1])}
    for block in re.findall(r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.M | re.S):
        exec(block, names)
    assert outputs(names["detector"])["cls_logits"].shape[-1] == 20
    assert outputs(names["segmenter"]).shape == (2, SIZE, SIZE, 21)


def test_without_keras_hub_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    monkeypatch.delitem(sys.modules, "keras_convnext.hub")
    with pytest.raises(ImportError, match=r'pip install "keras-convnext\[hub\]"'):
        import_module("keras_convnext.hub")


def test_importing_the_package_does_not_import_keras_hub():
    code = "import sys, keras_convnext; sys.exit('keras_hub' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
