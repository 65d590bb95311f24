"""UperNet: the numbers of mmsegmentation's heads, its weight files, and its errors.

The golden arrays are mmsegmentation's; `make_golden_arrays.py` makes them.
"""

from pathlib import Path

import keras
import numpy as np
import pytest
import torch
from torch_reference import declare_torchvision_operators

import keras_convnext
from keras_convnext.feature_maps import PoolToGrid, PyramidConv2D, ResizeLike
from keras_convnext.pretrained.errors import CheckpointError
from keras_convnext.segmentation import (
    UperNet,
    evaluate,
    load_segmenter_weights,
    parts,
    predict_classes,
    save_segmenter_weights,
)
from keras_convnext.variants import VARIANTS, Variant

GOLDEN = Path(__file__).with_name("golden")
CHECKPOINT = GOLDEN / "upernet.pth"
STRUCTURE = {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32)}
TOLERANCE = 1e-5  # of the largest value


def toy(**options):
    trunk = keras_convnext.ConvNeXt(
        **STRUCTURE, include_top=False, input_shape=(None, None, 3), include_preprocessing=False
    )
    defaults = {"weights": CHECKPOINT, "channels": 16, "classifier_activation": None}
    return UperNet(trunk, **{**defaults, **options})


@pytest.fixture(scope="module")
def model():
    return toy()


def images(height, width):
    """As in `make_golden_arrays.py`."""
    return np.random.default_rng(0).normal(size=(1, height, width, 3)).astype("float32")


def assert_close(found, expected):
    scale = np.abs(expected).max()
    np.testing.assert_allclose(
        keras.ops.convert_to_numpy(found), expected, rtol=0, atol=TOLERANCE * scale
    )


@pytest.mark.parametrize("size", [(33, 47), (96, 64)])
def test_outputs_equal_those_of_mmsegmentation(model, size):
    golden, pixels = np.load(GOLDEN / "upernet.npz"), images(*size)
    layers = [model.get_layer(name).output for name in ("classifier", "auxiliary_classifier")]
    logits, auxiliary = keras.Model(model.input, layers)(pixels)
    assert_close(logits, golden[f"logits {size[0]}"])
    assert_close(auxiliary, golden[f"auxiliary {size[0]}"])
    if size == (33, 47):
        assert_close(model(pixels), golden["whole 33"])
        assert_close(model.predict(pixels, verbose=0), golden["whole 33"])


@pytest.mark.parametrize("side", [1, 2, 5, 6, 13])
@pytest.mark.parametrize("grid", [1, 2, 3, 6])
def test_a_grid_averages_as_pytorch_does(side, grid):
    maps = np.random.default_rng(0).normal(size=(2, side, side + 3, 4)).astype("float32")
    expected = torch.nn.AdaptiveAvgPool2d(grid)(torch.from_numpy(maps).permute(0, 3, 1, 2))
    assert_close(PoolToGrid(grid)(maps), expected.permute(0, 2, 3, 1).numpy())


@pytest.mark.parametrize(
    "sides",
    [[(8, 12), (4, 6), (2, 3)], [(9, 13), (5, 7), (1, 2)], [(2, 1), (1, 1), (6, 6)]],
    ids=["halved", "odd", "smaller than a grid"],
)
@pytest.mark.parametrize("kernel_size", [1, 3, 5])
def test_a_pyramid_is_convolved_as_if_it_were_resized_and_concatenated(sides, kernel_size):
    random = np.random.default_rng(0)
    maps = [
        keras.ops.convert_to_tensor(random.normal(size=(2, *side, 3 + number)).astype("float32"))
        for number, side in enumerate(sides)
    ]
    layer = PyramidConv2D(4, kernel_size, bias_initializer="random_normal")
    found = layer(maps)
    plain = keras.layers.Conv2D(4, kernel_size, padding="same", data_format="channels_last")
    x = keras.ops.concatenate([maps[0], *(ResizeLike()(x, maps[0]) for x in maps[1:])], axis=-1)
    plain.build(x.shape)
    plain.set_weights(layer.get_weights())
    assert_close(found, keras.ops.convert_to_numpy(plain(x)))
    assert layer.compute_output_shape([x.shape for x in maps]) == found.shape


def test_probabilities_are_of_the_size_of_the_image(model):
    built = toy(classifier_activation="softmax")
    pixels = images(40, 51)
    probabilities = keras.ops.convert_to_numpy(built(pixels))
    assert probabilities.shape == (1, 40, 51, 5)
    np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-5)
    assert built.output_shape == (None, None, None, 5)
    np.testing.assert_array_equal(
        probabilities.argmax(-1), keras.ops.convert_to_numpy(model(pixels)).argmax(-1)
    )


# facebookresearch/ConvNeXt, semantic_segmentation/README.md: height of the images, which are four
# times as wide, and GFLOPs. The parameters are those of mmsegmentation's networks.
PUBLISHED = {
    "convnext_tiny": (512, 60_242_636, 939),
    "convnext_small": (512, 81_877_196, 1027),
    "convnext_base": (512, 122_102_956, 1170),
    "convnext_large": (640, 234_994_796, 2458),
    "convnext_xlarge": (640, 391_140_396, 3335),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_and_operations_are_the_published_ones(name):
    height, parameters, gflops = PUBLISHED[name]
    counted = parts(VARIANTS[name], (height, 4 * height))
    assert sum(part.parameters for part in counted) == parameters
    macs = sum(part.macs for part in counted if part.name != "auxiliary head")
    assert macs == pytest.approx(gflops * 1e9, rel=6e-4)


def test_the_counted_parameters_are_those_of_the_network(model):
    variant = Variant("", *STRUCTURE.values())
    counted = parts(variant, classes=5, channels=16)
    assert sum(part.parameters for part in counted) == sum(
        np.prod(weight.shape) for weight in model.trainable_weights
    )


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_is_written_back_bit_for_bit(model, suffix, tmp_path):
    path = tmp_path / f"mine{suffix}"
    save_segmenter_weights(model, path, "openmmlab")
    if suffix == ".pth":
        found = torch.load(path, weights_only=True)["state_dict"]
    else:
        from safetensors.torch import load_file

        found = load_file(path)
    theirs = torch.load(CHECKPOINT, weights_only=True)["state_dict"]
    assert found.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(found[name], tensor.float() if tensor.is_floating_point() else tensor)


@pytest.mark.parametrize("layout", ["official", "transformers"])
def test_every_layout_is_read_again(model, layout, tmp_path):
    path = tmp_path / "mine.safetensors"
    save_segmenter_weights(model, path, layout)
    again = toy(weights=path)
    for mine, theirs in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_transformers_gives_the_same_logits(model, tmp_path):
    transformers = pytest.importorskip("transformers")
    declare_torchvision_operators()
    trunk = transformers.ConvNextConfig(
        depths=list(STRUCTURE["depths"]), hidden_sizes=list(STRUCTURE["dims"]),
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    config = transformers.UperNetConfig(
        backbone_config=trunk, hidden_size=16, num_labels=5, auxiliary_in_channels=24
    )
    theirs = transformers.UperNetForSemanticSegmentation(config).eval()
    save_segmenter_weights(model, tmp_path / "model.pth", "transformers")
    theirs.load_state_dict(torch.load(tmp_path / "model.pth", weights_only=True))
    pixels = images(35, 70)
    with torch.no_grad():
        logits = theirs(torch.from_numpy(pixels).permute(0, 3, 1, 2)).logits
    assert_close(model(pixels), logits.permute(0, 2, 3, 1).numpy())

    # The first conversion script spelled the norms otherwise, and had one module more.
    old = {
        name.replace("backbone.", "backbone.convnext.", 1)
        if name.startswith(("backbone.embeddings", "backbone.encoder"))
        else name: tensor
        for name, tensor in theirs.state_dict().items()
    }
    for stage in range(4):
        for name in ("weight", "bias"):
            tensor = old.pop(f"backbone.hidden_states_norms.stage{stage + 1}.{name}")
            old[f"backbone.hidden_states_norms.{stage}.{name}"] = tensor
    torch.save(old, tmp_path / "old.pth")
    assert_close(toy(weights=tmp_path / "old.pth")(pixels), logits.permute(0, 2, 3, 1).numpy())


def test_windows_give_the_classes_of_mmsegmentation(model):
    logits = np.load(GOLDEN / "upernet.npz")["windows"][0].astype("float32")
    found = predict_classes(model, images(96, 64)[0], crop=40, stride=27)
    best_two = np.sort(logits, axis=-1)[..., -2:]
    clear = best_two[..., 1] - best_two[..., 0] > 0.01  # the array is in float16
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(found[clear], logits.argmax(-1)[clear])

    labels = np.where(np.arange(64) < 60, logits.argmax(-1), 255)
    scores = evaluate(model, [(images(96, 64)[0], labels)] * 2, scale=None, crop=40, stride=27)
    assert scores.pixel_accuracy > 0.99
    assert scores.mean_iou > 0.95
    with pytest.raises(
        ValueError, match=r"stride must be in 1..crop. Received: stride=50, crop=40"
    ):
        predict_classes(model, images(96, 64)[0], crop=40, stride=50)
    with pytest.raises(ValueError, match=r"shape \(H, W, 3\). Received: shape=\(96, 64\)"):
        predict_classes(model, labels)


def test_two_segmenters_fit_in_one_model(model):
    left, right = toy(name="left"), toy(name="right")
    assert not {layer.name for layer in left.layers[60:]} & {layer.name for layer in right.layers}
    np.testing.assert_array_equal(left(images(32, 32)), model(images(32, 32)))


def test_a_file_of_a_classifier_initializes_the_trunk(model, tmp_path):
    trunk = tmp_path / "classifier.pth"
    classifier = keras_convnext.ConvNeXt(**STRUCTURE, classes=3)
    keras_convnext.save_checkpoint(classifier, trunk)
    built = toy(weights=None, classes=7)
    before = built.get_layer("classifier").kernel.numpy()
    with pytest.warns(UserWarning, match="has no UperNet: norms and heads are unchanged"):
        load_segmenter_weights(built, trunk)
    np.testing.assert_array_equal(
        built.get_layer("stem_conv").kernel, classifier.get_layer("stem_conv").kernel
    )
    np.testing.assert_array_equal(built.get_layer("classifier").kernel, before)


def test_another_number_of_classes_keeps_everything_but_the_last_layers(model):
    with pytest.warns(UserWarning, match="has 5 classes, but the model has 7: everything except"):
        built = toy(classes=7)
    np.testing.assert_array_equal(
        built.get_layer("fpn_bottleneck_norm").moving_variance,
        model.get_layer("fpn_bottleneck_norm").moving_variance,
    )
    assert built.output_shape[-1] == 7


def test_without_its_auxiliary_head_a_file_leaves_that_of_the_model(model, tmp_path):
    save_segmenter_weights(toy(auxiliary=False), tmp_path / "mine.pth")
    with pytest.warns(UserWarning, match="no auxiliary head: the model's is unchanged"):
        built = toy(weights=tmp_path / "mine.pth")
    assert_close(built(images(33, 47)), np.load(GOLDEN / "upernet.npz")["whole 33"])


def changed(tmp_path, change):
    saved = torch.load(CHECKPOINT, weights_only=True)
    change(saved["state_dict"])
    torch.save(saved, tmp_path / "changed.pth")
    return tmp_path / "changed.pth"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("decode_head.fpn_bottleneck.bn.running_var"),
         "Missing from the checkpoint: fpn_bottleneck_norm/moving_variance"),
        (lambda t: t.update({"decode_head.mystery.weight": torch.zeros(3)}),
         "unknown tensors: decode_head.mystery.weight"),
        (lambda t: t.update({"decode_head.bottleneck.conv.weight": torch.zeros(2, 2, 3, 3)}),
         r"has the shape \(3, 3, 96, 16\) in the model. Received: decode_head.bottleneck"),
        (lambda t: t.update({"decode_head.bottleneck.conv.weight": torch.zeros(2, 2)}),
         r"has 4 axes in UperNet. Received: shape=\(2, 2\)"),
        (lambda t: t["decode_head.bottleneck.bn.running_var"].fill_(np.nan), "NaN or infinite"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_changes_nothing(change, message, tmp_path):
    built = toy()
    before = built.get_weights()
    with pytest.raises(CheckpointError, match=message):
        load_segmenter_weights(built, changed(tmp_path, change))
    for weight, earlier in zip(built.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, earlier)


def test_many_tensors_in_the_heads_are_refused(tmp_path):
    many = {f"decode_head.a{index}.weight": torch.zeros(1) for index in range(600)}
    with pytest.raises(CheckpointError, match="have at most 500 tensors"):
        toy(weights=changed(tmp_path, lambda tensors: tensors.update(many)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "convnext_isotropic_small"}, "backbone must be one of convnext_atto"),
        ({"classes": 0}, "classes must be a positive integer. Received: classes=0"),
        ({"channels": 1.5}, "channels must be a positive integer. Received: channels=1.5"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        UperNet(**{"backbone": "convnext_atto", **options})
    with pytest.raises(FileNotFoundError, match=r"Received: weights=nothing.pth"):
        UperNet("convnext_atto", weights="nothing.pth")
