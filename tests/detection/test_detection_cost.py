"""Counts of detectors: those of the built networks, and the published operations."""

import json

import pytest
from make_golden_detections import TOY
from test_detectors import PARAMETERS
from typer.testing import CliRunner

from keras_convnext import cli
from keras_convnext.detection import plan, recipe_for
from keras_convnext.detection.cost import parts
from keras_convnext.variants import VARIANTS, Variant


@pytest.mark.parametrize("kind", PARAMETERS)
def test_parameters_are_those_of_the_network(kind):
    toy = Variant("toy", TOY["depths"], TOY["dims"], 1e-6, 4, 7)
    widths = {name: TOY[name] for name in ("channels", "hidden")}
    rows = parts(toy, classes=TOY["classes"], cascade=kind != "mask_rcnn", **widths)
    assert sum(row.parameters for row in rows) == PARAMETERS[kind]


@pytest.mark.parametrize(
    ("cascade", "size", "gflops"),
    [(False, "tiny", 262), (True, "tiny", 741), (True, "small", 827), (True, "base", 964),
     (True, "large", 1354), (True, "xlarge", 1898)],
)  # fmt: skip
def test_operations_are_the_published_ones(cascade, size, gflops):
    """README of facebookresearch/ConvNeXt, object_detection, for 1280 x 800 px."""
    rows = parts(VARIANTS[f"convnext_{size}"], (800, 1280), cascade=cascade)
    assert sum(row.macs for row in rows) / 1e9 == pytest.approx(gflops, rel=0.01)


def test_info_shows_the_parts_of_a_detector():
    command = ["info", "cascade_mask_rcnn_convnext_tiny", "--json"]
    printed = json.loads(CliRunner().invoke(cli.app, command).stdout)
    assert printed["parts"][-1]["name"] == "mask head"
    assert sum(part["parameters"] for part in printed["parts"]) == 85_930_578


def test_a_plan_is_made_for_each_recipe():
    recipe = recipe_for("coco_mask_rcnn", "convnext_tiny")
    planned = plan(recipe, "convnext_tiny", None, 8, "a100-40gb")
    assert planned.updates == 36 * (117_266 // 16)
    assert planned.device_batch == 2
    # mmdetection measured 7.3 GB for the same batch of a device.
    assert 4 * 2**30 < planned.memory.total < 15 * 2**30
    assert planned.fits
    with pytest.raises(ValueError, match="is for your own data"):
        plan(recipe_for("detect_small", "convnext_atto"), "convnext_atto", None, 1, "a100-40gb")
