"""The training losses of detectors, equal to those of mmdetection."""

import keras
import numpy as np
import pytest
from keras import ops
from make_golden_detections import GOLDEN, PADDED, REGIONS, SIZES, image, objects
from test_detectors import toy

from keras_convnext.detection.losses import smooth_l1
from keras_convnext.detection.training_network import SAMPLING, loss_names, trained

MOST = 5  # objects, with padding


def batch():
    images = np.zeros((2, *PADDED, 3), "float32")
    boxes, labels = np.zeros((2, MOST, 4), "float32"), np.full((2, MOST), -1, "int32")
    masks = np.zeros((2, MOST, *PADDED), "uint8")
    for index in range(2):
        height, width = SIZES[index]
        own_boxes, own_labels, own_masks = objects(index)
        count = len(own_boxes)
        images[index, :height, :width] = image(index)
        boxes[index, :count], labels[index, :count] = own_boxes, own_labels
        masks[index, :count, :height, :width] = own_masks
    sizes = np.float32(SIZES[:2])
    return {"images": images, "sizes": sizes, "boxes": boxes, "labels": labels, "masks": masks}


@pytest.mark.parametrize(
    "kind", ["mask_rcnn", pytest.param("cascade_mask_rcnn", marks=pytest.mark.slow)]
)
def test_losses_equal_those_of_mmdetection(kind):
    sampling = SAMPLING[kind]._replace(proposals=50, anchors=20_000, regions=REGIONS)
    model = trained(toy(kind), sampling)
    found = ops.convert_to_numpy(model(batch(), training=True))
    names = loss_names(sampling, masks=True)
    assert found.shape == (2, len(names))
    np.testing.assert_array_equal(found[0], found[1])  # of the whole batch
    expected = np.load(GOLDEN / "detections.npz")[f"{kind} losses"]
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=1e-4, err_msg=f"{names}")


def test_random_samples_are_trained_on():
    keras.utils.set_random_seed(0)
    detector = toy("mask_rcnn", masks=False)
    model = trained(detector, SAMPLING["mask_rcnn"]._replace(proposals=50, regions=16))
    inputs = {name: value for name, value in batch().items() if name != "masks"}
    inputs["labels"][1] = -1  # an image without objects
    first, second = (ops.convert_to_numpy(model(inputs, training=True))[0] for _ in range(2))
    assert len(first) == 4
    assert np.isfinite([first, second]).all()
    assert (first != second).any()


def test_small_differences_are_squared():
    found = smooth_l1(ops.convert_to_tensor([-0.2, 0.05, 3.0]), 0.1)
    np.testing.assert_allclose(ops.convert_to_numpy(found), [0.15, 0.0125, 2.95], rtol=1e-6)
