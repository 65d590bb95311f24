"""Mask R-CNN and Cascade Mask R-CNN: what mmdetection finds, weight files, and errors.

The golden arrays are mmdetection's; `make_golden_detections.py` makes them.
"""

import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import torch
from keras import ops
from make_golden_detections import GOLDEN, PADDED, SIZES, TOY, image
from other_backends import environment

import keras_convnext
from keras_convnext import CheckpointError, convert, identify, load_model
from keras_convnext.detection import (
    CascadeMaskRCNN,
    MaskRCNN,
    load_detector_weights,
    save_detector_weights,
)
from keras_convnext.pretrained.checks import check_network

STRUCTURE = {name: TOY[name] for name in ("depths", "dims")}
WIDTHS = {name: TOY[name] for name in ("channels", "hidden")}
BUILDERS = {"mask_rcnn": MaskRCNN, "cascade_mask_rcnn": CascadeMaskRCNN}
PARAMETERS = {"mask_rcnn": 23_422, "cascade_mask_rcnn": 49_004}


def trunk(**options):
    return keras_convnext.ConvNeXt(
        **STRUCTURE, include_top=False, input_shape=(None, None, 3), **options
    )


def toy(kind, **options):
    defaults = {
        **WIDTHS, "weights": GOLDEN / f"{kind}.pth", "proposals": 50, "detections": 10,
        "score_threshold": 0.0,
    }  # fmt: skip
    backbone = trunk(include_preprocessing=False)
    return BUILDERS[kind](backbone, **{**defaults, **options})


@pytest.fixture(scope="module", params=BUILDERS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def model(kind):
    return toy(kind)


@pytest.fixture(scope="module")
def batch():
    """The images of the golden arrays, with noise in the padding, which must not matter."""
    images = np.random.default_rng(9).normal(size=(3, *PADDED, 3)).astype("float32")
    for index, (height, width) in enumerate(SIZES):
        images[index, :height, :width] = image(index)
    return {"images": images, "sizes": np.float32(SIZES)}


def detect(model, batch):
    """Eagerly: compiling takes ten times as long as these toys."""
    return {name: ops.convert_to_numpy(value) for name, value in model(batch).items()}


@pytest.fixture(scope="module")
def found(kind, model, batch):
    return model.predict(batch, verbose=0) if kind == "mask_rcnn" else detect(model, batch)


def test_detections_equal_those_of_mmdetection(kind, found):
    golden = np.load(GOLDEN / "detections.npz")
    tolerances = {"boxes": 1e-2, "scores": 1e-4, "labels": 0, "masks": 1e-3}
    assert found["num_detections"].tolist() == [10, 10, 10]
    for index in range(len(SIZES)):
        for name, tolerance in tolerances.items():
            expected = golden[f"{kind} {index} {name}"]
            np.testing.assert_allclose(found[name][index], expected, rtol=0, atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_other_backends_equal_mmdetection(backend):
    files = [
        Path(__file__).with_name(f"test_{name}.py") for name in ("detectors", "detection_losses")
    ]
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", *map(str, files)]
    done = subprocess.run(
        [*command, "-m", "", "-k", "equal_those_of_mmdetection"],
        env=environment(backend),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "4 passed" in done.stdout


def test_a_saved_model_finds_the_same(model, batch, found, tmp_path):
    model.save(tmp_path / "mine.keras")
    again = detect(keras.models.load_model(tmp_path / "mine.keras"), batch)
    assert again.keys() == found.keys()
    for name, value in found.items():
        np.testing.assert_allclose(again[name], value, rtol=0, atol=1e-3)
    assert model.output["boxes"].shape == (None, 10, 4)
    assert model.output["masks"].shape == (None, 10, 28, 28)


def test_thresholds_leave_fewer_detections(kind, batch, found):
    between = np.sort(found["scores"].ravel())[[10, 11]].mean()
    fewer = detect(toy(kind, score_threshold=float(between), masks=False), batch)
    assert fewer.keys() == found.keys() - {"masks"}
    counts = (found["scores"] > between).sum(1)
    np.testing.assert_array_equal(fewer["num_detections"], counts)
    for index, count in enumerate(counts):
        np.testing.assert_array_equal(
            fewer["labels"][index, :count], found["labels"][index, :count]
        )
        assert (fewer["labels"][index, count:] == -1).all()
        assert not fewer["boxes"][index, count:].any()
        assert not fewer["scores"][index, count:].any()


def test_pixels_are_normalized_inside_and_padding_is_not_seen():
    model = MaskRCNN(trunk(), **WIDTHS, classes=5, proposals=20, detections=5, score_threshold=0.0)
    images = np.random.default_rng(0).uniform(0, 255, (1, 64, 96, 3)).astype("float32")
    sizes = np.float32([[50, 70]])
    first = detect(model, {"images": images, "sizes": sizes})
    images[:, 50:] = 0
    images[:, :, 70:] = 255
    second = detect(model, {"images": images, "sizes": sizes})
    np.testing.assert_array_equal(first["boxes"], second["boxes"])
    assert (first["boxes"].max((0, 1)) <= [70, 50, 70, 50]).all()


@pytest.mark.parametrize(
    ("builder", "size", "parameters"),
    [
        (MaskRCNN, "tiny", 48_095_376),
        pytest.param(CascadeMaskRCNN, "tiny", 85_930_578, marks=pytest.mark.slow),
        pytest.param(CascadeMaskRCNN, "small", 107_565_138, marks=pytest.mark.slow),
        pytest.param(CascadeMaskRCNN, "base", 145_800_242, marks=pytest.mark.slow),
        pytest.param(CascadeMaskRCNN, "large", 254_710_770, marks=pytest.mark.slow),
        pytest.param(CascadeMaskRCNN, "xlarge", 406_875_058, marks=pytest.mark.slow),
    ],
)
def test_published_numbers_of_parameters(builder, size, parameters):
    # Symbolically: nothing is allocated.
    with keras.StatelessScope():
        built = builder(f"convnext_{size}")
    assert sum(np.prod(weight.shape) for weight in built.trainable_weights) == parameters


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_is_written_back_bit_for_bit(kind, model, suffix, tmp_path):
    path = tmp_path / f"mine{suffix}"
    save_detector_weights(model, path, "openmmlab")
    if suffix == ".pth":
        found = torch.load(path, weights_only=True)["state_dict"]
    else:
        from safetensors.torch import load_file

        found = load_file(path)
    theirs = torch.load(GOLDEN / f"{kind}.pth", weights_only=True)["state_dict"]
    assert found.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert torch.equal(found[name], tensor.float() if tensor.is_floating_point() else tensor)


def test_the_network_is_determined_by_the_file(kind, model, tmp_path):
    path = GOLDEN / f"{kind}.pth"
    built = load_model(path)
    assert built.name == f"{kind}_convnext"
    assert_same_weights(built, model)
    found = identify(path)
    assert (found.name, found.head, found.task) == (f"{kind}_convnext", kind, "detection")
    assert (found.classes, found.parameters, found.ignored) == (5, PARAMETERS[kind], ())
    assert check_network(path, f"{kind}_convnext", 5, parameters=PARAMETERS[kind])
    assert sum(np.prod(each.shape) for each in built.trainable_weights) == PARAMETERS[kind]
    with pytest.raises(CheckpointError, match=f"checkpoint of {kind}_convnext, not of convnext_t"):
        load_model(path, "convnext_tiny")
    for there in (tmp_path / "there.keras", tmp_path / "there.safetensors"):
        convert(path, there)
        again = identify(there)
        assert (again.name, again.classes, again.parameters) == (
            f"{kind}_convnext", 5, PARAMETERS[kind]
        )  # fmt: skip
        assert_same_weights(load_model(there), model)


def assert_same_weights(ours, theirs):
    for one, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_another_number_of_classes_keeps_everything_but_the_last_layers(kind, model):
    with pytest.warns(UserWarning, match="has 5 classes, but the model has 7: everything except"):
        built = toy(kind, classes=7)
    suffix = "_0" * kind.startswith("cascade")
    same = np.testing.assert_array_equal
    for name, part in (
        ("proposal_head", "deltas"), (f"box_head{suffix}", "fully_connected"),
        (f"mask_head{suffix}", "upsample"), ("pyramid", "lateral"),
    ):  # fmt: skip
        layers = [getattr(each.get_layer(name), part) for each in (built, model)]
        pair = [each[0] if isinstance(each, list) else each for each in layers]
        same(pair[0].kernel, pair[1].kernel)
    assert built.get_layer(f"box_head{suffix}").classifier.kernel.shape == (16, 8)


def test_other_files_initialize_the_trunk(kind, tmp_path):
    path = tmp_path / "classifier.pth"
    classifier = keras_convnext.ConvNeXt(**STRUCTURE, classes=3)
    keras_convnext.save_checkpoint(classifier, path)
    with pytest.warns(UserWarning, match=r"has no .*Mask R-CNN: norms and heads are unchanged"):
        built = toy(kind, weights=path)
    stem = built.get_layer("backbone").get_layer("stem_conv")
    np.testing.assert_array_equal(stem.kernel, classifier.get_layer("stem_conv").kernel)
    other = "mask_rcnn" if kind != "mask_rcnn" else "cascade_mask_rcnn"
    with pytest.warns(UserWarning, match=r"The checkpoint is of .*Mask R-CNN: norms and heads"):
        load_detector_weights(built, GOLDEN / f"{other}.pth")
    save_detector_weights(toy(kind, masks=False), tmp_path / "boxes.pth")
    with pytest.warns(UserWarning, match=r"no mask head: the model's is unchanged"):
        toy(kind, weights=tmp_path / "boxes.pth")
    assert "masks" not in load_model(tmp_path / "boxes.pth").output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("rpn_head.rpn_cls.bias"), "Missing from the checkpoint: proposal_head/o"),
        (lambda t: t.update({"roi_head.mystery.weight": torch.zeros(3)}),
         "unknown tensors: roi_head.mystery.weight. Use a file of an unmodified Mask R-CNN"),
        (lambda t: t.update({"roi_head.bbox_head.fc_reg.weight": torch.zeros(2, 2)}),
         "has the shape"),
        (lambda t: t.update({"neck.fpn_convs.0.conv.weight": torch.zeros(2, 2)}), "has 4 axes in"),
        (lambda t: t["rpn_head.rpn_conv.bias"].fill_(np.nan), "NaN or infinite"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_changes_nothing(change, message, tmp_path):
    built = toy("mask_rcnn", weights=None, classes=5)
    before = built.get_weights()
    saved = torch.load(GOLDEN / "mask_rcnn.pth", weights_only=True)
    change(saved["state_dict"])
    torch.save(saved, tmp_path / "changed.pth")
    with pytest.raises(CheckpointError, match=message):
        load_detector_weights(built, tmp_path / "changed.pth")
    for weight, earlier in zip(built.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, earlier)


def test_wrong_arguments_are_refused(tmp_path):
    with pytest.raises(ValueError, match="backbone must be one of convnext_atto"):
        MaskRCNN("convnext_isotropic_small")
    with pytest.raises(ValueError, match=r"positive integer. Received: classes=0"):
        CascadeMaskRCNN("convnext_atto", classes=0)
    with pytest.raises(FileNotFoundError, match=r"Received: weights=nothing.pth"):
        MaskRCNN("convnext_atto", weights="nothing.pth")
    with pytest.raises(ValueError, match="Available: 'coco', 'coco_openmmlab'"):
        MaskRCNN("convnext_tiny", weights="coco_22k")
    with pytest.raises(ValueError, match="must be a MaskRCNN, CascadeMaskRCNN or RotatedRetinaNet"):
        save_detector_weights(trunk(), tmp_path / "mine.pth")


def test_a_backbone_of_v2_is_taken_by_name():
    with keras.StatelessScope():  # nothing is allocated
        model = MaskRCNN("convnextv2_atto", classes=3, channels=16, hidden=32)
    blocks = keras_convnext.trunks.trunk_of(model.get_layer("backbone")).blocks
    assert all(block.grn is not None for block in blocks)
