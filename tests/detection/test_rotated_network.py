"""Rotated RetinaNets: what mmrotate finds, losses and assignments, and weight files.

The golden arrays are mmrotate's; `make_golden_rotated.py` makes them.
"""

import subprocess
import sys

import keras
import numpy as np
import pytest
import torch
from keras import ops
from make_golden_rotated import FILE, GOLDEN, KEPT, SIZES, THRESHOLD, TOY, image, objects
from other_backends import environment

import keras_convnext
from keras_convnext import CheckpointError, convert, identify, load_model
from keras_convnext.detection import (
    RotatedRetinaNet,
    load_detector_weights,
    save_detector_weights,
    suppress_rotated,
)
from keras_convnext.detection.anchors import Shapes
from keras_convnext.detection.rotated.anchors import rotated_anchors
from keras_convnext.detection.rotated.assigners import assigned_adaptively
from keras_convnext.detection.rotated.cost import parts_of_rotated
from keras_convnext.detection.rotated.training_network import RotatedObjective, trained
from keras_convnext.variants import VARIANTS

PATH = GOLDEN / FILE
STRUCTURE = {name: TOY[name] for name in ("depths", "dims")}
ARRAYS = np.load(GOLDEN / "rotated.npz")


def trunk(**options):
    return keras_convnext.ConvNeXt(
        **STRUCTURE, include_top=False, input_shape=(None, None, 3), **options
    )


def toy(regression=None, **options):
    backbone = trunk(include_preprocessing=False)
    return RotatedRetinaNet(backbone, regression=regression, channels=8, **options)


@pytest.fixture(scope="module")
def published():
    return toy(weights=PATH)


def inputs_of(index):
    return {"images": image(index)[None], "sizes": np.float32([SIZES[index]])}


def suppressed(found):
    boxes, scores = (ops.convert_to_numpy(found[name])[0] for name in ("boxes", "scores"))
    rows, labels = np.nonzero(scores > THRESHOLD)
    boxes, scores = boxes[rows], scores[rows, labels]
    best = suppress_rotated(boxes, scores, np.zeros_like(labels), 0.1)[:KEPT]
    return boxes[best], scores[best], labels[best]


@pytest.mark.parametrize("index", [0, 1])
def test_detections_equal_those_of_mmrotate(published, index):
    boxes, scores, labels = suppressed(published(inputs_of(index)))
    np.testing.assert_array_equal(labels, ARRAYS[f"{index} labels"])
    np.testing.assert_allclose(scores, ARRAYS[f"{index} scores"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(boxes, ARRAYS[f"{index} boxes"], rtol=0, atol=1e-3)


@pytest.mark.parametrize("index", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_losses_equal_those_of_mmrotate(published, index):
    model = trained(published, RotatedObjective("iou", "kld", 5.5))
    boxes, labels = objects(index)
    batch = {
        **inputs_of(index), "boxes": np.zeros((1, 5, 5), "float32"),
        "labels": np.full((1, 5), -1, "int32"),
    }  # fmt: skip
    batch["boxes"][0, : len(boxes)], batch["labels"][0, : len(labels)] = boxes, labels
    found = ops.convert_to_numpy(model(batch, training=True))[0]
    np.testing.assert_allclose(found[:2], ARRAYS[f"{index} losses"], rtol=1e-5)


@pytest.mark.parametrize("index", [0, 1])
def test_adaptive_assignment_equals_that_of_mmrotate(index):
    height, width = SIZES[index]
    maps = [ops.zeros((1, -(-height // s), -(-width // s), 1)) for s in (8, 16, 32, 64, 128)]
    levels = rotated_anchors(maps, Shapes((1.0,), (4.0,)))
    boxes, labels = objects(index)
    boxes = np.concatenate([boxes, np.zeros((2, 5), "float32")])[None]
    is_box = np.arange(len(labels) + 2)[None] < len(labels)
    expected = ARRAYS[f"{index} atss"]
    usable = np.ones((1, len(expected)), bool)
    found = assigned_adaptively(*map(ops.convert_to_tensor, (boxes, is_box)), levels, usable)
    np.testing.assert_array_equal(ops.convert_to_numpy(found)[0], expected)
    assert len(np.unique(expected)) == len(labels) + 1


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends_equal_mmrotate(backend):
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", __file__, "-m", ""]
    done = subprocess.run(
        [*command, "-k", "of_mmrotate or independent_one"],
        env=environment(backend),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "8 passed" in done.stdout


class Expectation(torch.nn.Module):
    """The head of Xuyihaoby/rotate_detection, RGFLHeadVanilla, with its names."""

    def __init__(self, channels, classes):
        super().__init__()

        def stack():
            return torch.nn.ModuleList(
                torch.nn.ModuleDict({
                    "conv": torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False),
                    "gn": torch.nn.GroupNorm(8, channels),
                })
                for _ in range(4)
            )  # fmt: skip

        self.cls_convs, self.reg_convs = stack(), stack()
        self.gfl_cls = torch.nn.Conv2d(channels, classes, 3, padding=1)
        self.gfl_reg = torch.nn.Conv2d(channels, 45, 3, padding=1)

    def forward(self, x):
        own = []
        for convs, last in ((self.cls_convs, self.gfl_cls), (self.reg_convs, self.gfl_reg)):
            found = x
            for part in convs:
                found = torch.relu(part["gn"](part["conv"](found)))
            own.append(last(found).permute(0, 2, 3, 1))
        bins = torch.softmax(own[1].unflatten(-1, (5, 9)), -1)
        shift = (bins[..., :4, :] * torch.linspace(-2, 2, 9)).sum(-1)
        angle = (bins[..., 4:, :] * torch.linspace(-5, 2, 9)).sum(-1)
        return own[0], torch.cat([shift, angle], -1)


def test_the_head_with_expectations_equals_an_independent_one(tmp_path):
    torch.manual_seed(0)
    theirs = Expectation(8, 5)
    with torch.no_grad():
        for weight in theirs.parameters():
            weight.add_(0.3 * torch.randn(weight.shape))
    model = toy("expectation", classes=5)
    path = tmp_path / "mine.pth"
    save_detector_weights(model, path, "openmmlab")
    saved = torch.load(path, weights_only=True)
    tensors = saved["state_dict"]
    own = {f"bbox_head.{name}": each for name, each in theirs.state_dict().items()}
    assert own.items() <= {name: own.get(name) for name in tensors}.items()
    assert torch.equal(tensors["bbox_head.integral.project"], torch.linspace(-2, 2, 9))
    angles = tensors["bbox_head.integral_angle.project"]
    torch.testing.assert_close(angles, torch.linspace(-5, 2, 9))
    torch.save({"state_dict": {**tensors, **own}}, path)
    load_detector_weights(model, path)
    x = np.random.default_rng(0).normal(size=(2, 6, 7, 8)).astype("float32")
    (logits,), (deltas,) = model.get_layer("expectation_head")([ops.convert_to_tensor(x)])
    with torch.no_grad():
        expected = theirs(torch.from_numpy(np.moveaxis(x, -1, 1)))
    for found, other in zip((logits, deltas), expected):
        np.testing.assert_allclose(ops.convert_to_numpy(found), other.numpy(), rtol=0, atol=1e-5)
    again = load_model(path)
    assert again.name == "rotated_gfl_retinanet_convnext"
    assert again.get_layer("decode").convention == "le135"
    assert identify(path).ignored == ()


def test_at_initialization_boxes_are_upright_anchors():
    model = toy("expectation", classes=5)
    head = model.get_layer("expectation_head")
    head.deltas.kernel.assign(ops.zeros_like(head.deltas.kernel))
    found = model(inputs_of(0))
    boxes = ops.convert_to_numpy(found["boxes"])[0]
    assert set(boxes[:, 2]) == set(boxes[:, 3]) == {32, 64, 128, 256, 512}
    np.testing.assert_allclose(boxes[:, 4], np.pi / 2, atol=1e-6)
    assert boxes.shape == (129, 5)


@pytest.mark.parametrize(
    ("regression", "parameters", "of_head"),
    [("expectation", 35_977_692, 4_860_988), ("direct", 37_431_892, 5_135_540)],
)
def test_published_numbers_of_parameters_are_counted(regression, parameters, of_head):
    counted = parts_of_rotated(VARIANTS["convnext_tiny"], regression=regression)
    assert sum(part.parameters for part in counted) == parameters
    assert counted[-1].parameters == of_head


@pytest.mark.slow
@pytest.mark.parametrize("regression", ["expectation", "direct"])
def test_networks_have_the_numbers_of_parameters_that_are_counted(regression):
    counted = parts_of_rotated(VARIANTS["convnext_tiny"], regression=regression)
    with keras.StatelessScope():  # nothing is allocated
        built = RotatedRetinaNet("convnext_tiny", regression=regression)
    head = next(layer for layer in built.layers if layer.name.endswith("_head"))
    expected = sum(part.parameters for part in counted)
    assert sum(np.prod(weight.shape) for weight in built.trainable_weights) == expected
    assert sum(np.prod(weight.shape) for weight in head.weights) == counted[-1].parameters
    assert built.output["scores"].shape == (None, None, 15)


def test_a_file_of_mmrotate_is_written_back_bit_for_bit(published, tmp_path):
    save_detector_weights(published, tmp_path / "mine.pth", "openmmlab")
    found = torch.load(tmp_path / "mine.pth", weights_only=True)["state_dict"]
    theirs = torch.load(PATH, weights_only=True)["state_dict"]
    assert found.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(found[name], tensor.float())


def test_the_network_is_determined_by_the_file(published, tmp_path):
    parameters = sum(np.prod(each.shape) for each in published.trainable_weights)
    for path in (PATH, tmp_path / "there.keras", tmp_path / "there.safetensors"):
        if path != PATH:
            convert(PATH, path)
        found = identify(path)
        assert (found.name, found.head) == ("rotated_retinanet_convnext", "rotated_retinanet")
        assert (found.task, found.classes, found.ignored) == ("detection.rotated", 5, ())
        assert found.parameters == parameters
        built = load_model(path)
        assert built.get_layer("decode").convention == "le90"
        for one, other in zip(built.get_weights(), published.get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)
    with pytest.raises(CheckpointError, match="not of rotated_gfl_retinanet_convnext_tiny"):
        load_model(PATH, "rotated_gfl_retinanet_convnext_tiny")


def test_published_weights_are_found_by_name():
    (row,) = keras_convnext.list_weights("rotated_retinanet_convnext_tiny")
    assert (row.tag, row.classes, row.parameters) == ("dota_openmmlab", 15, 37_431_892)
    assert row.known_digest == "sha256:388184f6"
    run = "rotated_retinanet_obb_kld_stable_convnext_adamw_fpn_1x_dota_le90"
    start = "https://download.openmmlab.com/mmrotate/v0.1.0/convnext"
    assert row.url == f"{start}/{run}/{run}-388184f6.pth"
    with pytest.raises(ValueError, match="Available: none"):
        RotatedRetinaNet("convnext_small", weights="dota_openmmlab")


def test_other_files_initialize_what_fits(published, tmp_path):
    with pytest.warns(UserWarning, match="has 5 classes, but the model has 7: everything except"):
        built = toy(weights=PATH, classes=7)
    for part in ("deltas", "class_convs"):
        layers = [getattr(each.get_layer("rotated_head"), part) for each in (built, published)]
        one, other = (each[0] if isinstance(each, list) else each for each in layers)
        np.testing.assert_array_equal(one.kernel, other.kernel)
    with pytest.warns(UserWarning, match="of rotated RetinaNet: norms and heads are unchanged"):
        other = toy("expectation", weights=PATH, classes=5)
    stems = (each.get_layer("backbone").get_layer("stem_conv").kernel for each in (other, built))
    np.testing.assert_array_equal(*stems)


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match=r"expectation, direct\. Received: regression='dfl'"):
        RotatedRetinaNet("convnext_atto", regression="dfl")
    with pytest.raises(ValueError, match=r"convention must be one of le135, le90, oc"):
        RotatedRetinaNet("convnext_atto", convention="le180")
    with pytest.raises(ValueError, match="classes must be a positive integer"):
        RotatedRetinaNet("convnext_atto", classes=0)
