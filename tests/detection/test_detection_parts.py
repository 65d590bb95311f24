"""The parts of detectors on three backends, and masks in COCO's encoding."""

import subprocess
import sys
from pathlib import Path

import detection_parts
import numpy as np
import pytest
from other_backends import environment
from pycocotools import mask as coco_masks

from keras_convnext.detection import decode_rle, encode_rle, paste_mask

RANDOM = np.random.default_rng(0)
SCRIPT = Path(detection_parts.__file__)


@pytest.mark.parametrize("check", detection_parts.CHECKS)
def test_with_tensorflow(check):
    check()


@pytest.mark.parametrize("backend", [pytest.param("jax", marks=pytest.mark.slow), "torch"])
def test_with(backend):
    done = subprocess.run(
        [sys.executable, str(SCRIPT)], env=environment(backend), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert f"{len(detection_parts.CHECKS)} checks on {backend}" in done.stdout


@pytest.mark.parametrize("share", [0, 0.02, 0.5, 1])
def test_run_lengths_are_those_of_pycocotools(share):
    for shape in ((1, 1), (7, 13), (300, 200)):
        mask = RANDOM.random(shape) < share
        theirs = coco_masks.encode(np.asfortranarray(mask, np.uint8))
        ours = encode_rle(mask)
        assert ours == {"size": list(shape), "counts": theirs["counts"].decode()}
        np.testing.assert_array_equal(decode_rle(ours), mask)
        np.testing.assert_array_equal(decode_rle(theirs), mask)
    runs = [3, 4, 5]
    np.testing.assert_array_equal(
        decode_rle({"size": [3, 4], "counts": runs}).ravel(order="F").nonzero()[0], [3, 4, 5, 6]
    )


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([3, 4], r"add up to its 3 x 4 pixels. Received: runs that add up to 7"),
        ([-1, 13], "add up"),
        ("~", "a character that encodes nothing"),
        ("o" * 20, "a number that is too large"),
        ("o", "end within a number"),
        (b"54", "add up"),
    ],
)
def test_damaged_run_lengths_are_refused(counts, message):
    with pytest.raises(ValueError, match=message):
        decode_rle({"size": [3, 4], "counts": counts})


def test_masks_are_pasted_as_pytorch_samples_them():
    import torch

    for box in ([3, 4, 30, 25], [-8.5, 10.2, 61, 44.9], [20.3, 20.4, 20.9, 20.8], [5, 5, 5, 5]):
        mask = RANDOM.random((28, 28)).astype("float32")
        x1, y1, x2, y2 = np.float32(box)
        ys = (torch.arange(40) + 0.5 - y1) / (y2 - y1) * 2 - 1
        xs = (torch.arange(50) + 0.5 - x1) / (x2 - x1) * 2 - 1
        grid = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), -1)[None]
        grid = torch.nan_to_num(grid, nan=9, posinf=9, neginf=-9)
        values = torch.nn.functional.grid_sample(
            torch.from_numpy(mask)[None, None], grid, align_corners=False
        )[0, 0].numpy()  # fmt: skip
        found = paste_mask(mask, np.float32(box), (40, 50))
        clear = np.abs(values - 0.5) > 1e-4
        np.testing.assert_array_equal(found[clear], (values >= 0.5)[clear])


MEMORY = """
import resource
import numpy as np
from keras import ops
from keras_convnext.detection.roi_align import roi_align
random = np.random.default_rng(0)
maps = [ops.ones((1, 800 // stride, 1344 // stride, 256)) for stride in (4, 8, 16, 32)]
centers = random.uniform(0, 1, (1000, 2)) * (1333, 800)
halves = random.uniform(4, 55, (1000, 2))  # all on P2
boxes = np.concatenate([centers - halves, centers + halves], 1)[None].astype("float32")
boxes = ops.convert_to_tensor(np.clip(boxes, 0, np.float32([1333, 800, 1333, 800])))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
pooled = ops.convert_to_numpy(roi_align(maps, boxes, 7))
assert pooled.shape == (1, 1000, 7, 7, 256)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20)
"""


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_a_thousand_regions_need_less_than_two_gigabytes(backend):
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], env=environment(backend), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 2  # GiB
