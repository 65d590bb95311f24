"""Every check of the battery for detectors, on this backend and the others.

A network is one line in `NETWORKS`. A check is a function of a model that finds objects, of what
builds it with other options, and of an empty folder. `test_detectors.py` and
`test_rotated_network.py` compare the same networks with those of OpenMMLab.
"""

import copy
import pickle
import re
from functools import cache, partial

import keras
import make_golden_rotated
import numpy as np
import pytest
from battery import BACKEND, ROUNDING, array, assert_close, dtype_policy, relative_error
from keras import ops
from make_golden_detections import GOLDEN, TOY
from other_backends import assert_tests_pass
from test_detection_losses import batch

import keras_convnext
from keras_convnext.detection import CascadeMaskRCNN, MaskRCNN, RotatedRetinaNet
from keras_convnext.detection.rotated import training_network as rotated_training
from keras_convnext.detection.training_network import SAMPLING, trained
from keras_convnext.detection.weights import kind_of
from keras_convnext.export import fuse

ROTATED = RotatedRetinaNet, {"channels": TOY["channels"], "classes": TOY["classes"]}
OF_REGIONS = {
    **{name: TOY[name] for name in ("channels", "hidden", "classes")},
    "proposals": 50, "detections": 10, "score_threshold": 0.0,
}  # fmt: skip
# Weights without a gradient: of coarse maps, which no sampled region of such small images is on, or
# of which group norm sees two positions; and rotated RetinaNets begin with the second map, but
# files have the norm of the first.
UNUSED = {
    "mask_rcnn": "nothing",
    "cascade_mask_rcnn": "pyramid/output_[23]/",
    "rotated_retinanet": "norm_0/",
    "rotated_gfl_retinanet": "norm_0/|pyramid/output_4/",
}


def build(builder, defaults, network=keras_convnext.ConvNeXt, weights=None, **options):
    trunk = network(
        TOY["depths"], TOY["dims"], weights=None, include_top=False, include_preprocessing=False,
        input_shape=(None, None, 3), drop_path_rate=options.pop("drop_path_rate", 0.0),
    )  # fmt: skip
    keras.utils.set_random_seed(0)
    model = builder(trunk, weights=weights, **{**defaults, **options})
    for number, weight in enumerate(model.weights if weights is None else ()):
        values = 0.3 * np.random.default_rng(number).normal(size=weight.shape)
        is_scale = weight.path.endswith("/gamma") and "grn" not in weight.path
        weight.assign(np.abs(values) + 0.5 if "variance" in weight.path or is_scale else values)
    return model


NETWORKS = {
    "mask_rcnn": partial(build, MaskRCNN, OF_REGIONS, weights=GOLDEN / "mask_rcnn.pth"),
    "cascade_mask_rcnn": partial(
        build, CascadeMaskRCNN, OF_REGIONS, weights=GOLDEN / "cascade_mask_rcnn.pth"
    ),
    "mask_rcnn_v2": partial(build, MaskRCNN, OF_REGIONS, keras_convnext.ConvNeXtV2),
    "rotated_direct": partial(build, *ROTATED, weights=GOLDEN / make_golden_rotated.FILE),
    "rotated_expectation": partial(build, *ROTATED, regression="expectation"),
}


def inputs():
    """Two images of different sizes."""
    return {name: batch()[name] for name in ("images", "sizes")}


def found_in(model, images):
    """Eagerly: compiling takes ten times as long as these toys."""
    return {name: ops.convert_to_numpy(value) for name, value in model(images).items()}


def assert_same(found, expected, what=""):
    assert found.keys() == expected.keys(), what
    for name, value in expected.items():
        message = f"{what} {name}"
        np.testing.assert_allclose(found[name], value, rtol=0, atol=1e-3, err_msg=message)


def features_of(model, images):
    """Returns the pyramid and what the convolutions of the head make of it."""
    head = next(layer for layer in model.layers if layer.name.endswith("_head"))
    outputs = keras.tree.flatten([model.get_layer("pyramid").output, head.output])
    return [array(each) for each in keras.Model(model.inputs, outputs)(images)]


def check_sizes_of_images_and_batches(model, build, folder):
    """A tenth of what is found may differ: rounding decides between almost equal scores."""
    together, features = found_in(model, inputs()), features_of(model, inputs())
    for index in range(2):
        alone = {name: value[index : index + 1] for name, value in inputs().items()}
        for own, theirs in zip(features_of(model, alone), features, strict=True):
            assert_close(own, theirs[index : index + 1])
        for name, found in found_in(model, alone).items():
            is_same = np.isclose(found, together[name][index : index + 1], rtol=0, atol=1e-3)
            assert is_same.mean() > 0.9, name


def check_copies(model, build, folder):
    model = build(drop_path_rate=0.3)
    expected = found_in(model, inputs())
    model.save(folder / "model.keras")
    model.save_weights(folder / "model.weights.h5")
    copies = {
        ".keras": keras.models.load_model(folder / "model.keras"),
        ".weights.h5": build(drop_path_rate=0.3),
        "clone_model": keras.models.clone_model(model),
        "from_config": keras.Model.from_config(model.get_config()),
        "deepcopy": copy.deepcopy(model),
        "pickle": pickle.loads(pickle.dumps(model)),
    }
    for weight in copies[".weights.h5"].weights:
        weight.assign(np.zeros(weight.shape))
    copies[".weights.h5"].load_weights(folder / "model.weights.h5")
    for way in ("clone_model", "from_config"):
        copies[way].set_weights(model.get_weights())
    for way, again in copies.items():
        assert_same(found_in(again, inputs()), expected, way)


def check_precision(model, build, folder):
    """Boxes and scores are in float32, and what they are computed from is close."""
    expected = features_of(model, inputs())
    for name in ("mixed_float16", "mixed_bfloat16"):
        half = name.removeprefix("mixed_")
        with dtype_policy(name):
            other = build()
            found = other(inputs())
        for each in ("boxes", "scores"):
            assert keras.backend.standardize_dtype(found[each].dtype) == "float32"
            assert np.isfinite(array(found[each])).all()
        for own, theirs in zip(features_of(other, inputs()), expected, strict=True):
            assert 0 < relative_error(own, theirs) < 12 * ROUNDING[half], half


def check_fused(model, build, folder):
    fused = fuse(model)
    assert fused.count_params() < model.count_params()
    pair = (features_of(each, inputs()) for each in (fused, model))
    for own, expected in zip(*pair, strict=True):
        assert_close(own, expected)
    assert fused(inputs()).keys() == model(inputs()).keys()


def check_fit(model, build, folder):
    """An update changes every weight that has a gradient, and all numbers stay finite."""
    model = build(drop_path_rate=0.2)
    kind = kind_of(model)
    if kind in SAMPLING:
        data = batch()
        training = trained(model, SAMPLING[kind]._replace(proposals=50, regions=32))
    else:
        data = rotated_batch()
        objective = rotated_training.RotatedObjective("atss", "iou_log")
        training = rotated_training.trained(model, objective)
    before = [ops.convert_to_numpy(weight) for weight in training.trainable_weights]
    training.compile(
        keras.optimizers.SGD(0.1, clipnorm=1.0), lambda _, losses: ops.sum(losses, axis=-1),
        run_eagerly=True,
    )  # fmt: skip
    history = training.fit(data, np.zeros(2), batch_size=2, epochs=2, verbose=0).history["loss"]
    assert np.isfinite(history).all()
    for weight, was in zip(training.trainable_weights, before, strict=True):
        now = ops.convert_to_numpy(weight)
        assert np.isfinite(now).all(), weight.path
        assert (was != now).any() or re.search(UNUSED[kind], weight.path), weight.path


def rotated_batch():
    """The two images with rotated objects."""
    boxes, labels = np.zeros((2, 4, 5), "float32"), np.full((2, 4), -1, "int32")
    for index in range(2):
        own_boxes, own_labels = make_golden_rotated.objects(index)
        boxes[index, : len(own_boxes)], labels[index, : len(own_labels)] = own_boxes, own_labels
    return {**inputs(), "boxes": boxes, "labels": labels}


CHECKS = {
    name.removeprefix("check_"): check
    for name, check in list(globals().items())
    if name.startswith("check_")
}
# Of two networks; all of the others are slow, and so are all other backends.
QUICK = {("mask_rcnn", "sizes_of_images_and_batches"), ("rotated_expectation", "fused")}


@cache
def shared(name):
    return NETWORKS[name]()


def cases():
    for name in NETWORKS:
        for check in CHECKS:
            marks = [] if (name, check) in QUICK else [pytest.mark.slow]
            yield pytest.param(name, check, marks=marks, id=f"{name}-{check}")


@pytest.mark.parametrize(("name", "check"), list(cases()))
def test_detector(name, check, tmp_path):
    CHECKS[check](shared(name), NETWORKS[name], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("backend", sorted({"jax", "tensorflow", "torch"} - {BACKEND}))
def test_detectors_on_another_backend(backend):
    assert_tests_pass(backend, f"{__file__}::test_detector")
