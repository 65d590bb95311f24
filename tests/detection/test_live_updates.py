"""Ten updates of detectors, next to mmdetection's.

Slow, and skipped without `ORACLES`, a folder as described in `make_golden_detections.py`.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import torch
from make_golden_detections import GOLDEN, LIMITS, PADDED, REGIONS, SIZES, TOY, image, objects
from test_detection_losses import batch
from test_detectors import toy

from keras_convnext.detection.training_network import SAMPLING, loss_names, trained
from keras_convnext.training.optimizer import AdamW

ORACLES = Path(os.environ.get("ORACLES", "/nowhere"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not ORACLES.is_dir(), reason="needs ORACLES"),
    # Both packages are of compiled code that warns.
    pytest.mark.filterwarnings("ignore"),
]


def samples_of(openmmlab):
    """The images and objects of `batch` as mmdetection takes them."""
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    samples, images = [], []
    for index in range(2):
        height, width = SIZES[index]
        padding = (0, PADDED[0] - height), (0, PADDED[1] - width)
        images.append(np.pad(image(index), (*padding, (0, 0))))
        boxes, labels, masks = objects(index)
        sample = openmmlab._sample(height, width)
        sample.set_metainfo({"batch_input_shape": PADDED})
        sample.gt_instances = InstanceData(
            bboxes=torch.tensor(boxes), labels=torch.tensor(labels),
            masks=BitmapMasks(np.pad(masks, ((0, 0), *padding)), *PADDED),
        )  # fmt: skip
        sample.ignored_instances = InstanceData(
            bboxes=torch.zeros(0, 4), labels=torch.zeros(0, dtype=torch.long)
        )
        samples.append(sample)
    return openmmlab._channels_first(np.stack(images)), samples


def with_gradient(openmmlab, monkeypatch):
    """Lets RoIAlign of the oracle have a gradient: as operations of PyTorch, without a function."""
    import mmcv.ops

    def forward(self, features, rois):
        rows, columns = self.output_size
        pooled = features.new_zeros(len(rois), features.shape[1], rows, columns)
        openmmlab._roi_align(
            features, rois, pooled, None, None, rows, columns, self.spatial_scale,
            self.sampling_ratio, 1, self.aligned,
        )  # fmt: skip
        return pooled

    monkeypatch.setattr(mmcv.ops.RoIAlign, "forward", forward)


@pytest.mark.parametrize("kind", ["mask_rcnn", "cascade_mask_rcnn"])
def test_ten_updates_are_those_of_mmdetection(kind, monkeypatch):
    openmmlab = pytest.importorskip("openmmlab")
    net = getattr(openmmlab, kind)(**TOY, **LIMITS)
    saved = torch.load(GOLDEN / f"{kind}.pth", weights_only=True)["state_dict"]
    net.load_state_dict({key: value.float() if value.is_floating_point() else value
                         for key, value in saved.items()})  # fmt: skip
    net.rpn_head.sampler.num = 100_000  # all candidates, so that nothing is drawn
    samplers = net.roi_head.bbox_sampler
    for sampler in samplers if isinstance(samplers, list) else [samplers]:
        sampler.num = REGIONS
    net.train()
    with_gradient(openmmlab, monkeypatch)
    pixels, samples = samples_of(openmmlab)
    names = dict(net.named_parameters())
    theirs = torch.optim.AdamW([
        {"params": [weight], "weight_decay": 0.0 if weight.ndim == 1 else 0.05}
        for weight in names.values()
    ], lr=1e-4)  # fmt: skip

    sampling = SAMPLING[kind]._replace(proposals=50, anchors=20_000, regions=REGIONS)
    ours = trained(toy(kind), sampling)
    optimizer = AdamW(1e-4, 0.05)
    inputs = {name: tf.constant(value) for name, value in batch().items()}

    @tf.function(autograph=False)
    def update():
        with tf.GradientTape() as tape:
            losses = ours(inputs, training=True)[0]
            total = tf.reduce_sum(losses)
        optimizer.apply(tape.gradient(total, ours.trainable_variables), ours.trainable_variables)
        return losses

    optimizer.build(ours.trainable_variables)
    history = []
    for _ in range(10):
        found = net.loss(pixels, samples)
        expected = [
            sum(value) if isinstance(value, list) else value
            for key, value in found.items()
            if "loss" in key
        ]
        theirs.zero_grad()
        sum(expected).backward()
        theirs.step()
        history.append([float(value) for value in expected])
        np.testing.assert_allclose(
            update().numpy(), history[-1], rtol=0, atol=1e-3,
            err_msg=f"{loss_names(sampling, True)} after {len(history) - 1} updates",
        )  # fmt: skip
    assert sum(history[-1]) < sum(history[0]) - 0.02  # something was learned
